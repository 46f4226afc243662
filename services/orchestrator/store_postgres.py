"""The real stores, schema `orchestrator`: what is queried stands in columns, the whole in `data`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from google.protobuf import json_format

from agentnet.orchestrator.v1 import agent_pb2, session_pb2, turn_pb2
from services.orchestrator import chain
from services.orchestrator.errors import LeaseLost
from services.orchestrator.store import AgentFilter, Entry, Lease, Signal
from shared.identity import CredentialKind, Principal
from shared.paging import Page
from shared.postgres import Connection, Database, load_queries

SQL = load_queries(Path(__file__).with_name("queries.sql"))
_ENDED = (session_pb2.SESSION_STATUS_COMPLETED, session_pb2.SESSION_STATUS_FAILED, session_pb2.SESSION_STATUS_CANCELLED)


class PostgresAgentStore:
    """One row a version."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, tenant: str, agent: agent_pb2.Agent, *, request_id: str | None) -> bool:
        async with self._database.tenant(tenant) as connection:
            added = await connection.fetchval(
                SQL["add_agent"], tenant, agent.id, agent.name, agent.version,
                json_format.MessageToDict(agent.style), json_format.MessageToDict(agent.config), list(agent.monitors),
                list(agent.capabilities), agent.state, agent.SerializeToString(), request_id,
                agent.create_time.ToDatetime(UTC),
            )  # fmt: skip
        return added is not None

    async def made_by(self, tenant: str, request_id: str) -> agent_pb2.Agent | None:
        async with self._database.tenant(tenant) as connection:
            data = await connection.fetchval(SQL["agent_made_by"], request_id)
        return agent_pb2.Agent.FromString(data) if data else None

    async def versions(self, tenant: str, name: str) -> Sequence[agent_pb2.Agent]:
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(SQL["agent_versions"], name)
        return [agent_pb2.Agent.FromString(row["data"]) for row in rows]

    async def set_state(self, tenant: str, agent: agent_pb2.Agent) -> None:
        archived = agent.state == agent_pb2.AGENT_STATE_ARCHIVED
        async with self._database.tenant(tenant) as connection:
            await connection.execute(SQL["set_agent_state"], agent.id, agent.state, archived, agent.SerializeToString())

    async def every(self, tenant: str, chosen: AgentFilter, *, page: Page) -> Sequence[agent_pb2.Agent]:
        skip = int(page.cursor[0]) if page.cursor else 0
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(
                SQL["every_agent"], chosen.name, chosen.capability, chosen.state, chosen.order, skip, page.size + 1
            )
        return [agent_pb2.Agent.FromString(row["data"]) for row in rows]


