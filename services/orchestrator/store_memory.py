"""The honest fake: agents, sessions and their logs in memory, with the same fences and the same order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

from google.protobuf import json_format

from agentnet.orchestrator.v1 import agent_pb2, history_pb2, session_pb2, task_graph_pb2, turn_pb2
from services.orchestrator import chain
from services.orchestrator.archives import Archive
from services.orchestrator.leases_memory import MemoryLeaseStore, Place
from services.orchestrator.store import (
    AgentFilter,
    Begun,
    Entry,
    KeptGraph,
    Lease,
    Sealed,
    SessionFilter,
    Signal,
    Taker,
)
from shared.identity import CredentialKind, Principal
from shared.paging import Page

_LISTED: Final = (agent_pb2.AGENT_STATE_DRAFT, agent_pb2.AGENT_STATE_ACTIVE)
_ENDED: Final = (
    session_pb2.SESSION_STATUS_COMPLETED,
    session_pb2.SESSION_STATUS_FAILED,
    session_pb2.SESSION_STATUS_CANCELLED,
)

_LOG_KEY: Final = b"of the memory stores"


class MemoryAgentStore:
    """Versions by tenant and id, as bytes: nobody changes a stored one by accident. `hear` stands for NOTIFY."""

    def __init__(self) -> None:
        self.hear: list[Callable[[str, str], None]] = []
        self._agents: dict[Place, bytes] = {}
        self._made: dict[Place, str] = {}

    async def add(self, tenant: str, agent: agent_pb2.Agent, *, request_id: str | None) -> bool:
        taken = any((known.name, known.version) == (agent.name, agent.version) for known in self._of(tenant))
        if taken or (request_id and (tenant, request_id) in self._made):
            return False
        self._agents[tenant, agent.id] = agent.SerializeToString()
        if request_id:
            self._made[tenant, request_id] = agent.id
        self._notify(tenant, agent.name)
        return True

    async def add_all(self, tenant: str, agents: Sequence[agent_pb2.Agent]) -> bool:
        known = {(agent.name, agent.version) for agent in self._of(tenant)}
        if any((agent.name, agent.version) in known for agent in agents):
            return False
        self._agents |= {(tenant, agent.id): agent.SerializeToString() for agent in agents}
        for agent in agents:
            self._notify(tenant, agent.name)
        return True

    async def made_by(self, tenant: str, request_id: str) -> agent_pb2.Agent | None:
        agent_id = self._made.get((tenant, request_id))
        return agent_pb2.Agent.FromString(self._agents[tenant, agent_id]) if agent_id else None

    async def versions(self, tenant: str, name: str) -> Sequence[agent_pb2.Agent]:
        return [agent for agent in self._of(tenant) if agent.name == name]

    async def set_state(self, tenant: str, agent: agent_pb2.Agent) -> None:
        self._agents[tenant, agent.id] = agent.SerializeToString()
        self._notify(tenant, agent.name)

    async def every(self, tenant: str, chosen: AgentFilter, *, page: Page) -> Sequence[agent_pb2.Agent]:
        skip = page.skip
        found = sorted(
            (agent for agent in self._of(tenant) if _fits(agent, chosen)),
            key=lambda agent: (agent.name, [int(part) for part in agent.version.split(".")]),
        )
        if chosen.newest:
            found = list({(agent.name, agent.state): agent for agent in found}.values())
        if chosen.order != "name":
            found.sort(key=lambda agent: agent.create_time.ToNanoseconds(), reverse=chosen.order.endswith("desc"))
        return found[skip : skip + page.size + 1]

    def _notify(self, tenant: str, name: str) -> None:
        for heard in self.hear:
            heard(tenant, name)

    def _of(self, tenant: str) -> list[agent_pb2.Agent]:
        return [agent_pb2.Agent.FromString(data) for (owner, _), data in self._agents.items() if owner == tenant]


@dataclass(slots=True)
class _Kept:
    """One session with all that belongs to it."""

    data: bytes
    starter: Principal
    log: list[Entry]
    graph: bytes | None = None
    turns: list[turn_pb2.Turn] = field(default_factory=list)
    signals: list[Signal] = field(default_factory=list)
    signalled: set[str] = field(default_factory=set)

    macs: list[bytes] = field(default_factory=list)
    # Which of its first events happened in another session.
    copied: range = range(0)

    def __post_init__(self) -> None:
        self.macs += chain.macs(_LOG_KEY, chain.START, [entry.payload for entry in self.log])

    def add(self, entries: Sequence[Entry]) -> None:
        self.log += entries
        self.macs += chain.macs(_LOG_KEY, self.macs[-1], [entry.payload for entry in entries])

    @property
    def session(self) -> session_pb2.Session:
        return session_pb2.Session.FromString(self.data)


class MemorySessionStore:
    """Sessions, logs, turns and signals; writes are checked against the leases."""

    def __init__(self, leases: MemoryLeaseStore, archive: Archive | None = None) -> None:
        self._leases = leases
        self._archive = archive
        self._kept: dict[Place, _Kept] = {}
        self._requested: dict[Place, str] = {}
        self._taker: Taker | None = None

    def driven_by(self, taker: Taker) -> None:
        """What is accepted here from now on is driven here, as far as it is taken."""
        self._taker = taker

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
        if request_id and (earlier := self._requested.get((tenant, request_id))):
            return self._kept[tenant, earlier].session
        known = Principal(tenant, starter.subject, starter.roles, CredentialKind.SERVICE)
        kept = graph.SerializeToString() if graph else None
        self._kept[tenant, session.id] = _Kept(session.SerializeToString(), known, [first], kept)
        if request_id:
            self._requested[tenant, request_id] = session.id
        kind = "graph" if graph else "session"
        if self._taker is None or not (reserved := self._taker.reserve(1)):
            self._leases.open(tenant, session.id, kind)
        else:
            lease = self._leases.begin(tenant, session.id, kind, self._taker.owner, ttl=self._taker.ttl)
            self._taker.taken([replace(lease, begun=Begun(known, first))], reserved=reserved)
        return session

    async def find_graph(self, tenant: str, graph_id: str) -> KeptGraph | None:
        return next((found for found in self._graphs(tenant) if found.graph.id == graph_id), None)

    async def graph_of(self, tenant: str, session_id: str) -> task_graph_pb2.TaskGraph | None:
        return next((found.graph for found in self._graphs(tenant) if found.session.id == session_id), None)

    async def every_graph(self, tenant: str, *, statuses: Sequence[int], page: Page) -> Sequence[KeptGraph]:
        chosen = [found for found in self._graphs(tenant) if not statuses or found.session.status in statuses]
        chosen.sort(key=lambda found: _started(found.session), reverse=True)
        at, last = page.place
        if at is not None:
            chosen = [found for found in chosen if _started(found.session) < (at, last)]
        return chosen[: page.size + 1]

    def _graphs(self, tenant: str) -> list[KeptGraph]:
        return [
            KeptGraph(task_graph_pb2.TaskGraph.FromString(kept.graph), kept.session)
            for (owner, _), kept in self._kept.items()
            if owner == tenant and kept.graph is not None
        ]

    def committed(self) -> dict[Place, list[Entry]]:
        """All logs."""
        return {place: kept.log for place, kept in self._kept.items()}

    def copied(self, place: Place, sequence: int) -> bool:
        """Whether an event happened in another session."""
        return sequence in self._kept[place].copied

    async def find(self, tenant: str, session_id: str) -> session_pb2.Session | None:
        kept = self._kept.get((tenant, session_id))
        return kept.session if kept else None

    async def every(self, tenant: str, chosen: SessionFilter, *, page: Page) -> Sequence[session_pb2.Session]:
        of_tenant = [kept for (owner, _), kept in self._kept.items() if owner == tenant]
        here = [kept.session for kept in of_tenant if chosen.archived in (None, not kept.log)]
        found = [one for one in here if _chosen(one, chosen)]
        found.sort(key=_started, reverse=chosen.newest_first)
        at, last = page.place
        if at is not None:
            seen = (at, last)
            found = [one for one in found if (_started(one) < seen if chosen.newest_first else _started(one) > seen)]
        return found[: page.size + 1]

    async def asking(self, tenant: str, *, page: Page) -> Sequence[session_pb2.Session]:
        found = [kept.session for (owner, _), kept in self._kept.items() if owner == tenant and kept.session.inputs]
        found.sort(key=_started)
        at, last = page.place
        if at is not None:
            found = [one for one in found if _started(one) > (at, last)]
        return found[: page.size + 1]

    async def turns(
        self, tenant: str, session_id: str, *, agent: str, round_number: int, page: Page
    ) -> Sequence[turn_pb2.Turn]:
        kept = self._kept.get((tenant, session_id))
        chosen = [
            turn
            for turn in (kept.turns if kept else [])
            if agent in ("", turn.agent.partition("@")[0]) and round_number in (0, turn.round)
        ]
        _, last = page.place
        first = next((place for place, turn in enumerate(chosen, 1) if turn.id == last), 0)
        return chosen[first : first + page.size + 1]

    async def read(self, tenant: str, session_id: str, after: int, *, limit: int) -> Sequence[Entry]:
        kept = self._kept.get((tenant, session_id))
        if kept and not kept.log and self._archive:
            return await self._archive.read(tenant, session_id, after, limit=limit)
        return [entry for entry in (kept.log if kept else []) if entry.sequence > after][:limit]

    async def archivable(self, tenant: str, *, before: datetime, limit: int) -> Sequence[str]:
        ended = [one.session for (owner, _), one in self._kept.items() if owner == tenant and one.log]
        due = [one for one in ended if one.HasField("end_time") and one.end_time.ToDatetime(UTC) < before]
        return [one.id for one in sorted(due, key=lambda one: one.end_time.ToNanoseconds())][:limit]

    async def sealed(self, tenant: str, session_id: str) -> Sequence[Sealed]:
        kept = self._kept[tenant, session_id]
        if not kept.log and self._archive:
            return await self._archive.log(tenant, session_id)
        pairs = zip(kept.log, kept.macs, strict=False)
        return [Sealed(one.sequence, one.kind, one.payload, mac) for one, mac in pairs]

    async def let_go(self, tenant: str, session_id: str) -> None:
        kept = self._kept[tenant, session_id]
        if kept.session.HasField("end_time"):
            kept.log.clear()
            kept.macs.clear()

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
        first, *others = log
        stored = await self.start(tenant, session, starter, first, request_id=request_id)
        if stored is not session:
            return stored
        kept = self._kept[tenant, session.id]
        kept.turns += turns
        kept.add(others)
        kept.copied = range(1 if session.HasField("end_time") else 2, len(log) + 1)
        if session.status in _ENDED:
            self._leases.close(tenant, session.id)
        return session

    async def check_chain(self, tenant: str, session_id: str) -> history_pb2.ChainReport:
        check = chain.Check(_LOG_KEY)
        for one in await self.sealed(tenant, session_id):
            if not check.look(one.sequence, one.payload, one.mac):
                break
        return check.end(self._kept[tenant, session_id].session)

    async def starter(self, tenant: str, session_id: str) -> Principal:
        return self._kept[tenant, session_id].starter

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
        self._leases.check(lease)
        kept = self._kept[lease.tenant, lease.session_id]
        kept.add(entries)
        kept.data = session.SerializeToString()
        kept.turns.extend(turns)
        if release:
            ready = session.status not in _ENDED and len(kept.signals) > signals_taken
            self._leases.release(lease, ready=ready)
        return len(kept.signals)

    async def signal(self, tenant: str, session_id: str, signal: Signal, *, request_id: str | None) -> None:
        kept = self._kept[tenant, session_id]
        if request_id in kept.signalled or any(one.id == signal.id for one in kept.signals):
            return
        if request_id:
            kept.signalled.add(request_id)
        kept.signals.append(signal)
        self._leases.make_ready(tenant, session_id)

    async def signalled(self, tenant: str, session_id: str, request_id: str) -> bool:
        kept = self._kept.get((tenant, session_id))
        return kept is not None and request_id in kept.signalled

    async def signals(self, tenant: str, session_id: str) -> Sequence[Signal]:
        return list(self._kept[tenant, session_id].signals)


def _fits(agent: agent_pb2.Agent, chosen: AgentFilter) -> bool:
    by_state = agent.state == chosen.state if chosen.state else agent.state in _LISTED
    by_name = chosen.name in ("", agent.name)
    return by_state and by_name and (not chosen.capability or chosen.capability in agent.capabilities)


def _chosen(session: session_pb2.Session, chosen: SessionFilter) -> bool:
    began = session.start_time.ToDatetime(UTC)
    return (
        chosen.status in (0, session.status)
        and chosen.mode in ("", session.mode)
        and chosen.agent in ("", *(reference.partition("@")[0] for reference in session.agents))
        and chosen.stop_reason in (0, session.stop_reason)
        and (chosen.since is None or began >= chosen.since)
        and (chosen.until is None or began < chosen.until)
        and _holds(json_format.MessageToDict(session.metadata), dict(chosen.metadata))
    )


def _holds(whole: object, part: object) -> bool:
    """As Postgres' @> on jsonb."""
    if isinstance(whole, dict) and isinstance(part, dict):
        return all(key in whole and _holds(whole[key], value) for key, value in part.items())
    if isinstance(whole, list) and isinstance(part, list):
        return all(any(_holds(one, value) for one in whole) for value in part)
    return whole == part


def _started(session: session_pb2.Session) -> tuple[datetime, str]:
    return session.start_time.ToDatetime(UTC), session.id
