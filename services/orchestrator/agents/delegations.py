"""Delegations: work finds its agent, runs as a session within its capability, and is revoked with all below it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from agentnet.common.v1 import failure_pb2
from agentnet.orchestrator.v1 import delegation_pb2, event_pb2, session_pb2, turn_pb2
from services.orchestrator import narrowing
from services.orchestrator.agents import conversation
from services.orchestrator.agents.capability import Bounds, attenuated, principal
from services.orchestrator.agents.conversation import Message
from services.orchestrator.agents.history import History
from services.orchestrator.agents.lineage import KEY
from services.orchestrator.agents.registry import Agents
from services.orchestrator.agents.relationships import Relationships
from services.orchestrator.agents.routing import Wanted, choose
from services.orchestrator.agents.stores import Delegation, DelegationFilter, DelegationStore
from services.orchestrator.errors import ChainLimitReached, DelegationEnded, DelegationNotFound, SessionEnded
from services.orchestrator.sessions import Sessions
from shared.clock import Clock
from shared.errors import DeadlineExceeded, MeshError, PermissionDenied
from shared.identity import Grant, Principal
from shared.ids import Ids
from shared.log import log
from shared.paging import Page

RUNNING: Final = delegation_pb2.DELEGATION_STATE_RUNNING
_OVERSEE: Final = frozenset({"admin", "operator"})
_ENDS: Final = {
    session_pb2.SESSION_STATUS_COMPLETED: delegation_pb2.DELEGATION_STATE_COMPLETED,
    session_pb2.SESSION_STATUS_FAILED: delegation_pb2.DELEGATION_STATE_FAILED,
    session_pb2.SESSION_STATUS_CANCELLED: delegation_pb2.DELEGATION_STATE_CANCELLED,
}
_CONVERSATION: Final = 20
_PATH: Final = 255


@dataclass(frozen=True, slots=True)
class Task:
    """What a caller wants done."""

    messages: tuple[Message, ...]
    capability: delegation_pb2.Capability
    conversation_id: str = ""
    capabilities: frozenset[str] = frozenset()
    agents: tuple[str, ...] = ()
    parent_id: str = ""
    team: str = ""


@dataclass(frozen=True, slots=True)
class Delegations:
    """The delegations of all tenants, one tenant a call."""

    store: DelegationStore
    agents: Agents
    relationships: Relationships
    history: History
    sessions: Sessions
    clock: Clock
    ids: Ids

    async def route(self, caller: Principal, task: Task, *, parent: Delegation | None = None) -> delegation_pb2.Choice:
        """Who would be chosen. Raises NoAgentAble and, for one that is named, AgentNotFound."""
        tenant = caller.tenant_id
        agents = await self.agents.active(tenant)
        for name in task.agents:
            await self.agents.runnable(tenant, name)
        known = DelegationFilter(conversation_id=task.conversation_id)
        before = await self.store.every(tenant, known, page=Page(_CONVERSATION)) if task.conversation_id else []
        reputations = await self.history.reputations(tenant, [agent.name for agent in agents])
        wanted = Wanted(
            task.messages[-1].text,
            task.capabilities,
            frozenset(task.agents),
            frozenset(one.target.partition("@")[0] for one in before),
        )
        return choose(
            agents,
            wanted,
            reputations={name: found.score for name, found in reputations.items()},
            running=await self.store.running(tenant, now=self.clock.now()),
            allowed=await self.relationships.helpers(tenant, parent.target) if parent else None,
        )

    async def dispatch(
        self, caller: Principal, task: Task, *, request_id: str | None, patience: timedelta | None
    ) -> tuple[Delegation, turn_pb2.Turn | None]:
        """Gives a task to who fits best and, with patience, waits for the answer. Raises what routing and the session
        raise, DelegationTooWide, DelegationEnded, DelegationNotFound, and DeadlineExceeded with the delegation's id.
        """
        opened = await self._open(caller, task, request_id)
        acting = principal(caller, opened, above=await self._above(caller, opened.parent_id))
        session = await self._session(caller.tenant_id, task, opened)
        key = f"delegation/{opened.id}"[:64]
        try:
            if patience is None:
                await self.sessions.start(acting, session, request_id=key)
                return opened, None
            _, turn = await self.sessions.run_single(acting, session, request_id=key, patience=patience)
        except DeadlineExceeded as error:
            error.facts["delegation_id"] = opened.id
            raise
        except MeshError as error:
            failure = error.failure()
            await self._end(caller.tenant_id, opened, delegation_pb2.DELEGATION_STATE_FAILED, failure=failure)
            error.facts["delegation_id"] = opened.id
            raise
        await self._end(caller.tenant_id, opened, delegation_pb2.DELEGATION_STATE_COMPLETED, output=turn.content)
        return opened, turn

    async def find(self, tenant: str, delegation_id: str) -> Delegation:
        """Raises DelegationNotFound."""
        found = await self.store.find(tenant, delegation_id)
        if found is None:
            raise DelegationNotFound(f"no delegation {delegation_id}", delegation_id=delegation_id)
        return found

    async def every(self, tenant: str, chosen: DelegationFilter, *, page: Page) -> Sequence[Delegation]:
        """Newest first."""
        return await self.store.every(tenant, chosen, page=page)

    async def revoke(self, caller: Principal, delegation_id: str) -> Sequence[str]:
        """Ends a delegation and all below it; which those were. Raises DelegationNotFound and PermissionDenied."""
        found = await self.find(caller.tenant_id, delegation_id)
        await self._may(caller, found)
        revoked = await self.store.revoke(caller.tenant_id, delegation_id, at=self.clock.now())
        for one in revoked:
            try:
                await self.sessions.signal(caller, one.session_id, "cancel", request_id=f"revoked/{one.id}"[:64])
            except SessionEnded:
                continue
            except MeshError as error:
                log.warning("delegation.not_cancelled", delegation_id=one.id, reason=error.reason_name)
        return [one.id for one in revoked]

    async def hear(self, tenant: str, context: Sequence[event_pb2.SessionEvent]) -> None:
        """A delegation ends with its session, whoever waits for it."""
        last = context[-1]
        session = last.session_finished.session
        if not last.HasField("session_finished") or not session.delegated.delegation_id:
            return
        one = await self.store.find(tenant, session.delegated.delegation_id)
        if one is None or one.session_id != session.id:
            return
        one.cost_micros_usd = session.cost_micros_usd
        if one.state != RUNNING:
            await self.store.spent(tenant, one)
            return
        one.state = _ENDS.get(session.status, delegation_pb2.DELEGATION_STATE_FAILED)
        one.end_time.CopyFrom(last.time)
        if session.HasField("failure"):
            one.failure.CopyFrom(session.failure)
        turns = [event.turn_finished.turn for event in context if event.HasField("turn_finished")]
        one.output = turns[-1].content if turns else ""
        await self.store.end(tenant, one)

    async def _open(self, caller: Principal, task: Task, request_id: str | None) -> Delegation:
        tenant, now = caller.tenant_id, self.clock.now()
        if request_id and (earlier := await self.store.of_request(tenant, request_id)):
            return earlier
        parent = await self._parent(caller, task.parent_id)
        choice = await self.route(caller, task, parent=parent)
        made = Delegation(
            id=self.ids.new("del"),
            parent_id=task.parent_id,
            source=f"agent:{parent.target}" if parent else f"user:{caller.subject}",
            target=choice.agent,
            session_id=self.ids.new("ses"),
            conversation_id=task.conversation_id,
            task=task.messages[-1].text,
            state=RUNNING,
            choice=choice,
        )
        made.create_time.FromDatetime(now)

        def fits(held: Delegation | None, below: int) -> None:
            bounds = Bounds.of_caller(caller, now)
            if held is not None:
                _check_running(held)
                bounds = Bounds.of_parent(held, below).within(bounds)
            made.capability.CopyFrom(attenuated(bounds, task.capability, now))

        return await self.store.open(tenant, made, request_id=request_id, fits=fits)

    async def _parent(self, caller: Principal, parent_id: str) -> Delegation | None:
        if not parent_id:
            return None
        parent = await self.find(caller.tenant_id, parent_id)
        await self._may(caller, parent)
        _check_running(parent)
        return parent

    async def _above(self, caller: Principal, parent_id: str) -> Grant:
        """How far those who work on the delegation above are narrowed."""
        if not parent_id:
            return Grant()
        parent = await self.find(caller.tenant_id, parent_id)
        session = await self.sessions.find(caller.tenant_id, parent.session_id)
        return narrowing.acting(caller, session).grant or Grant()

    async def _may(self, caller: Principal, found: Delegation) -> None:
        """Whose a delegation is: an operator's, or that of whoever it comes from or works on it, at any height."""
        mine = {f"user:{caller.subject}", caller.subject}
        above: Delegation | None = found
        while above is not None:
            if caller.roles & _OVERSEE or mine & {above.source, f"agent:{above.target}"}:
                return
            above = await self.store.find(caller.tenant_id, above.parent_id) if above.parent_id else None
        raise PermissionDenied("the delegation is not the caller's", delegation_id=found.id)

    async def _session(self, tenant: str, task: Task, opened: Delegation) -> session_pb2.Session:
        agent = await self.agents.find(tenant, *opened.target.split("@"))
        session = session_pb2.Session(
            id=opened.session_id,
            topic_start=conversation.prompt(task.messages, takes_data=bool(agent.input_schema.fields)),
            mode="single",
            strategy="round_robin",
            agents=[opened.target],
            max_rounds=1,
            team=task.team,
        )
        if opened.parent_id:
            parent = await self.find(tenant, opened.parent_id)
            above = await self.sessions.find(tenant, parent.session_id)
            session.team = task.team or above.team
            path = f"{above.delegated.sub_agent or above.delegated.target}/{opened.target}"
            session.delegated.sub_agent = path[-_PATH:]
        session.delegated.delegation_id, session.delegated.source = opened.id, opened.source
        session.delegated.target, session.delegated.reason = opened.target, opened.choice.reason
        return session

    async def _end(
        self,
        tenant: str,
        opened: Delegation,
        state: delegation_pb2.DelegationState.ValueType,
        *,
        output: str = "",
        failure: failure_pb2.Failure | None = None,
    ) -> None:
        opened.state, opened.output = state, output
        opened.end_time.FromDatetime(self.clock.now())
        if failure is not None:
            opened.failure.CopyFrom(failure)
        session = await self.sessions.store.find(tenant, opened.session_id)
        opened.cost_micros_usd = session.cost_micros_usd if session else 0
        if not await self.store.end(tenant, opened):
            # Following the log was faster, or it was revoked meanwhile.
            opened.CopyFrom(await self.find(tenant, opened.id))