class PostgresSessionStore:
    """Sessions, turns, events and signals."""

    def __init__(self, database: Database, *, log_key: bytes) -> None:
        self._database = database
        self._key = log_key

    async def start(
        self, tenant: str, session: session_pb2.Session, starter: Principal, first: Entry, *, request_id: str | None
    ) -> session_pb2.Session:
        async with self._database.tenant(tenant) as connection:
            started = await connection.fetchval(
                SQL["start_session"], tenant, session.id, session.topic_start, session.mode, session.strategy,
                list(session.agents), json_format.MessageToDict(session.metadata), session.status, starter.subject,
                sorted(starter.roles), request_id, session.SerializeToString(), session.start_time.ToDatetime(UTC),
            )  # fmt: skip
            if started is None:
                data = await connection.fetchval(SQL["session_of_request"], request_id)
                return session_pb2.Session.FromString(data)
            (mac,) = chain.macs(self._key, chain.START, [first.payload])
            await connection.execute(SQL["first_event"], tenant, session.id, first.kind, first.payload, mac)
            await connection.execute(SQL["open_lease"], tenant, session.id)
            await connection.execute(SQL["notify"], session.id)
        return session

    async def find(self, tenant: str, session_id: str) -> session_pb2.Session | None:
        async with self._database.tenant(tenant) as connection:
            data = await connection.fetchval(SQL["find_session"], session_id)
        return session_pb2.Session.FromString(data) if data else None

    async def every(
        self, tenant: str, *, status: int, mode: str, newest_first: bool, page: Page
    ) -> Sequence[session_pb2.Session]:
        seen: tuple[datetime | None, str] = (None, "")
        if page.cursor:
            seen = (datetime.fromisoformat(page.cursor[0]), page.cursor[1])
        query = SQL["newest_sessions" if newest_first else "oldest_sessions"]
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(query, status, mode, *seen, page.size + 1)
        return [session_pb2.Session.FromString(row["data"]) for row in rows]

    async def turns(
        self, tenant: str, session_id: str, *, agent: str, round_number: int, page: Page
    ) -> Sequence[turn_pb2.Turn]:
        skip = int(page.cursor[0]) if page.cursor else 0
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(SQL["turns"], session_id, agent, round_number, skip, page.size + 1)
        return [turn_pb2.Turn.FromString(row["data"]) for row in rows]

    async def read(self, tenant: str, session_id: str, after: int, *, limit: int) -> Sequence[Entry]:
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(SQL["read_events"], session_id, after, limit)
        return [Entry(**row) for row in rows]

    async def starter(self, tenant: str, session_id: str) -> Principal:
        async with self._database.tenant(tenant) as connection:
            (row,) = await connection.fetch(SQL["starter"], session_id)
        roles = frozenset(row["starter_roles"])
        return Principal(tenant, row["starter_subject"], roles, CredentialKind.SERVICE)

    async def append(
        self,
        lease: Lease,
        entries: Sequence[Entry],
        *,
        session: session_pb2.Session,
        turn: turn_pb2.Turn | None = None,
        release: bool = False,
        signals_taken: int = 0,
    ) -> None:
        async with self._database.tenant(lease.tenant) as connection:
            await self._append(connection, lease, entries)
            if turn is not None:
                await _add_turn(connection, lease.tenant, turn)
            await _put_summary(connection, session)
            if release:
                await connection.execute(SQL["lock_lease"], session.id)
                await connection.execute(SQL["release"], session.id, session.status in _ENDED, signals_taken)

    async def signal(self, tenant: str, session_id: str, signal: Signal, *, request_id: str | None) -> None:
        async with self._database.tenant(tenant) as connection:
            added = await connection.fetchval(
                SQL["add_signal"], tenant, signal.id, session_id, signal.kind, signal.sender, request_id
            )
            if added:
                await connection.execute(SQL["make_ready"], session_id)
                await connection.execute(SQL["notify"], session_id)

    async def signalled(self, tenant: str, session_id: str, request_id: str) -> bool:
        async with self._database.tenant(tenant) as connection:
            return bool(await connection.fetchval(SQL["signalled"], session_id, request_id))

    async def signals(self, tenant: str, session_id: str) -> Sequence[Signal]:
        async with self._database.tenant(tenant) as connection:
            return [Signal(**row) for row in await connection.fetch(SQL["signals"], session_id)]

    async def _append(self, connection: Connection, lease: Lease, entries: Sequence[Entry]) -> None:
        before = await connection.fetchval(SQL["last_mac"], lease.session_id, entries[0].sequence - 1)
        payloads = [entry.payload for entry in entries]
        written = await connection.fetch(
            SQL["append_events"], lease.tenant, lease.session_id, lease.owner, lease.fence,
            [entry.sequence for entry in entries], [entry.kind for entry in entries], payloads,
            list(chain.macs(self._key, before or chain.START, payloads)),
        )  # fmt: skip
        if len(written) != len(entries):
            raise LeaseLost("another replica drives the session", session_id=lease.session_id)


async def _add_turn(connection: Connection, tenant: str, turn: turn_pb2.Turn) -> None:
    raw = json_format.MessageToDict(turn, preserving_proto_field_name=True)
    confidence = turn.confidence if turn.HasField("confidence") else None
    await connection.execute(
        SQL["add_turn"], tenant, turn.id, turn.session_id, turn.round, turn.agent.partition("@")[0], turn.prompt,
        turn.content, confidence, raw, turn.SerializeToString(), turn.end_time.ToDatetime(UTC),
    )  # fmt: skip


async def _put_summary(connection: Connection, session: session_pb2.Session) -> None:
    ended = session.end_time.ToDatetime(UTC) if session.HasField("end_time") else None
    await connection.execute(
        SQL["put_summary"], session.id, session.status, session.topic_final, session.converged,
        session.rounds_executed, ended, session.SerializeToString(),
    )  # fmt: skip
