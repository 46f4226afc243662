"""What runs a tool: one contract, one implementation for each exec_mode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Protocol

from services.tools.answer import Outcome, Printed
from services.tools.errors import SandboxUnavailable
from services.tools.store import Tool


class Isolation(IntEnum):
    """How strongly what runs is kept apart; a tool may demand a minimum."""

    NONE = 0
    NAMESPACES = 1
    GVISOR = 2
    VM = 3


@dataclass(frozen=True, slots=True)
class Work:
    """One call, ready to run: everything about it has been checked."""

    tool: Tool
    arguments: Mapping[str, Any]
    tenant: str
    request_id: str = ""
    context: Mapping[str, str] = field(default_factory=dict)
    # The secrets an executor used, so that none of them shows in what comes back.
    secrets: list[str] = field(default_factory=list)


class Executor(Protocol):
    """Runs tools of one mode."""

    @property
    def isolation(self) -> Isolation:
        """How strongly it keeps apart what it runs; code of ours that only calls out counts as the strongest."""

    @property
    def reaches_out(self) -> bool:
        """Whether all it runs acts on the world outside; `reaches_out` below asks about one tool."""

    def check_room(self) -> None:
        """Raises ResourceExhausted when too many calls wait already."""

    async def execute(self, work: Work, printed: Printed) -> Outcome:
        """Runs to an outcome, always. Raises a MeshError only where nothing has happened."""


def reaches_out(work: Work, executor: Executor) -> bool:
    """Whether a call acts on the world outside the sandbox: then it may have happened without an answer."""
    return executor.reaches_out or bool(work.tool.function and work.tool.function.network)


def repeatable(work: Work, executor: Executor) -> bool:
    """Whether doing it twice is doing it once."""
    keyed = bool(work.request_id and (work.tool.target or {}).get("idempotency_header"))
    return not reaches_out(work, executor) or work.tool.idempotent or keyed


def check_isolation(tool: Tool, executor: Executor) -> None:
    """Fails closed. Raises SandboxUnavailable."""
    wanted = Isolation[tool.min_isolation.upper()]
    if executor.isolation < wanted:
        raise SandboxUnavailable(
            f"{tool.name} demands {tool.min_isolation} and this mesh has {executor.isolation.name.lower()}",
            demanded=tool.min_isolation, present=executor.isolation.name.lower(),
        )  # fmt: skip
