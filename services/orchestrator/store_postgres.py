"""The real stores, schema `orchestrator`: what is queried stands in columns, the whole in `data`."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
from google.protobuf import json_format

from agentnet.orchestrator.v1 import agent_pb2, history_pb2, session_pb2, task_graph_pb2, turn_pb2
from services.orchestrator import chain
from services.orchestrator.appends_postgres import Append, Appends, turn_columns
from services.orchestrator.archives import Archive
from services.orchestrator.errors import LeaseLost
from services.orchestrator.runs_postgres import Place, Range, Runs, Start, columns, started
from services.orchestrator.store import AgentFilter, Entry, KeptGraph, Lease, Sealed, SessionFilter, Signal, Taker
from shared.batches import Batches
from shared.identity import Principal
from shared.paging import Page
from shared.postgres import Database, load_queries

SQL = load_queries(Path(__file__).with_name("queries.sql"))
_REMEMBERED = 10_000
_HOT_SECONDS = 60.0


class PostgresAgentStore:
    """One row a version."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._versions = Batches(self._versions_of)

    async def add(self, tenant: str, agent: agent_pb2.Agent, *, request_id: str | None) -> bool:
        async with self._database.tenant(tenant) as connection:
            added = await connection.fetchval(SQL["add_agent"], *_agent(tenant, agent, request_id))
            if added is not None:
                await connection.execute(SQL["notify_agent"], f"{tenant}/{agent.name}")
        return added is not None

    async def add_all(self, tenant: str, agents: Sequence[agent_pb2.Agent]) -> bool:
        try:
            async with self._database.tenant(tenant) as connection:
                await connection.executemany(SQL["import_agent"], [_agent(tenant, agent, None) for agent in agents])
                for agent in agents:
                    await connection.execute(SQL["notify_agent"], f"{tenant}/{agent.name}")
        except asyncpg.UniqueViolationError:
            return False
        return True

    async def made_by(self, tenant: str, request_id: str) -> agent_pb2.Agent | None:
        async with self._database.tenant(tenant) as connection:
            data = await connection.fetchval(SQL["agent_made_by"], request_id)
        return agent_pb2.Agent.FromString(data) if data else None

    async def versions(self, tenant: str, name: str) -> Sequence[agent_pb2.Agent]:
        return [agent_pb2.Agent.FromString(data) for data in await self._versions.ask((tenant, name))]

    async def _versions_of(self, batch: Sequence[Place]) -> Sequence[Sequence[bytes]]:
        """Of many agents in one statement; what is asked for twice is read once."""
        places = list(dict.fromkeys(batch))
        async with self._database.alone() as connection:
            rows = await connection.fetch(SQL["agents_versions"], *columns(places))
        found: dict[Place, list[bytes]] = {place: [] for place in places}
        for place, data in rows:
            found[places[place - 1]].append(data)
        return [found[place] for place in batch]

    async def set_state(self, tenant: str, agent: agent_pb2.Agent) -> None:
        archived = agent.state == agent_pb2.AGENT_STATE_ARCHIVED
        async with self._database.tenant(tenant) as connection:
            await connection.execute(SQL["set_agent_state"], agent.id, agent.state, archived, agent.SerializeToString())
            await connection.execute(SQL["notify_agent"], f"{tenant}/{agent.name}")

    async def every(self, tenant: str, chosen: AgentFilter, *, page: Page) -> Sequence[agent_pb2.Agent]:
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(
                SQL["every_agent"], chosen.name, chosen.capability, chosen.state, chosen.order, page.skip,
                page.size + 1, chosen.newest,
            )  # fmt: skip
        return [agent_pb2.Agent.FromString(row["data"]) for row in rows]


