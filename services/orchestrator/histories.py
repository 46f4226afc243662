"""What can be done with logs of sessions: replay, fork, compare, audit, export, import."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Final

from agentnet.orchestrator.v1 import event_pb2, history_pb2, history_service_pb2, session_pb2, turn_pb2
from services.orchestrator import audit
from services.orchestrator.agents import Agents
from services.orchestrator.documents import SCHEMA_VERSION, checked
from services.orchestrator.errors import ReplayUnsupported, SessionNotFound
from services.orchestrator.forks import diff as diffs
from services.orchestrator.forks.copy import copied, entries, turns
from services.orchestrator.forks.fork import GRAPH, Fork, Forking
from services.orchestrator.replays.cassette import log_hash
from services.orchestrator.replays.replay import replay
from services.orchestrator.store import SessionStore
from shared.clock import Clock
from shared.identity import Principal
from shared.ids import Ids
from shared.paging import MAX_PAGE_SIZE, Page

_PAGE: Final = 1000

Event = event_pb2.SessionEvent


@dataclass(frozen=True, slots=True)
class Histories:
    """The logs of all tenants, one tenant a call."""

    store: SessionStore
    agents: Agents
    clock: Clock
    ids: Ids
    max_takeovers: int

    async def replay(self, tenant: str, session_id: str) -> history_service_pb2.ReplaySessionResponse:
        """Raises SessionNotFound, ReplayUnsupported and AgentNotFound."""
        session = await self._session(tenant, session_id)
        if session.mode == GRAPH:
            raise ReplayUnsupported("a task graph's log cannot be run again", mode=session.mode)
        await self.agents.all_there(tenant, session.agents)
        starter = await self.store.starter(tenant, session_id)
        log = await self._log(tenant, session_id)
        return await replay(log, starter, self.agents, max_takeovers=self.max_takeovers)

    async def fork(
        self, forker: Principal, session_id: str, fork: Fork, *, request_id: str | None
    ) -> session_pb2.Session:
        """Raises SessionNotFound and what Forking.log raises."""
        source = await self._session(forker.tenant_id, session_id)
        forking = Forking(self.agents, self.clock, self.ids)
        session, log = await forking.log(forker, source, await self._log(forker.tenant_id, session_id), fork)
        return await self.store.adopt(
            forker.tenant_id, session, forker, entries(log), turns(log), request_id=request_id
        )

    async def diff(self, tenant: str, left: str, right: str) -> history_service_pb2.DiffSessionsResponse:
        """Raises SessionNotFound."""
        return diffs.diff(await self._side(tenant, left), await self._side(tenant, right))

    async def audit(self, tenant: str, session_id: str) -> history_service_pb2.AuditSessionResponse:
        """Raises SessionNotFound."""
        session = await self._session(tenant, session_id)
        log = await self._log(tenant, session_id)
        report = audit.audited(session, await self._turns(tenant, session_id), log)
        report.chain.CopyFrom(await self.store.check_chain(tenant, session_id))
        return report

    async def export(self, tenant: str, session_id: str) -> history_pb2.SessionDocument:
        """Raises SessionNotFound."""
        session = await self._session(tenant, session_id)
        log = await self._log(tenant, session_id)
        document = history_pb2.SessionDocument(
            schema_version=SCHEMA_VERSION, session=session, events=log, log_hash=log_hash(log)
        )
        document.export_time.FromDatetime(self.clock.now())
        return document

    async def take_in(
        self, importer: Principal, document: history_pb2.SessionDocument, *, request_id: str | None
    ) -> session_pb2.Session:
        """Raises DocumentInvalid."""
        checked(document)
        session = session_pb2.Session()
        session.CopyFrom(document.session)
        session.id = self.ids.new("ses")
        session.origin.CopyFrom(session_pb2.SessionOrigin(session_id=document.session.id, kind="import"))
        log = copied(document.events, session.id, self.ids)
        log[-1].session_finished.session.CopyFrom(session)
        return await self.store.adopt(
            importer.tenant_id, session, importer, entries(log), turns(log), request_id=request_id
        )

    async def _session(self, tenant: str, session_id: str) -> session_pb2.Session:
        session = await self.store.find(tenant, session_id)
        if session is None:
            raise SessionNotFound(f"no session {session_id}", session_id=session_id)
        return session

    async def _log(self, tenant: str, session_id: str) -> list[Event]:
        log: list[Event] = []
        while True:
            page = await self.store.read(tenant, session_id, len(log), limit=_PAGE)
            log += [Event.FromString(entry.payload) for entry in page]
            if len(page) < _PAGE:
                return log

    async def _turns(self, tenant: str, session_id: str) -> list[turn_pb2.Turn]:
        found: list[turn_pb2.Turn] = []
        asked = Page(MAX_PAGE_SIZE)
        while True:
            page = await self.store.turns(tenant, session_id, agent="", round_number=0, page=asked)
            found += page[:MAX_PAGE_SIZE]
            if len(page) <= MAX_PAGE_SIZE:
                return found
            asked = Page(MAX_PAGE_SIZE, (found[-1].end_time.ToDatetime(UTC).isoformat(), found[-1].id))

    async def _side(self, tenant: str, session_id: str) -> tuple[session_pb2.Session, Sequence[turn_pb2.Turn], int]:
        session = await self._session(tenant, session_id)
        verdicts = sum(event.HasField("monitor_verdict") for event in await self._log(tenant, session_id))
        return session, await self._turns(tenant, session_id), verdicts
