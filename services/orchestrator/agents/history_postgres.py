"""The real stores of what happened and what agents did, schema `orchestrator`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg

from agentnet.orchestrator.v1 import execution_pb2, reasoning_service_pb2
from services.orchestrator.agents.history_store import CONTEXT, Done, Happening, Rating, Wanted
from services.orchestrator.agents.outcome import summed, usage_of
from services.orchestrator.agents.reputation import Evidence, Sums, nothing
from services.orchestrator.store import Entry
from shared.errors import Reason
from shared.paging import Page
from shared.postgres import Connection, Database, load_queries

SQL = load_queries(Path(__file__).with_name("history.sql"))
Execution = execution_pb2.AgentExecution


class PostgresHappeningStore:
    """The table happening, by the role that sees all tenants and no content; events by the service's own role."""

    def __init__(self, driver: Database, own: Database) -> None:
        self._driver = driver
        self._own = own

    @asynccontextmanager
    async def taken(self, *, limit: int) -> AsyncIterator[Sequence[Happening]]:
        async with self._driver.transaction() as connection:
            if not await connection.fetchval(SQL["take_alone"]):
                yield []
                return
            rows = await connection.fetch(SQL["take_happenings"], limit)
            yield [Happening(*row[1:]) for row in map(tuple, rows)]
            await connection.execute(SQL["forget_happenings"], [row["id"] for row in rows])

    async def context(self, tenant: str, session_id: str, sequence: int) -> Sequence[Entry]:
        async with self._own.tenant(tenant) as connection:
            rows = await connection.fetch(SQL["context"], session_id, sequence, CONTEXT)
        return [Entry(**row) for row in rows]

    async def contexts(self, tenant: str, places: Sequence[tuple[str, int]]) -> Mapping[str, Sequence[Entry]]:
        asked = defaultdict[str, list[int]](list)
        for session_id, sequence in places:
            asked[session_id].append(sequence)
        firsts, lasts = (list(map(end, asked.values())) for end in (min, max))
        async with self._own.tenant(tenant) as connection:
            rows = await connection.fetch(SQL["contexts"], list(asked), firsts, lasts, CONTEXT)
        found: dict[str, list[Entry]] = {session_id: [] for session_id in asked}
        for row in rows:
            found[row["session_id"]].append(Entry(row["sequence"], row["kind"], row["payload"]))
        return found


