"""Following the logs: what was committed becomes executions, evidence, trees and news; by their keys once.

What was copied from another session counted there: here it has its tree, and nothing else comes of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, timedelta
from typing import Final, Protocol

from agentnet.orchestrator.v1 import event_pb2, turn_pb2
from services.orchestrator.agents import outcome
from services.orchestrator.agents.history_store import CONTEXT, Happening, HappeningStore, HistoryStore
from services.orchestrator.agents.outcome import News
from services.orchestrator.agents.reputation import of_execution
from services.orchestrator.reasoning.tree import generate_reasoning_tree
from services.orchestrator.speech import formal
from shared.log import log
from shared.telemetry import meter

_BATCH: Final = 200
# Of a tenant, whose logs are looked at together: a few hundred events each.
_TOGETHER: Final = 32
_calls = meter.create_counter("agent_calls", description="executions of agents, by agent and whether they completed")
_seconds = meter.create_histogram("agent_seconds", unit="s", description="how long executions took, by agent")
_handoffs = meter.create_counter("agent_handoffs", description="work handed on, by who gave and who took it")

Event = event_pb2.SessionEvent
# Told of the last event of a context, in its tenant.
Hears = Callable[[str, Sequence[Event]], Awaitable[None]]


# Keeps what was said, in its tenant. Being away is its own affair.
Keeps = Callable[[str, Sequence[turn_pb2.Turn]], Awaitable[None]]


async def forgets(_tenant: str, _turns: Sequence[turn_pb2.Turn]) -> None:
    """Where there is no memory."""


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
    keeps: Keeps = forgets

    async def run(self) -> None:
        """For as long as the service runs. What happens meanwhile is followed together."""
        while True:
            if await self.follow() < _BATCH:
                await asyncio.sleep(self.poll.total_seconds())

    async def follow(self) -> int:
        """Follows what waits, at most a batch; how many that was. Raises Unavailable: then they come again."""
        async with self.happenings.taken(limit=_BATCH) as found:
            for tenant in dict.fromkeys(one.tenant for one in found):
                theirs = [one for one in found if one.tenant == tenant]
                for start in range(0, len(theirs), _TOGETHER):
                    await self._follow(tenant, theirs[start : start + _TOGETHER])
        return len(found)

    async def _follow(self, tenant: str, found: Sequence[Happening]) -> None:
        """Some of a tenant, in order: all that counts, then the trees, then who hears of it, then the bus."""
        contexts = await self._contexts(tenant, found)
        own = [context for one, context in contexts if not one.copied]
        await self._count(tenant, own)
        ended = [context for _, context in contexts if context[-1].HasField("turn_finished")]
        if trees := [generate_reasoning_tree(context[-1].turn_finished.turn, context) for context in ended]:
            await self.history.keep_trees(tenant, trees)
        for context in own:
            for hear in self.hears:
                await hear(tenant, context)
        if said := [turn for context in own if (turn := _said(context[-1]))]:
            await self.keeps(tenant, said)
        if news := [told for context in own for told in outcome.news(context)]:
            await self.herald.tell(tenant, news)
            for handoff in (told.data for told in news if told.name == "agent.handoff"):
                _handoffs.add(1, {"source": _kind(handoff["source"]), "target": _kind(handoff["target"])})

    async def _contexts(self, tenant: str, found: Sequence[Happening]) -> list[tuple[Happening, Sequence[Event]]]:
        """Each happening's event with what came before it. Without those whose event is gone."""
        logs = await self.happenings.contexts(tenant, [(one.session_id, one.sequence) for one in found])
        read = {name: [Event.FromString(entry.payload) for entry in log] for name, log in logs.items()}
        contexts: list[tuple[Happening, Sequence[Event]]] = []
        for one in found:
            context = [event for event in read[one.session_id] if event.sequence <= one.sequence][-CONTEXT:]
            if context and context[-1].sequence == one.sequence:
                contexts.append((one, context))
            else:
                log.warning("follow.event_gone", session_id=one.session_id, sequence=one.sequence)
        return contexts

    async def _count(self, tenant: str, contexts: Sequence[Sequence[Event]]) -> None:
        executions = [made for context in contexts if (made := outcome.execution(context)) is not None]
        done = [(made, of_execution(made, made.end_time.ToDatetime(UTC))) for made in executions]
        for made, new in zip(executions, await self.history.keep(tenant, done) if done else (), strict=True):
            if new:
                labels = {"agent": made.agent.partition("@")[0], "success": str(made.success).lower()}
                _calls.add(1, labels)
                took = made.end_time.ToDatetime(UTC) - made.start_time.ToDatetime(UTC)
                _seconds.record(took.total_seconds(), labels)


def _said(event: Event) -> turn_pb2.Turn | None:
    """What an agent said to the others, as far as it is part of the conversation."""
    turn = event.turn_finished.turn
    return turn if event.HasField("turn_finished") and not formal(turn.phase) else None


def _kind(who: str) -> str:
    """An agent without its version, and all users as one: labels are few."""
    return who.partition("@")[0].partition(":")[0]
