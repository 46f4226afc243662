"""Following the logs: what was committed becomes executions, evidence, trees and news; by their keys once.

What was copied from another session counted there: here it has its tree, and nothing else comes of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, timedelta
from typing import Final, Protocol

from agentnet.orchestrator.v1 import event_pb2
from services.orchestrator.agents import outcome
from services.orchestrator.agents.history_store import Happening, HappeningStore, HistoryStore
from services.orchestrator.agents.outcome import News
from services.orchestrator.agents.reputation import of_execution
from services.orchestrator.reasoning.tree import generate_reasoning_tree
from shared.log import log
from shared.telemetry import meter

_BATCH: Final = 200
_calls = meter.create_counter("agent_calls", description="executions of agents, by agent and whether they completed")
_seconds = meter.create_histogram("agent_seconds", unit="s", description="how long executions took, by agent")
_handoffs = meter.create_counter("agent_handoffs", description="work handed on, by who gave and who took it")

Event = event_pb2.SessionEvent
# Told of the last event of a context, in its tenant.
Hears = Callable[[str, Sequence[Event]], Awaitable[None]]


class Herald(Protocol):
    """The mesh's bus of events."""

    async def tell(self, tenant: str, news: Sequence[News]) -> None:
        """Returns when the bus has them. Raises Unavailable."""


@dataclass(frozen=True, slots=True)
class Follower:
    """Follows the logs of all tenants. Any number of replicas may: one at a time does."""

    happenings: HappeningStore
    history: HistoryStore
    herald: Herald
    poll: timedelta
    # Others who want to know, for example delegations whose session has ended.
    hears: Sequence[Hears] = field(default_factory=tuple)

    async def run(self) -> None:
        """For as long as the service runs."""
        while True:
            if not await self.follow():
                await asyncio.sleep(self.poll.total_seconds())

    async def follow(self) -> int:
        """Follows what waits, at most a batch; how many that was. Raises Unavailable: then they come again."""
        async with self.happenings.taken(limit=_BATCH) as found:
            for one in found:
                await self._follow(one)
        return len(found)

    async def _follow(self, one: Happening) -> None:
        entries = await self.happenings.context(one.tenant, one.session_id, one.sequence)
        context = [Event.FromString(entry.payload) for entry in entries]
        if not context or context[-1].sequence != one.sequence:
            log.warning("follow.event_gone", session_id=one.session_id, sequence=one.sequence)
            return
        if not one.copied:
            await self._count(one.tenant, context)
        if context[-1].HasField("turn_finished"):
            turn = context[-1].turn_finished.turn
            await self.history.keep_tree(one.tenant, generate_reasoning_tree(turn, context))
        if one.copied:
            return
        for hear in self.hears:
            await hear(one.tenant, context)
        if news := outcome.news(context):
            await self.herald.tell(one.tenant, news)
            for handoff in (told.data for told in news if told.name == "agent.handoff"):
                _handoffs.add(1, {"source": _kind(handoff["source"]), "target": _kind(handoff["target"])})

    async def _count(self, tenant: str, context: Sequence[Event]) -> None:
        execution = outcome.execution(context)
        if execution is None:
            return
        ended = execution.end_time.ToDatetime(UTC)
        if await self.history.keep(tenant, execution, of_execution(execution, ended)):
            labels = {"agent": execution.agent.partition("@")[0], "success": str(execution.success).lower()}
            _calls.add(1, labels)
            _seconds.record((ended - execution.start_time.ToDatetime(UTC)).total_seconds(), labels)


def _kind(who: str) -> str:
    """An agent without its version, and all users as one: labels are few."""
    return who.partition("@")[0].partition(":")[0]
