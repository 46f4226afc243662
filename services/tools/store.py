"""What the registry asks of storage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Function:
    """A Python function for the sandbox."""

    code: str
    entry_point: str
    memory_limit_mib: int
    timeout: timedelta
    allowed_imports: tuple[str, ...]
    code_hash: str


@dataclass(frozen=True, slots=True)
class Tool:
    """One immutable version."""

    name: str
    version: str
    description: str
    input_schema: Schema
    output_schema: Schema | None
    rate_limit_per_min: int
    exec_mode: str
    auth: Mapping[str, str] | None
    allowed_agents: tuple[str, ...]
    function: Function | None
    idempotent: bool
    created_at: datetime

    @property
    def reference(self) -> str:
        return f"{self.name}@{self.version}"


@dataclass(frozen=True, slots=True)
class Invocation:
    """One call, for the record. Arguments are kept as a digest."""

    id: str
    tool: str
    agent: str
    subject: str
    session_id: str
    turn_id: str
    arguments_digest: bytes
    status: str
    isolation: str
    elapsed: timedelta
    created_at: datetime


class ToolStore(Protocol):
    """Where tools and the record of their calls are kept."""

    async def add(self, tenant: str, tool: Tool) -> bool:
        """Stores a version; False when it exists."""

    async def versions(self, tenant: str, name: str) -> Sequence[Tool]:
        """All versions of a tool."""

    async def every(self, tenant: str) -> Sequence[Tool]:
        """All versions of all tools, by name."""

    async def record(self, tenant: str, invocation: Invocation) -> None:
        """Writes a call down."""

    async def invocations(self, tenant: str, tool: str) -> Sequence[Invocation]:
        """Calls of a version, newest first, at most 500."""
