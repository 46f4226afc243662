"""What a reasoning engine is: it answers as a generation does, by events that stream."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from agentnet.inference.v1 import generation_pb2
from services.orchestrator.prompts import Known, Line

Generated = generation_pb2.GenerationEvent


class Recall(Protocol):
    """The agent's memory, as far as its session may see it."""

    async def __call__(self, query: str) -> tuple[Known, ...]:
        """What fits best, best first. Raises Unavailable."""


@dataclass(frozen=True, slots=True)
class Question:
    """One turn as an engine sees it: the prompt's lines, the last one being what is asked."""

    agent: str
    session_id: str
    lines: tuple[Line, ...]
    recall: Recall
    style: Mapping[str, Any] = field(default_factory=dict)

    @property
    def asked(self) -> str:
        """What is asked, as the prompt's last line has it."""
        return self.lines[-1].text if self.lines else ""


class Engine(Protocol):
    """Thinks for agents in place of a model. One instance serves many turns at once and keeps nothing of them."""

    def generate(self, question: Question) -> AsyncGenerator[Generated, None]:
        """The answer: any number of `text`, then perhaps `finished` with what it used and cost, or `failed`.

        Ids, sequences and times are the mesh's. Raising a MeshError fails the turn with it; a retryable one lets the
        turn be tried again, so an engine must not have effects. Being closed early means the turn was cancelled.
        """


def text(words: str) -> Generated:
    """An event that says something."""
    return Generated(text=generation_pb2.TextProduced(text=words, token_count=len(words.split())))