@dataclass(frozen=True, slots=True)
class DelegationGate:
    """Asks before each generation of a narrowed run whether it may go on."""

    delegations: DelegationStore
    sessions: Sessions
    clock: Clock

    async def admit(self, caller: Principal, *, session_id: str) -> timedelta | None:
        """How long it may still take; None without a limit. Raises DelegationEnded and ChainLimitReached."""
        if caller.grant is None:
            return None
        session = await self.sessions.find(caller.tenant_id, session_id) if session_id else session_pb2.Session()
        await self._running(caller.tenant_id, session.delegated.delegation_id)
        limit = caller.grant.budget_micros_usd
        if limit and session.cost_micros_usd >= limit:
            raise limit_reached(session, "cost", str(limit))
        if caller.expires_at is None:
            return None
        if caller.expires_at <= self.clock.now():
            raise limit_reached(session, "time", caller.expires_at.isoformat())
        return caller.expires_at - self.clock.now()

    async def _running(self, tenant: str, delegation_id: str) -> None:
        if delegation_id and (found := await self.delegations.find(tenant, delegation_id)):
            _check_running(found)


def _check_running(found: Delegation) -> None:
    if found.state != RUNNING:
        state = delegation_pb2.DelegationState.Name(found.state).removeprefix("DELEGATION_STATE_")
        raise DelegationEnded(f"the delegation is {state.lower()}", delegation_id=found.id, state=state)


def limit_reached(session: session_pb2.Session, kind: str, limit: str) -> MeshError:
    """Why a narrowed run goes no further."""
    if KEY in session.metadata:
        return ChainLimitReached(f"the chain has reached its {kind}, {limit}", kind=kind, limit=limit)
    state = {"cost": "SPENT", "time": "EXPIRED"}[kind]
    return DelegationEnded(
        f"what it acts by has reached its {kind}, {limit}", delegation_id=session.delegated.delegation_id, state=state
    )
