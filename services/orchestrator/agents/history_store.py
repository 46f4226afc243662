"""What following the logs asks of storage: what happened, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from agentnet.orchestrator.v1 import execution_pb2, reasoning_service_pb2
from services.orchestrator.agents.reputation import Evidence, Sums
from services.orchestrator.store import Entry
from shared.paging import Page

# Of a log, what is looked at around an event: never its tokens.
CONTEXT: Final = 300
FOLLOWED: Final = frozenset(
    {
        "session_started", "turn_finished", "turn_interrupted", "task_finished", "task_interrupted",
        "monitor_verdict", "tool_finished", "handed_off", "signal_received", "session_finished",
    }
)  # fmt: skip


# An execution and what it says of its agent.
Done = tuple[execution_pb2.AgentExecution, Sequence[Evidence]]


@dataclass(frozen=True, slots=True)
class Happening:
    """An event that was committed and not followed up yet. Copied: it happened in another session and counted there."""

    tenant: str
    session_id: str
    sequence: int
    kind: str
    copied: bool = False


@dataclass(frozen=True, slots=True)
class Rating:
    """A judgement as it was given. The id makes it count once."""

    id: str
    agent: str
    evidence: Evidence
    subject: str
    note: str
    rater: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which executions: of an agent by name, or of one version; what is empty is not asked for."""

    name: str
    reference: str = ""
    session_id: str = ""
    failed_only: bool = False


class HappeningStore(Protocol):
    """What happened in all tenants."""

    def taken(self, *, limit: int) -> AbstractAsyncContextManager[Sequence[Happening]]:
        """The oldest happenings, each session's in order; they are gone when the block ends well, and come again when
        it does not. Only one block at a time gets any.
        """

    async def context(self, tenant: str, session_id: str, sequence: int) -> Sequence[Entry]:
        """The event of this sequence and what came before it, without tokens, in order, at most CONTEXT."""

    async def contexts(self, tenant: str, places: Sequence[tuple[str, int]]) -> Mapping[str, Sequence[Entry]]:
        """Of each session, in order and without tokens, at least what `context` says of each of its sequences."""


class HistoryStore(Protocol):
    """What agents did."""

    async def keep(self, tenant: str, done: Sequence[Done]) -> Sequence[bool]:
        """Stores executions and counts their evidence, once. Of each False when it was there."""

    async def executions(self, tenant: str, wanted: Wanted, *, page: Page) -> Sequence[execution_pb2.AgentExecution]:
        """Newest first, at most `page.size` + 1. The cursor is (time, id) of the last one seen."""

    async def metrics(
        self, tenant: str, wanted: Wanted, *, start: datetime, end: datetime
    ) -> execution_pb2.AgentMetrics:
        """Sums over executions that ended in a time, start included. Its agent and times are not set."""

    async def rate(self, tenant: str, rating: Rating) -> None:
        """Stores a judgement and counts it, once an id."""

    async def evidence(self, tenant: str, agents: Sequence[str]) -> Mapping[str, Mapping[str, Sums]]:
        """What is known of these agents, by name and source."""

    async def keep_trees(self, tenant: str, trees: Sequence[reasoning_service_pb2.ReasoningTree]) -> None:
        """Stores turns' trees, each once."""

    async def trees(self, tenant: str, session_id: str, *, limit: int) -> Sequence[reasoning_service_pb2.ReasoningTree]:
        """A session's last trees, oldest first."""
