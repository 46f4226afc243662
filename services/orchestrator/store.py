"""What the orchestrator asks of storage: agents, sessions with their logs, live tails, and leases."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from agentnet.orchestrator.v1 import agent_pb2, history_pb2, session_pb2, task_graph_pb2, turn_pb2
from shared.identity import Principal
from shared.paging import Page


@dataclass(frozen=True, slots=True)
class AgentFilter:
    """Which agents, in which order. Empty means all. `newest`: of each name and state only the highest version."""

    name: str = ""
    capability: str = ""
    state: int = 0
    order: str = "name"
    newest: bool = False


@dataclass(frozen=True, slots=True)
class SessionFilter:
    """Which sessions, in which order. Empty means all."""

    status: int = 0
    mode: str = ""
    agent: str = ""
    stop_reason: int = 0
    since: datetime | None = None
    until: datetime | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    archived: bool | None = None
    newest_first: bool = True


@dataclass(frozen=True, slots=True)
class Entry:
    """One event of a log as it is stored: its place and its bytes."""

    sequence: int
    kind: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Sealed(Entry):
    """An event with the keyed hash over it and the one before."""

    mac: bytes


@dataclass(frozen=True, slots=True)
class Begun:
    """What a run begins with: who started it, and the one event of its log."""

    starter: Principal
    first: Entry


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write one run's log, until another one's fence is higher. `kind` says what drives it.

    `begun` is set for who accepted the run and drives it from its start: nobody has written or asked anything since.
    """

    tenant: str
    session_id: str
    owner: str
    fence: int
    takeovers: int
    kind: str = "session"
    begun: Begun | None = field(default=None, compare=False, repr=False)


class Taker(Protocol):
    """A driver that takes runs as its own replica accepts them."""

    @property
    def owner(self) -> str: ...
    @property
    def ttl(self) -> timedelta: ...

    def reserve(self, wanted: int) -> int:
        """How many of so many runs about to be accepted it takes at once, with leases of `ttl`; `taken` must follow."""

    def taken(self, leases: Sequence[Lease], *, reserved: int) -> None:
        """Drives those of the reserved that were accepted."""


EXPIRE: Final = "expire"


@dataclass(frozen=True, slots=True)
class Signal:
    """What a caller asks of a run, or of the part that `target` names; for "input" and "message", what was said. Nobody
    sends EXPIRE: the mesh says so that nobody answered in time.
    """

    id: str
    kind: str
    sender: str
    target: str = ""
    content: str = ""
    approved: bool = False
    override_id: str = ""


@dataclass(frozen=True, slots=True)
class KeptGraph:
    """A task graph as it was accepted, and the session that runs it."""

    graph: task_graph_pb2.TaskGraph
    session: session_pb2.Session


class AgentStore(Protocol):
    """Where agents are kept."""

    async def add(self, tenant: str, agent: agent_pb2.Agent, *, request_id: str | None) -> bool:
        """Stores a version. False when it, or one of this request_id, exists."""

    async def add_all(self, tenant: str, agents: Sequence[agent_pb2.Agent]) -> bool:
        """Stores all of these versions, or none and False when one of them exists."""

    async def made_by(self, tenant: str, request_id: str) -> agent_pb2.Agent | None:
        """The version an earlier request made."""

    async def versions(self, tenant: str, name: str) -> Sequence[agent_pb2.Agent]:
        """All versions of an agent."""

    async def set_state(self, tenant: str, agent: agent_pb2.Agent) -> None:
        """Writes the state of a version."""

    async def every(self, tenant: str, chosen: AgentFilter, *, page: Page) -> Sequence[agent_pb2.Agent]:
        """Versions in order, at most `page.size` + 1. The cursor is how many to skip."""