class PostgresHistoryStore:
    """Executions, evidence, ratings and trees."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def keep(self, tenant: str, done: Sequence[Done]) -> Sequence[bool]:
        rows = [_columns(execution) for execution, _ in done]
        async with self._database.tenant(tenant) as connection:
            kept = await connection.fetch(SQL["keep_executions"], tenant, *map(list, zip(*rows, strict=True)))
            fresh = {row["id"] for row in kept}
            new: list[bool] = []
            told: list[tuple[str, Evidence]] = []
            for execution, evidence in done:
                new.append(execution.id in fresh)
                told += [(_name(execution), found) for found in evidence] if new[-1] else []
                fresh.discard(execution.id)  # of two with one id the first counts
            await _count(connection, tenant, told)
        return new

    async def executions(self, tenant: str, wanted: Wanted, *, page: Page) -> Sequence[Execution]:
        seen = page.place
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(
                SQL["executions"], wanted.name, wanted.reference, wanted.session_id, wanted.failed_only, *seen,
                page.size + 1,
            )  # fmt: skip
        return [Execution.FromString(row["data"]) for row in rows]

    async def metrics(
        self, tenant: str, wanted: Wanted, *, start: datetime, end: datetime
    ) -> execution_pb2.AgentMetrics:
        asked = (wanted.name, wanted.reference, start, end)
        async with self._database.tenant(tenant) as connection:
            sums = await connection.fetchrow(SQL["metrics"], *asked)
            reasons = await connection.fetch(SQL["errors_by_reason"], *asked)
            whole = await connection.fetch(SQL["executions_with_tools"], *asked)
        assert sums is not None  # noqa: S101 - an aggregate has one row
        used = [use for row in whole for use in Execution.FromString(row["data"]).tools]
        made = execution_pb2.AgentMetrics(
            calls=sums["calls"],
            errors=sums["errors"],
            usage=usage_of(sums["input_tokens"], sums["output_tokens"]),
            cost_micros_usd=sums["cost_micros_usd"],
            tools=summed(used),
            errors_by_reason={row["reason"]: row["times"] for row in reasons},
        )
        for name, seconds in zip(("latency_p50", "latency_p95", "latency_p99"), sums["latency"], strict=True):
            getattr(made, name).FromTimedelta(timedelta(seconds=float(seconds)))
        return made

    async def rate(self, tenant: str, rating: Rating) -> None:
        found = rating.evidence
        async with self._database.tenant(tenant) as connection:
            kept = await connection.fetchval(
                SQL["rate"], tenant, rating.id, rating.agent, found.source, found.score, found.weight, rating.subject,
                rating.note, rating.rater, found.at,
            )  # fmt: skip
            if kept is not None:
                await _count(connection, tenant, [(rating.agent, found)])

    async def evidence(self, tenant: str, agents: Sequence[str]) -> Mapping[str, Mapping[str, Sums]]:
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(SQL["evidence"], list(agents))
        known: dict[str, dict[str, Sums]] = {agent: {} for agent in agents}
        for row in rows:
            known[row["agent_name"]][row["source"]] = _sums(row)
        return known

    async def keep_trees(self, tenant: str, trees: Sequence[reasoning_service_pb2.ReasoningTree]) -> None:
        rows = [(one.turn_id, one.session_id, one.time.ToDatetime(UTC), one.SerializeToString()) for one in trees]
        async with self._database.tenant(tenant) as connection:
            await connection.execute(SQL["keep_trees"], tenant, *map(list, zip(*rows, strict=True)))

    async def trees(self, tenant: str, session_id: str, *, limit: int) -> Sequence[reasoning_service_pb2.ReasoningTree]:
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(SQL["trees"], session_id, limit)
        return [reasoning_service_pb2.ReasoningTree.FromString(row["data"]) for row in reversed(rows)]


async def _count(connection: Connection, tenant: str, told: Sequence[tuple[str, Evidence]]) -> None:
    """Adds evidence to its agents' sums. Those who count for one agent wait for one another, also before it has a row,
    and all lock agents in one order.
    """
    agents = sorted({agent for agent, _ in told})
    if not agents:
        return
    await connection.execute(SQL["lock_evidence"], tenant, agents)
    rows = await connection.fetch(SQL["evidence_to_change"], agents)
    known = {(row["agent_name"], row["source"]): _sums(row) for row in rows}
    for agent, found in told:
        place = agent, found.source
        known[place] = known.get(place, nothing(found.at)).with_(found)
    places = {(agent, found.source) for agent, found in told}
    changed = [
        (*place, now.positive, now.negative, now.count, now.at) for place, now in known.items() if place in places
    ]
    await connection.execute(SQL["set_evidence"], tenant, *map(list, zip(*changed, strict=True)))


def _sums(row: asyncpg.Record) -> Sums:
    return Sums(row["positive"], row["negative"], row["count"], row["updated_at"])


def _columns(execution: Execution) -> tuple[object, ...]:
    """In the order of keep_executions."""
    ended = execution.end_time.ToDatetime(UTC)
    took = (ended - execution.start_time.ToDatetime(UTC)).total_seconds()
    return (
        execution.id, _name(execution), execution.agent, execution.session_id, execution.success,
        _reason(execution), ended, took, execution.usage.input_tokens, execution.usage.output_tokens,
        execution.cost_micros_usd, bool(execution.tools), execution.SerializeToString(),
    )  # fmt: skip


def _name(execution: Execution) -> str:
    return execution.agent.partition("@")[0]


def _reason(execution: Execution) -> str:
    return "" if execution.success else Reason.Name(execution.failure.reason).removeprefix("ERROR_REASON_")
