"""What is exported of a generation that ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias

from services.inference.prompts.store import PromptVersion

Parameter: TypeAlias = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Said:
    """One message, as policy let it pass."""

    role: str
    text: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class Spent:
    """Tokens, each counted once: cached ones are not in `input`, reasoning ones not in `output`; and money."""

    input_tokens: int
    output_tokens: int
    cached_input_tokens: int = 0
    reasoning_tokens: int = 0
    micros_usd: int = 0
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class Link:
    """A prompt version by Langfuse's name and number for it."""

    name: str
    version: int


@dataclass(frozen=True, slots=True)
class ExportedGeneration:
    """One generation. Texts are what the caller saw: after redaction, never before."""

    tenant_id: str
    id: str
    provider: str
    model: str
    messages: tuple[Said, ...]
    output: str
    spent: Spent
    started_at: datetime
    ended_at: datetime
    outcome: str  # a finish reason, or the failure's reason
    failed: bool = False
    first_token_at: datetime | None = None
    session_id: str = ""
    agent: str = ""
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    prompt: PromptVersion | None = None
    prompt_label: str = ""
