"""What the registry asks of storage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Protocol

Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Quota:
    """How many calls of a version there may be; 0 is no limit."""

    total: int
    per_day: int


@dataclass(frozen=True, slots=True)
class Function:
    """A Python function for the sandbox."""

    code: str
    entry_point: str
    memory_limit_mib: int
    timeout: timedelta
    allowed_imports: tuple[str, ...]
    code_hash: str
    is_async: bool = False
    requires_context: bool = False
    safe_mode: bool = True
    network: tuple[str, ...] = ()


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
    examples: tuple[Mapping[str, Any], ...] = ()
    tags: tuple[str, ...] = ()
    level: str = "internal"
    state: str = "active"
    allowed_roles: tuple[str, ...] = ()
    user_rate_limit_per_min: int = 0
    cache_ttl: timedelta = timedelta()
    min_isolation: str = "namespaces"
    quota: Quota = Quota(0, 0)
    changelog: str = ""
    schema_hash: str = ""
    target: Mapping[str, Any] | None = None

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


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One thing that was done to a version."""

    id: str
    tool: str
    action: str
    actor: str
    from_state: str
    to_state: str
    note: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Effect:
    """A call that its caller named, so that what it does is done once. `outcome` is there when it is known."""

    request_id: str
    digest: bytes
    invocation_id: str
    step: str
    leased_until: datetime
    outcome: Mapping[str, Any] | None
    created_at: datetime


class ToolStore(Protocol):
    """Where tools and the record of their calls are kept."""

    async def add(self, tenant: str, tool: Tool, entry: AuditEntry) -> bool:
        """Stores a version and who did it; False when it exists."""

    async def versions(self, tenant: str, name: str) -> Sequence[Tool]:
        """All versions of a tool."""

    async def every(self, tenant: str) -> Sequence[Tool]:
        """All versions of all tools, by name."""

    async def move(self, tenant: str, tool: Tool, entry: AuditEntry) -> bool:
        """Gives a version the entry's `to_state` and writes the entry down; False when its state is no longer the
        entry's `from_state`.
        """

    async def audit(self, tenant: str, tool: str) -> Sequence[AuditEntry]:
        """What was done to a version, oldest first, at most 500."""

    async def count(self, tenant: str, tool: Tool, day: date) -> str:
        """Counts one call: "" or, with nothing counted, the quota that is used up: "total" or "day"."""

    async def counted(self, tenant: str, tool: str, day: date) -> tuple[int, int]:
        """Calls counted of a version: ever, and on the day."""

    async def reserve(self, tenant: str, effect: Effect) -> Effect:
        """Stores a new effect and returns it, or returns the one of that request_id that is there already."""

    async def take_over(self, tenant: str, seen: Effect, effect: Effect) -> bool:
        """Replaces an effect as it was seen; False when another caller was first."""

    async def advance(self, tenant: str, effect: Effect) -> bool:
        """Writes the step and the outcome; False when the effect is another invocation's by now."""

    async def forget_effects(self, tenant: str, before: datetime) -> int:
        """Drops effects made before; how many."""

    async def record(self, tenant: str, invocation: Invocation) -> None:
        """Writes a call down."""

    async def invocations(self, tenant: str, tool: str) -> Sequence[Invocation]:
        """Calls of a version, newest first, at most 500."""
