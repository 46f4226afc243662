"""The life of a version: which state may follow which, who may call in it, and how many must approve."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Final

from services.tools.errors import ToolApprovalMissing, ToolNotAllowed, ToolStateInvalid
from services.tools.store import AuditEntry, Tool


class Level(StrEnum):
    PUBLIC = "public"
    INTERNAL = "internal"
    RESTRICTED = "restricted"
    CONFIDENTIAL = "confidential"


class State(StrEnum):
    DRAFT = "draft"
    TESTING = "testing"
    APPROVED = "approved"
    ACTIVE = "active"
    DEPRECATED = "deprecated"
    RETIRED = "retired"
    QUARANTINED = "quarantined"


APPROVALS: Final = {Level.PUBLIC: 0, Level.INTERNAL: 0, Level.RESTRICTED: 1, Level.CONFIDENTIAL: 2}
_NEXT: Final[dict[State, frozenset[State]]] = {
    State.DRAFT: frozenset({State.TESTING, State.RETIRED}),
    State.TESTING: frozenset({State.APPROVED, State.RETIRED}),
    State.APPROVED: frozenset({State.ACTIVE, State.RETIRED}),
    State.ACTIVE: frozenset({State.DEPRECATED, State.RETIRED}),
    State.DEPRECATED: frozenset({State.RETIRED}),
    State.RETIRED: frozenset(),
    State.QUARANTINED: frozenset({State.TESTING, State.RETIRED}),
}
IN_USE: Final = frozenset({State.ACTIVE, State.DEPRECATED})
_TRIABLE: Final = IN_USE | {State.TESTING, State.APPROVED}


def first_state(level: Level) -> State:
    """What needs no approval is in use at once."""
    return State.DRAFT if APPROVALS[level] else State.ACTIVE


def callable_in(state: str, *, agent: str) -> bool:
    """Agents call what is in use; a person may also try what is being tested."""
    return State(state) in (IN_USE if agent else _TRIABLE)


def check_callable(tool: Tool, *, agent: str) -> None:
    """Raises ToolStateInvalid."""
    if not callable_in(tool.state, agent=agent):
        allowed = ",".join(sorted(IN_USE if agent else _TRIABLE))
        raise ToolStateInvalid(f"{tool.reference} is {tool.state}", state=tool.state, allowed=allowed)


def check_move(tool: Tool, wanted: State, audit: Sequence[AuditEntry]) -> None:
    """Raises ToolStateInvalid, and ToolApprovalMissing for what must be reviewed first."""
    allowed = _NEXT[State(tool.state)]
    if wanted not in allowed:
        raise ToolStateInvalid(
            f"{tool.reference} is {tool.state} and cannot become {wanted}",
            state=tool.state, allowed=",".join(sorted(allowed)),
        )  # fmt: skip
    if wanted is State.APPROVED and (missing := missing_approvals(tool, audit)):
        raise ToolApprovalMissing(f"{tool.reference} needs {missing} more approvals", missing=str(missing))


def check_review(tool: Tool, actor: str, audit: Sequence[AuditEntry]) -> None:
    """Raises ToolStateInvalid when nothing is to review, ToolNotAllowed for its author and for a second vote."""
    if tool.state != State.TESTING:
        raise ToolStateInvalid(f"{tool.reference} is {tool.state}", state=tool.state, allowed=State.TESTING.value)
    if any(entry.action == "registered" and entry.actor == actor for entry in audit):
        raise ToolNotAllowed("who registered a tool does not approve it", tool=tool.name, agent="")
    if actor in approvers(audit):
        raise ToolNotAllowed("nobody approves the same version twice", tool=tool.name, agent="")


def missing_approvals(tool: Tool, audit: Sequence[AuditEntry]) -> int:
    return max(0, APPROVALS[Level(tool.level)] - len(approvers(audit)))


def approvers(audit: Sequence[AuditEntry]) -> frozenset[str]:
    """Who approved since it was last put to the test."""
    found: set[str] = set()
    for entry in audit:
        if entry.to_state == State.TESTING and entry.from_state != State.TESTING:
            found.clear()
        elif entry.action == "approved":
            found.add(entry.actor)
    return frozenset(found)