class SessionStore(Protocol):
    """Where sessions, their logs and their signals are kept."""

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
        """Stores a session with the first event of its log, ready to be claimed; or returns the earlier one of this
        request_id. With a graph it is the session that runs the graph.
        """

    async def find_graph(self, tenant: str, graph_id: str) -> KeptGraph | None:
        """A graph by its id."""

    async def graph_of(self, tenant: str, session_id: str) -> task_graph_pb2.TaskGraph | None:
        """The graph a session runs."""

    async def every_graph(self, tenant: str, *, statuses: Sequence[int], page: Page) -> Sequence[KeptGraph]:
        """Graphs whose session has one of these statuses (all when empty), newest first, at most `page.size` + 1. The
        cursor is (time, id) of the last session seen.
        """

    async def find(self, tenant: str, session_id: str) -> session_pb2.Session | None:
        """The summary."""

    async def every(self, tenant: str, chosen: SessionFilter, *, page: Page) -> Sequence[session_pb2.Session]:
        """Summaries by start, at most `page.size` + 1. The cursor is (time, id) of the last one seen."""

    async def asking(self, tenant: str, *, page: Page) -> Sequence[session_pb2.Session]:
        """Summaries of sessions that wait for people, oldest first, at most `page.size` + 1; the cursor as in every."""

    async def turns(
        self, tenant: str, session_id: str, *, agent: str, round_number: int, page: Page
    ) -> Sequence[turn_pb2.Turn]:
        """Finished turns, oldest first, at most `page.size` + 1. The cursor is (end, id) of the last one seen."""

    async def read(self, tenant: str, session_id: str, after: int, *, limit: int) -> Sequence[Entry]:
        """Committed events after a sequence, in order."""

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
        """Stores a session with a log that others wrote; or returns the earlier one of this request_id.

        It is ready to be claimed unless it has ended.
        """

    async def archivable(self, tenant: str, *, before: datetime, limit: int) -> Sequence[str]:
        """Sessions that ended before and whose logs are here, those that ended first first."""

    async def sealed(self, tenant: str, session_id: str) -> Sequence[Sealed]:
        """The whole log as it was written, wherever it is. Raises Unavailable."""

    async def let_go(self, tenant: str, session_id: str) -> None:
        """Takes the log of a session that has ended away, which is in the archive: from then on it is read there."""

    async def check_chain(self, tenant: str, session_id: str) -> history_pb2.ChainReport:
        """Whether the log of a session that exists is as it was written."""

    async def starter(self, tenant: str, session_id: str) -> Principal:
        """Who started the session."""

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
        """Commits events, with the summary and finished turns, in one transaction; tells how many signals the session
        has by then. Raises LeaseLost.

        With `release` the lease is given up: for good when the session has ended, else until there are more signals
        than the `signals_taken`.
        """

    async def signal(self, tenant: str, session_id: str, signal: Signal, *, request_id: str | None) -> None:
        """Stores a signal and wakes whoever drives; a request_id acts once."""

    async def signalled(self, tenant: str, session_id: str, request_id: str) -> bool:
        """Whether a signal of this request_id was stored."""

    async def signals(self, tenant: str, session_id: str) -> Sequence[Signal]:
        """All signals of a session, oldest first."""


class LogTail(Protocol):
    """The live end of logs: written before it is shown. It can be lost; then readers follow the committed log."""

    async def append(self, lease: Lease, entries: Sequence[Entry], *, keep_from: int = 0) -> int | None:
        """Writes events and tells how many it woke for readers; what lies before `keep_from` is committed and may go.

        None when a later owner has written already. Losing the tail is no reason to stop: then it wakes nobody.
        """

    async def readers(self, tenant: str, session_id: str) -> int:
        """How many read the log, at least whether anybody does; 0 when the tail is lost."""

    def wake(self, lease: Lease, committed: Sequence[Entry]) -> None:
        """Wakes the readers of a log that has grown in the store alone, by these events. Soon, and it may be lost:
        readers look by themselves too.
        """

    async def take_over(self, lease: Lease, after: int) -> Sequence[Entry]:
        """Shuts every lower fence out; then what follows `after` without a gap, and nothing else is left to read.

        Raises LeaseLost when a later owner has been here.
        """

    async def read(self, tenant: str, session_id: str, after: int) -> Sequence[Entry]:
        """Events that follow `after` without a gap; nothing when the tail is lost."""

    async def holds(self, tenant: str, session_id: str, sequence: int) -> bool:
        """Whether this event is there. Raises Unavailable."""

    def reader_came(self, tenant: str, session_id: str) -> asyncio.Event:
        """An event that is set when somebody, anywhere, begins to read the log; for its writer, for as long as it holds
        it. The writer clears it. Who begins to read is woken after that, so a writer need not wake while nobody reads.
        """

    def woken(self, tenant: str, session_id: str) -> AbstractContextManager[asyncio.Event]:
        """An event that is set whenever the session's log grows. The reader clears it."""


class LeaseStore(Protocol):
    """Who drives what, across tenants."""

    async def claim(self, owner: str, *, ttl: timedelta, limit: int) -> Sequence[Lease]:
        """Takes sessions that are ready and that nobody, or nobody living, drives; those waiting longest first."""

    async def due(self, *, until: timedelta, limit: int) -> Sequence[tuple[str, str]]:
        """Tenant and session of what `claim` would take, in its order, without taking it: whoever is told sees to it
        that it is taken, and nobody else is told or may claim it for as long as `until`.
        """

    async def take(self, tenant: str, session_id: str, owner: str, *, ttl: timedelta) -> Lease | None:
        """Takes one run from whoever drives it, which counts as a takeover; None when it is not ready."""

    async def give_back(self, lease: Lease) -> None:
        """Lets another replica go on at once."""