class PostgresSessionStore:
    """Sessions, turns, events and signals."""

    def __init__(self, database: Database, *, log_key: bytes, archive: Archive | None = None) -> None:
        self._database = database
        self._key = log_key
        self._archive = archive
        # Logs that were not archived when it was looked last, and until when that is believed.
        self._hot: OrderedDict[Place, float] = OrderedDict()
        self._runs = Runs(database, SQL)
        self._appends = Appends(database, SQL["append_logs"])
        # The end of each log this replica writes: while its fence holds nobody else moves it.
        self._ends: OrderedDict[tuple[str, str], tuple[int, bytes]] = OrderedDict()

    def driven_by(self, taker: Taker) -> None:
        """What is accepted here from now on is driven here, as far as it is taken."""
        self._runs.taker = taker

    async def start(
        self,
        tenant: str,
        session: session_pb2.Session,
        starter: Principal,
        first: Entry,
        *,
        request_id: str | None,
        graph: task_graph_pb2.TaskGraph | None = None,
    ) -> session_pb2.Session:
        (mac,) = chain.macs(self._key, chain.START, [first.payload])
        place = (tenant, session.id)
        self._remember(place, (first.sequence, mac), forget=False)
        earlier = await self._runs.start(Start(tenant, session, starter, first, mac, request_id, graph))
        if earlier is not None:
            self._ends.pop(place, None)
        return session_pb2.Session.FromString(earlier) if earlier else session

    async def find(self, tenant: str, session_id: str) -> session_pb2.Session | None:
        async with self._database.tenant(tenant) as connection:
            data = await connection.fetchval(SQL["find_session"], session_id)
        return session_pb2.Session.FromString(data) if data else None

    async def every(self, tenant: str, chosen: SessionFilter, *, page: Page) -> Sequence[session_pb2.Session]:
        seen = page.place
        query = SQL["newest_sessions" if chosen.newest_first else "oldest_sessions"]
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(
                query, chosen.status, chosen.mode, *seen, page.size + 1, chosen.agent, chosen.stop_reason, chosen.since,
                chosen.until, dict(chosen.metadata), chosen.archived,
            )  # fmt: skip
        return [session_pb2.Session.FromString(row["data"]) for row in rows]

    async def asking(self, tenant: str, *, page: Page) -> Sequence[session_pb2.Session]:
        seen = page.place
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(SQL["asking_sessions"], *seen, page.size + 1)
        return [session_pb2.Session.FromString(row["data"]) for row in rows]

    async def turns(
        self, tenant: str, session_id: str, *, agent: str, round_number: int, page: Page
    ) -> Sequence[turn_pb2.Turn]:
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(SQL["turns"], session_id, agent, round_number, *page.place, page.size + 1)
        return [turn_pb2.Turn.FromString(row["data"]) for row in rows]

    async def read(self, tenant: str, session_id: str, after: int, *, limit: int) -> Sequence[Entry]:
        place = (tenant, session_id)
        read = await self._runs.read(Range(place, after, limit))
        if read.entries and read.entries[-1].sequence > self._ends.get(place, (0, b""))[0]:
            # Who reads a log to its end may be about to write it.
            self._remember(place, (read.entries[-1].sequence, read.mac), forget=False)
        if read.entries or self._archive is None or not await self._archived(tenant, session_id):
            return read.entries
        return await self._archive.read(tenant, session_id, after, limit=limit)

    async def archivable(self, tenant: str, *, before: datetime, limit: int) -> Sequence[str]:
        async with self._database.tenant(tenant) as connection:
            return [row["id"] for row in await connection.fetch(SQL["archivable"], before, limit)]

    async def sealed(self, tenant: str, session_id: str) -> Sequence[Sealed]:
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(SQL["read_chain"], session_id)
        if rows or self._archive is None or not await self._archived(tenant, session_id):
            return [Sealed(row["sequence"], row["kind"], row["payload"], row["mac"]) for row in rows]
        return await self._archive.log(tenant, session_id)

    async def let_go(self, tenant: str, session_id: str) -> None:
        async with self._database.tenant(tenant) as connection:
            await connection.execute(SQL["let_go"], session_id)
        self._hot.pop((tenant, session_id), None)

    async def _archived(self, tenant: str, session_id: str) -> bool:
        """Asked wherever a log seems to end."""
        place, now = (tenant, session_id), time.monotonic()
        if self._hot.get(place, 0.0) > now:
            return False
        async with self._database.tenant(tenant) as connection:
            archived = bool(await connection.fetchval(SQL["archived"], session_id))
        if not archived:
            self._hot[place] = now + _HOT_SECONDS
            self._hot.move_to_end(place)
            while len(self._hot) > _REMEMBERED:
                self._hot.popitem(last=False)
        return archived

    async def adopt(
        self,
        tenant: str,
        session: session_pb2.Session,
        starter: Principal,
        log: Sequence[Entry],
        turns: Sequence[turn_pb2.Turn],
        *,
        request_id: str | None,
    ) -> session_pb2.Session:
        macs = list(chain.macs(self._key, chain.START, _payloads(log)))
        async with self._database.tenant(tenant) as connection:
            start = Start(tenant, session, starter, log[0], macs[0], request_id, None)
            (row, *_) = await connection.fetch(SQL["start_runs"], *started([start]), None, None) or (None,)
            if row is not None:
                return session_pb2.Session.FromString(row["earlier"])
            await connection.execute(
                SQL["add_events"], tenant, session.id, [entry.sequence for entry in log[1:]],
                [entry.kind for entry in log[1:]], _payloads(log[1:]), macs[1:],
            )  # fmt: skip
            await connection.executemany(SQL["add_turn"], [(tenant, session.id, *turn_columns(turn)) for turn in turns])
            if session.HasField("end_time"):
                await connection.execute(
                    SQL["end_adopted"], session.id, session.topic_final, session.converged, session.rounds_executed,
                    session.end_time.ToDatetime(UTC), session.stop_reason,
                )  # fmt: skip
        return session

    async def check_chain(self, tenant: str, session_id: str) -> history_pb2.ChainReport:
        check = chain.Check(self._key)
        async with self._database.tenant(tenant) as connection:
            session = session_pb2.Session.FromString(await connection.fetchval(SQL["find_session"], session_id))
        for one in await self.sealed(tenant, session_id):
            if not check.look(one.sequence, one.payload, one.mac):
                break
        return check.end(session)

    async def starter(self, tenant: str, session_id: str) -> Principal:
        return await self._runs.starter((tenant, session_id))

    async def find_graph(self, tenant: str, graph_id: str) -> KeptGraph | None:
        async with self._database.tenant(tenant) as connection:
            row = await connection.fetchrow(SQL["find_graph"], graph_id)
        return _kept_graph(row) if row else None

    async def graph_of(self, tenant: str, session_id: str) -> task_graph_pb2.TaskGraph | None:
        async with self._database.tenant(tenant) as connection:
            data = await connection.fetchval(SQL["graph_of_session"], session_id)
        return json_format.ParseDict(data, task_graph_pb2.TaskGraph()) if data else None

    async def every_graph(self, tenant: str, *, statuses: Sequence[int], page: Page) -> Sequence[KeptGraph]:
        seen = page.place
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(SQL["every_graph"], list(statuses), *seen, page.size + 1)
        return [_kept_graph(row) for row in rows]

    async def append(
        self,
        lease: Lease,
        entries: Sequence[Entry],
        *,
        session: session_pb2.Session,
        turns: Sequence[turn_pb2.Turn] = (),
        release: bool = False,
        signals_taken: int = 0,
    ) -> int:
        place = (lease.tenant, lease.session_id)
        macs = list(chain.macs(self._key, await self._mac_before(place, entries[0].sequence), _payloads(entries)))
        try:
            signals = await self._appends.write(Append(lease, entries, macs, session, turns, release, signals_taken))
        except LeaseLost:
            self._ends.pop(place, None)
            raise
        self._remember(place, (entries[-1].sequence, macs[-1]), forget=release)
        return signals

    async def signal(self, tenant: str, session_id: str, signal: Signal, *, request_id: str | None) -> None:
        async with self._database.tenant(tenant) as connection:
            added = await connection.fetchval(
                SQL["add_signal"],
                tenant,
                signal.id,
                session_id,
                signal.kind,
                signal.sender,
                request_id,
                signal.target,
                signal.content,
                signal.approved,
                signal.override_id,
            )
            if added:
                await connection.execute(SQL["make_ready"], session_id)
                await connection.execute(SQL["notify"], session_id)

    async def signalled(self, tenant: str, session_id: str, request_id: str) -> bool:
        async with self._database.tenant(tenant) as connection:
            return bool(await connection.fetchval(SQL["signalled"], session_id, request_id))

    async def signals(self, tenant: str, session_id: str) -> Sequence[Signal]:
        return await self._runs.signals((tenant, session_id))

    async def _mac_before(self, place: tuple[str, str], first: int) -> bytes:
        known, mac = self._ends.get(place, (0, b""))
        if known == first - 1:
            return mac
        read = await self._runs.read(Range(place, first - 2, 1))
        return read.mac or chain.START

    def _remember(self, place: tuple[str, str], end: tuple[int, bytes], *, forget: bool) -> None:
        self._ends[place] = end
        self._ends.move_to_end(place)
        if forget:
            del self._ends[place]
        while len(self._ends) > _REMEMBERED:
            self._ends.popitem(last=False)


def _kept_graph(row: asyncpg.Record) -> KeptGraph:
    graph = json_format.ParseDict(row["graph_json"], task_graph_pb2.TaskGraph())
    return KeptGraph(graph, session_pb2.Session.FromString(row["data"]))


def _payloads(entries: Sequence[Entry]) -> list[bytes]:
    return [entry.payload for entry in entries]


def _agent(tenant: str, agent: agent_pb2.Agent, request_id: str | None) -> tuple[object, ...]:
    """A version in the order of its columns."""
    return (
        tenant, agent.id, agent.name, agent.version,
        json_format.MessageToDict(agent.style), json_format.MessageToDict(agent.config), list(agent.monitors),
        list(agent.capabilities), agent.state, agent.SerializeToString(), request_id,
        agent.create_time.ToDatetime(UTC),
    )  # fmt: skip
