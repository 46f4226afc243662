"""The honest fake: happenings and history in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from agentnet.orchestrator.v1 import execution_pb2, reasoning_service_pb2
from services.orchestrator.agents.history_store import CONTEXT, FOLLOWED, Done, Happening, Rating, Wanted
from services.orchestrator.agents.outcome import summed, usage_of
from services.orchestrator.agents.reputation import Evidence, Sums, nothing
from services.orchestrator.store import Entry
from services.orchestrator.store_memory import MemorySessionStore
from shared.errors import Reason
from shared.paging import Page

Execution = execution_pb2.AgentExecution


class MemoryHappeningStore:
    """What the logs of a MemorySessionStore hold and was not followed up."""

    def __init__(self, sessions: MemorySessionStore) -> None:
        self._sessions = sessions
        self._done: dict[tuple[str, str], int] = {}
        self._taking = asyncio.Lock()

    @asynccontextmanager
    async def taken(self, *, limit: int) -> AsyncIterator[Sequence[Happening]]:
        if self._taking.locked():
            yield []
            return
        async with self._taking:
            found = self._waiting()[:limit]
            yield found
            self._done |= {(one.tenant, one.session_id): one.sequence for one in found}

    async def context(self, tenant: str, session_id: str, sequence: int) -> Sequence[Entry]:
        log = self._sessions.committed()[tenant, session_id]
        seen = [entry for entry in log if entry.sequence <= sequence and entry.kind != "tokens_produced"]
        return seen[-CONTEXT:]

    async def contexts(self, tenant: str, places: Sequence[tuple[str, int]]) -> Mapping[str, Sequence[Entry]]:
        found: dict[str, dict[int, Entry]] = {}
        for session_id, sequence in places:
            known = found.setdefault(session_id, {})
            known.update({entry.sequence: entry for entry in await self.context(tenant, session_id, sequence)})
        return {session_id: [known[sequence] for sequence in sorted(known)] for session_id, known in found.items()}

    def _waiting(self) -> list[Happening]:
        return [
            Happening(*place, entry.sequence, entry.kind, self._sessions.copied(place, entry.sequence))
            for place, log in self._sessions.committed().items()
            for entry in log
            if entry.sequence > self._done.get(place, 0) and entry.kind in FOLLOWED
        ]


class MemoryHistoryStore:
    """Executions, evidence, ratings and trees by tenant."""

    def __init__(self) -> None:
        self._executions: dict[tuple[str, str], Execution] = {}
        self._evidence: dict[tuple[str, str, str], Sums] = {}
        self._ratings: dict[tuple[str, str], Rating] = {}
        self._trees: dict[tuple[str, str], reasoning_service_pb2.ReasoningTree] = {}

    async def keep(self, tenant: str, done: Sequence[Done]) -> Sequence[bool]:
        return [self._keep(tenant, execution, evidence) for execution, evidence in done]

    def _keep(self, tenant: str, execution: Execution, evidence: Sequence[Evidence]) -> bool:
        if (tenant, execution.id) in self._executions:
            return False
        self._executions[tenant, execution.id] = Execution.FromString(execution.SerializeToString())
        for found in evidence:
            self._count(tenant, execution.agent.partition("@")[0], found)
        return True

    async def executions(self, tenant: str, wanted: Wanted, *, page: Page) -> Sequence[Execution]:
        found = sorted(self._of(tenant, wanted), key=_place, reverse=True)
        at, last = page.place
        if at is not None:
            found = [one for one in found if _place(one) < (at, last)]
        return found[: page.size + 1]

    async def metrics(
        self, tenant: str, wanted: Wanted, *, start: datetime, end: datetime
    ) -> execution_pb2.AgentMetrics:
        found = [one for one in self._of(tenant, wanted) if start <= _place(one)[0] < end]
        took = sorted(_place(one)[0] - one.start_time.ToDatetime(UTC) for one in found)
        made = execution_pb2.AgentMetrics(
            calls=len(found),
            errors=sum(not one.success for one in found),
            usage=usage_of(sum(one.usage.input_tokens for one in found), sum(one.usage.output_tokens for one in found)),
            cost_micros_usd=sum(one.cost_micros_usd for one in found),
            tools=summed([use for one in found for use in one.tools]),
        )
        for name, share in (("latency_p50", 0.5), ("latency_p95", 0.95), ("latency_p99", 0.99)):
            getattr(made, name).FromTimedelta(_percentile(took, share))
        for one in found:
            if not one.success:
                made.errors_by_reason[Reason.Name(one.failure.reason).removeprefix("ERROR_REASON_")] += 1
        return made

    async def rate(self, tenant: str, rating: Rating) -> None:
        if (tenant, rating.id) not in self._ratings:
            self._ratings[tenant, rating.id] = rating
            self._count(tenant, rating.agent, rating.evidence)

    async def evidence(self, tenant: str, agents: Sequence[str]) -> Mapping[str, Mapping[str, Sums]]:
        return {
            agent: {
                source: sums
                for (owner, name, source), sums in self._evidence.items()
                if (owner, name) == (tenant, agent)
            }
            for agent in agents
        }

    async def keep_trees(self, tenant: str, trees: Sequence[reasoning_service_pb2.ReasoningTree]) -> None:
        for tree in trees:
            kept = reasoning_service_pb2.ReasoningTree.FromString(tree.SerializeToString())
            self._trees.setdefault((tenant, tree.turn_id), kept)

    async def trees(self, tenant: str, session_id: str, *, limit: int) -> Sequence[reasoning_service_pb2.ReasoningTree]:
        found = [tree for (owner, _), tree in self._trees.items() if owner == tenant and tree.session_id == session_id]
        return sorted(found, key=lambda tree: tree.time.ToNanoseconds())[-limit:]

    def _count(self, tenant: str, agent: str, found: Evidence) -> None:
        known = self._evidence.get((tenant, agent, found.source), nothing(found.at))
        self._evidence[tenant, agent, found.source] = known.with_(found)

    def _of(self, tenant: str, wanted: Wanted) -> list[Execution]:
        return [
            one
            for (owner, _), one in self._executions.items()
            if owner == tenant
            and one.agent.partition("@")[0] == wanted.name
            and wanted.reference in ("", one.agent)
            and wanted.session_id in ("", one.session_id)
            and not (wanted.failed_only and one.success)
        ]


def _place(one: Execution) -> tuple[datetime, str]:
    return one.end_time.ToDatetime(UTC), one.id


def _percentile(values: Sequence[timedelta], share: float) -> timedelta:
    """As Postgres's percentile_cont: between two values, in proportion."""
    if not values:
        return timedelta()
    place = share * (len(values) - 1)
    low = int(place)
    high = min(low + 1, len(values) - 1)
    return values[low] + (values[high] - values[low]) * (place - low)
