"""One call from beginning to end: select, authorise, limit, validate, reserve, execute, sanitise, cache, record."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Any, Final, Protocol

from services.tools import lifecycle, sanitise, schemas
from services.tools.answer import Outcome, Printed, Status
from services.tools.artefacts import Artefacts
from services.tools.breaker import Breaker
from services.tools.cache import Cache
from services.tools.effects import Effects, Named
from services.tools.errors import (
    ToolArgumentsInvalid,
    ToolCircuitOpen,
    ToolModeUnavailable,
    ToolNotAllowed,
    ToolQuotaExhausted,
    ToolSchemaChanged,
)
from services.tools.executor import Executor, Work, check_isolation, reaches_out, repeatable
from services.tools.permissions import ToolAuthorizer, roles_of
from services.tools.rates import Rates
from services.tools.store import Effect, Invocation, Tool, ToolStore
from services.tools.telling import Bus, NoBus, tell, telling
from services.tools.threats import Threats, attack, caller_of
from shared.clock import Clock
from shared.errors import MeshError, ResourceExhausted
from shared.identity import Principal
from shared.ids import Ids
from shared.log import log
from shared.monitors.arguments import Call
from shared.risks import Tell, untold
from shared.rpc.channel import jitter
from shared.telemetry import meter, tracer

ATTEMPTS: Final = 3
_FIRST_PAUSE: Final = timedelta(milliseconds=200)
_LONGEST: Final = timedelta(minutes=10)
_TRANSIENT: Final = frozenset({Status.UNREACHABLE, Status.UNKNOWN, Status.UPSTREAM_ERROR})
_UNCACHED: Final = frozenset({lifecycle.Level.CONFIDENTIAL.value})
# What a function that wants out looks like from here.
_SECURITY: Final = frozenset({Status.DENIED, Status.CRASHED, Status.MEMORY_LIMIT, Status.OUTPUT_LIMIT})
_invocations = meter.create_counter("tool_invocations_total", description="calls, by tool_name and status")
_seconds = meter.create_histogram("tool_invocation_seconds", unit="s", description="wall time of calls, by tool_name")

Pause = Callable[[float], Awaitable[None]]
Quarantine = Callable[[Principal, Tool, str], Awaitable[object]]


class Policy(Protocol):
    def permit(self, tenant: str, tool: str, *, agent: str, roles: frozenset[str]) -> None:
        """By who may call the tool at all. Raises ToolNotAllowed."""

    async def check(self, tenant: str, call: Call, *, override: str = "", request_id: str = "") -> None:
        """Raises PolicyBlocked, CallApprovalRequired, PolicyUnavailable, and policy's OVERRIDE_INVALID and
        OVERRIDE_EXPIRED.
        """


@dataclass(frozen=True, slots=True)
class Request:
    """Who wants what done, for whom."""

    tool: Tool
    arguments: Mapping[str, Any]
    agent: str = ""
    session_id: str = ""
    turn_id: str = ""
    request_id: str = ""


class Flow:
    """Runs the calls of all tenants, one tenant a call."""

    def __init__(
        self,
        store: ToolStore,
        executors: Mapping[str, Executor],
        *,
        authorizer: ToolAuthorizer,
        rates: Rates,
        policy: Policy | None,
        clock: Clock,
        ids: Ids,
        pause: Pause = asyncio.sleep,
        quarantine: Quarantine | None = None,
        bus: Bus | None = None,
        threat_limit: int = 5,
        risks: Tell = untold,
        artefacts: Artefacts | None = None,
    ) -> None:
        self._store = store
        self._executors = executors
        self._authorizer = authorizer
        self._rates = rates
        self._policy = policy
        self._clock = clock
        self._ids = ids
        self._pause = pause
        self._quarantine = quarantine
        self._bus = bus or NoBus()
        self._artefacts = artefacts
        self._threats = Threats(clock, limit=threat_limit)
        self._attacked = partial(attack, risks, threat_limit)
        self._effects = Effects(store, clock)
        self._breaker = Breaker(clock)
        self._cache: Cache[Outcome] = Cache(clock)

    def new_invocation(self) -> str:
        return self._ids.new("inv")

    async def admit(self, caller: Principal, request: Request, *, override: str = "") -> None:
        """Everything that can be said before it runs; counts it against the rates. `override` is a token that excuses
        rules. Raises what the contract names.
        """
        tool = request.tool
        _check_grant(caller, tool)
        permission = self._authorizer.authorize(caller, tool, agent=request.agent)
        if self._policy:
            roles = frozenset[str](roles_of(caller, request.agent))
            self._policy.permit(caller.tenant_id, tool.name, agent=request.agent, roles=roles)
        lifecycle.check_callable(tool, agent=request.agent)
        self._threats.check((caller.tenant_id, tool.reference, caller.subject, request.agent))
        executor = self._executor(tool)
        check_isolation(tool, executor)
        executor.check_room()
        wait = await self._rates.take(
            {
                f"{caller.tenant_id}/{tool.name}": permission.rate_limit_per_min,
                f"{caller.tenant_id}/{tool.name}/{caller.subject}": permission.user_rate_limit_per_min,
            }
        )
        if wait is not None:
            limit = permission.rate_limit_per_min or permission.user_rate_limit_per_min
            raise ResourceExhausted(
                f"{tool.name} is called more often than its limit allows", retry_after=wait, tool=tool.name,
                limit=str(limit),
            )  # fmt: skip
        await _check_arguments(tool, request.arguments)
        if self._policy:
            held = tuple(sorted(caller.roles))
            call = Call(tool.name, request.arguments, request.agent, held, request.session_id)
            await self._policy.check(caller.tenant_id, call, override=override, request_id=request.request_id)

    async def run(self, caller: Principal, request: Request, invocation_id: str, printed: Printed) -> Outcome:
        """Runs an admitted request and writes it down, however it ends."""
        began = self._clock.monotonic()
        try:
            with tracer.start_as_current_span("tool.invoke", attributes={"tool": request.tool.reference}):
                outcome = await self._once(caller, request, invocation_id, printed)
        except (asyncio.CancelledError, MeshError) as error:
            status = "CANCELLED" if isinstance(error, asyncio.CancelledError) else _told(error)
            if isinstance(error, ToolSchemaChanged) and self._quarantine:
                await asyncio.shield(self._quarantine(caller, request.tool, error.message))
            failed = Outcome(Status.UNKNOWN, elapsed=self._clock.monotonic() - began)
            await asyncio.shield(self._record(caller, request, invocation_id, failed, status=status))
            raise
        await self._record(caller, request, invocation_id, outcome, status=outcome.status.value)
        return outcome

    async def _once(self, caller: Principal, request: Request, invocation_id: str, printed: Printed) -> Outcome:
        tenant, tool, digest = caller.tenant_id, request.tool, _digest(request)
        key = (tenant, tool.reference, digest)
        fresh = tool.idempotent and tool.cache_ttl > timedelta() and tool.level not in _UNCACHED
        if fresh and (known := self._cache.get(key)):
            return replace(known, cached=True)
        if quota := await self._store.count(tenant, tool, self._clock.now().date()):
            limit = tool.quota.total if quota == "total" else tool.quota.per_day
            message = f"the {quota} quota of {tool.reference} is used up"
            raise ToolQuotaExhausted(message, quota=quota, limit=str(limit))
        work = _work(caller, request, invocation_id)
        printed = telling(self._bus, tenant, work.context, printed)
        outcome = await self._named(tenant, work, digest, invocation_id, printed)
        self._watch(work, outcome)
        if fresh and outcome.status is Status.OK:
            self._cache.put(key, outcome, ttl=tool.cache_ttl)
        return outcome

    def _watch(self, work: Work, outcome: Outcome) -> None:
        caller = caller_of(work)
        if not outcome.replayed and self._threats.saw(caller, outcome.status):
            _, tool, subject, agent = caller
            log.error("tool.threat", tool=tool, subject=subject, agent=agent)
            data = {"tool": tool, "subject": subject, "status": outcome.status.value, "message": outcome.message}
            tell(self._bus, work.tenant, "tool.threat", work.context, number=0, data=data)
            self._attacked(work)

    async def _named(self, tenant: str, work: Work, digest: bytes, invocation_id: str, printed: Printed) -> Outcome:
        """With a request_id: once, whoever asks and however often."""
        executor = self._executor(work.tool)
        if not work.request_id:
            return await self._ran(work, executor, printed)
        named = Named(work.request_id, digest, invocation_id, repeatable(work, executor))
        found = await self._effects.reserve(tenant, named)
        if isinstance(found, Outcome):
            return found
        effect = await self._effects.start(tenant, found, longest=_LONGEST)
        return await self._finished(tenant, effect, work, executor, printed)

    async def _finished(self, tenant: str, effect: Effect, work: Work, executor: Executor, printed: Printed) -> Outcome:
        try:
            outcome = await self._ran(work, executor, printed)
        except asyncio.CancelledError:
            await asyncio.shield(self._effects.leave(tenant, effect, happened=reaches_out(work, executor)))
            raise
        except MeshError:
            await self._effects.leave(tenant, effect, happened=False)
            raise
        await self._effects.finish(tenant, effect, outcome)
        return outcome

    async def _ran(self, work: Work, executor: Executor, printed: Printed) -> Outcome:
        outcome = await self._tried(work, executor, printed)
        return await self._artefacts.whole(work, outcome) if self._artefacts else outcome

    async def _tried(self, work: Work, executor: Executor, printed: Printed) -> Outcome:
        """Tries again what may be tried again, behind the breaker, where a call leaves the mesh."""
        if not reaches_out(work, executor):
            return await _checked(work.tool, await executor.execute(work, printed))
        key = (work.tenant, work.tool.reference)
        for attempt in range(ATTEMPTS):
            if (wait := self._breaker.wait(key)) is not None:
                raise ToolCircuitOpen(f"{work.tool.name} failed too often", retry_after=wait, tool=work.tool.name)
            outcome = await self._behind_breaker(key, work, executor, printed)
            if outcome.status is not Status.UNREACHABLE and not repeatable(work, executor):
                break
            if outcome.status not in _TRANSIENT or attempt == ATTEMPTS - 1:
                break
            await self._pause(jitter(_FIRST_PAUSE.total_seconds() * 2**attempt))
        result = sanitise.data(outcome.result, work.secrets)
        outcome = replace(outcome, result=result, message=sanitise.text(outcome.message, work.secrets))
        return await _checked(work.tool, outcome)

    async def _behind_breaker(self, key: tuple[str, str], work: Work, executor: Executor, printed: Printed) -> Outcome:
        try:
            outcome = await executor.execute(work, printed)
        except BaseException:
            self._breaker.abandoned(key)
            raise
        if outcome.status in _TRANSIENT:
            self._breaker.failed(key)
        else:
            self._breaker.succeeded(key)
        return outcome

    def _executor(self, tool: Tool) -> Executor:
        executor = self._executors.get(tool.exec_mode)
        if executor is None:
            known = ",".join(sorted(self._executors))
            raise ToolModeUnavailable(
                f"this mesh runs {known} tools; {tool.name} is {tool.exec_mode}", exec_mode=tool.exec_mode, known=known
            )
        return executor

    async def _record(
        self, caller: Principal, request: Request, invocation_id: str, outcome: Outcome, *, status: str
    ) -> None:
        if outcome.status in _SECURITY:
            log.warning(
                "tool.security", tool=request.tool.reference, agent=request.agent, subject=caller.subject,
                invocation_id=invocation_id, status=status, isolation=outcome.isolation,
            )  # fmt: skip
        told = "REPLAYED" if outcome.replayed else "CACHED" if outcome.cached else status
        _invocations.add(1, {"tool_name": request.tool.name, "status": told})
        _seconds.record(outcome.elapsed.total_seconds(), {"tool_name": request.tool.name})
        await self._store.record(
            caller.tenant_id,
            Invocation(
                id=invocation_id,
                tool=request.tool.reference,
                agent=request.agent,
                subject=caller.subject,
                session_id=request.session_id,
                turn_id=request.turn_id,
                arguments_digest=_digest(request),
                status=told,
                isolation=outcome.isolation,
                elapsed=outcome.elapsed,
                created_at=self._clock.now(),
            ),
        )


def _work(caller: Principal, request: Request, invocation_id: str) -> Work:
    context = {
        "tenant_id": caller.tenant_id,
        "subject": caller.subject,
        "agent": request.agent,
        "session_id": request.session_id,
        "turn_id": request.turn_id,
        "tool": request.tool.reference,
        "invocation_id": invocation_id,
        "working_dir": "/tmp",  # noqa: S108 - the call's own, inside the sandbox
    }
    return Work(request.tool, request.arguments, caller.tenant_id, request.request_id, context)


def _digest(request: Request) -> bytes:
    said = json.dumps([request.tool.reference, request.agent, dict(request.arguments)], sort_keys=True)
    return hashlib.sha256(said.encode()).digest()


def _told(error: MeshError) -> str:
    return "UNKNOWN" if error.reason_name == "TOOL_OUTCOME_UNKNOWN" else error.reason_name


def _check_grant(caller: Principal, tool: Tool) -> None:
    """A delegated credential reaches only the tools it was narrowed to, by name or by `name@version`."""
    allowed = caller.grant.tools if caller.grant else None
    if allowed is not None and not allowed & {tool.name, tool.reference}:
        raise ToolNotAllowed(f"the credential was not delegated for {tool.name}", tool=tool.name)


async def _check_arguments(tool: Tool, arguments: Mapping[str, Any]) -> None:
    problem = await schemas.told(tool.input_schema, dict(arguments))
    if problem is None:
        return
    path = ".".join(part for part in ("arguments", problem[0]) if part)
    raise ToolArgumentsInvalid(f"{path}: {problem[1]}"[:500], field=path, tool=tool.reference)


async def _checked(tool: Tool, outcome: Outcome) -> Outcome:
    """A result that is not what the tool promised is a failure of the tool."""
    if outcome.status is not Status.OK or not tool.output_schema:
        return outcome
    problem = await schemas.told(tool.output_schema, outcome.result)
    if problem is None:
        return outcome
    path = ".".join(part for part in ("result", problem[0]) if part)
    message = f"{path} does not fit the output schema: {problem[1]}"[:500]
    return replace(outcome, status=Status.USER_ERROR, result=None, message=message)
