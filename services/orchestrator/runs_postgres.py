"""Starting and reading many runs in one statement: what is asked at the same time goes to Postgres together."""

from __future__ import annotations

import json
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Final

from google.protobuf import json_format

from agentnet.orchestrator.v1 import session_pb2, task_graph_pb2
from services.orchestrator.store import Begun, Entry, Lease, Signal, Taker
from shared.batches import Batches
from shared.identity import CredentialKind, Principal
from shared.postgres import REFUSED, Database, Queries

Place = tuple[str, str]
_REMEMBERED: Final = 10_000


@dataclass(frozen=True, slots=True)
class Start:
    """A run to be started: its session, who starts it, the first event of its log, its graph if it has one."""

    tenant: str
    session: session_pb2.Session
    starter: Principal
    first: Entry
    mac: bytes
    request_id: str | None
    graph: task_graph_pb2.TaskGraph | None

    @property
    def request(self) -> Place:
        """Two starts of one of these are one."""
        return self.tenant, self.request_id or f"session {self.session.id}"

    def lease(self, owner: str) -> Lease:
        """As who accepts it has it from its start."""
        kind = "session" if self.graph is None else "graph"
        begun = Begun(_of(self.tenant, self.starter.subject, self.starter.roles), self.first)
        return Lease(self.tenant, self.session.id, owner, 1, 0, kind, begun)


@dataclass(frozen=True, slots=True)
class Range:
    """Which events of a log are wanted."""

    place: Place
    after: int
    limit: int


@dataclass(frozen=True, slots=True)
class Read:
    """Events in order, and the mac of the last one."""

    entries: Sequence[Entry]
    mac: bytes


class Runs:
    """The statements of one replica."""

    def __init__(self, database: Database, queries: Queries) -> None:
        self._database = database
        self._sql = queries
        self._starts = Batches(self._start, place=lambda one: one.request, faults=REFUSED)
        self._reads = Batches(self._read)
        self._starters = Batches(self._starter)
        self._signals = Batches(self._signal)
        self.taker: Taker | None = None
        # Who started what was started here and is not driven yet.
        self._begun: OrderedDict[Place, Principal] = OrderedDict()

    async def start(self, start: Start) -> bytes | None:
        """The session that an earlier request of its request_id started, when there was one. Raises Unavailable."""
        earlier = await self._starts.ask(start)
        if earlier is None:
            self._begun[start.tenant, start.session.id] = _of(start.tenant, start.starter.subject, start.starter.roles)
            while len(self._begun) > _REMEMBERED:
                self._begun.popitem(last=False)
        return earlier

    async def read(self, wanted: Range) -> Read:
        """Raises Unavailable."""
        return await self._reads.ask(wanted)

    async def starter(self, place: Place) -> Principal:
        """Who started the run. Raises Unavailable."""
        return self._begun.pop(place, None) or await self._starters.ask(place)

    async def signals(self, place: Place) -> Sequence[Signal]:
        """All signals of the run, oldest first. Raises Unavailable."""
        return await self._signals.ask(place)

    async def _start(self, batch: Sequence[Start]) -> Sequence[bytes | None]:
        if self.taker is None or not (reserved := self.taker.reserve(len(batch))):
            return await self._started(batch, (None, None))
        leases: list[Lease] = []
        owner = self.taker.owner
        try:
            owners = [owner] * reserved + [None] * (len(batch) - reserved)
            earlier = await self._started(batch, (owners, self.taker.ttl))
            leases += [one.lease(owner) for one, other in zip(batch[:reserved], earlier, strict=False) if other is None]
        finally:
            self.taker.taken(leases, reserved=reserved)
        return earlier

    async def _started(self, batch: Sequence[Start], taken: tuple[object, object]) -> Sequence[bytes | None]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(self._sql["start_runs"], *started(batch), *taken)
        earlier: dict[int, bytes] = {row["run"]: row["earlier"] for row in rows}
        return [earlier.get(run) for run in range(1, len(batch) + 1)]

    async def _read(self, batch: Sequence[Range]) -> Sequence[Read]:
        after, limits = [one.after for one in batch], [one.limit for one in batch]
        async with self._database.alone() as connection:
            rows = await connection.fetch(self._sql["read_logs"], *columns([one.place for one in batch]), after, limits)
        found: defaultdict[int, list[Entry]] = defaultdict(list)
        macs: dict[int, bytes] = {}
        for run, sequence, kind, payload, mac in rows:
            found[run].append(Entry(sequence, kind, payload))
            macs[run] = mac
        return [Read(found[run], macs.get(run, b"")) for run in range(1, len(batch) + 1)]

    async def _starter(self, batch: Sequence[Place]) -> Sequence[Principal]:
        async with self._database.alone() as connection:
            rows = await connection.fetch(self._sql["starters"], *columns(batch))
        found = {run: (subject, roles) for run, subject, roles in rows}
        return [_of(tenant, *found[run]) for run, (tenant, _) in enumerate(batch, 1)]

    async def _signal(self, batch: Sequence[Place]) -> Sequence[Sequence[Signal]]:
        async with self._database.alone() as connection:
            rows = await connection.fetch(self._sql["signals"], *columns(batch))
        found: defaultdict[int, list[Signal]] = defaultdict(list)
        for run, *signal in rows:
            found[run].append(Signal(*signal))
        return [found[run] for run in range(1, len(batch) + 1)]


def started(batch: Sequence[Start]) -> tuple[object, ...]:
    """The arguments of start_runs."""
    sessions = [one.session for one in batch]
    return (
        [one.tenant for one in batch], [found.id for found in sessions],
        [found.topic_start for found in sessions], [found.mode for found in sessions],
        [found.strategy for found in sessions], [json.dumps(list(found.agents)) for found in sessions],
        [json_format.MessageToJson(found.metadata) for found in sessions],
        [found.status for found in sessions],
        [one.starter.subject for one in batch], [json.dumps(sorted(one.starter.roles)) for one in batch],
        [one.request_id for one in batch], [found.SerializeToString() for found in sessions],
        [found.start_time.ToDatetime(UTC) for found in sessions],
        [one.first.kind for one in batch], [one.first.payload for one in batch], [one.mac for one in batch],
        [one.graph.id if one.graph is not None else None for one in batch],
        [_plain(one.graph) if one.graph is not None else None for one in batch],
    )  # fmt: skip


def _plain(graph: task_graph_pb2.TaskGraph) -> str:
    return json.dumps(json_format.MessageToDict(graph, preserving_proto_field_name=True))


def _of(tenant: str, subject: str, roles: Iterable[str]) -> Principal:
    """The starter of a run as whoever drives it knows them."""
    return Principal(tenant, subject, frozenset(roles), CredentialKind.SERVICE)


def columns(places: Sequence[Place]) -> tuple[list[str], list[str]]:
    """Tenants and names, as statements about many take them."""
    return [tenant for tenant, _ in places], [session for _, session in places]
