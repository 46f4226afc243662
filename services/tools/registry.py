"""The registry: register, find, and invoke: authorise, validate, isolate, record."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from services.tools import schemas
from services.tools.answer import Status
from services.tools.errors import (
    ToolArgumentsInvalid,
    ToolModeUnavailable,
    ToolNotAllowed,
    ToolNotFound,
    ToolVersionExists,
)
from services.tools.rates import Rates
from services.tools.sandbox import FunctionCall, Outcome, Printed, Sandbox
from services.tools.store import Invocation, Tool, ToolStore
from services.tools.validation import validate
from shared.clock import Clock
from shared.errors import MeshError, ResourceExhausted
from shared.identity import Principal
from shared.ids import Ids
from shared.telemetry import meter, tracer

PYTHON: Final = "python"
EVERY_AGENT: Final = "*"
_TESTERS: Final = frozenset({"admin", "operator"})
_invocations = meter.create_counter("tool_invocations_total", description="calls, by tool_name and status")


@dataclass(frozen=True, slots=True)
class Request:
    """Who wants what done, for whom."""

    tool: Tool
    arguments: Mapping[str, object]
    agent: str = ""
    session_id: str = ""
    turn_id: str = ""


class Registry:
    """The tools of all tenants, one tenant a call."""

    def __init__(self, store: ToolStore, sandbox: Sandbox, *, clock: Clock, ids: Ids) -> None:
        self._store = store
        self._sandbox = sandbox
        self._clock = clock
        self._ids = ids
        self._rates = Rates(clock)

    async def register(self, tenant: str, tool: Tool) -> Tool:
        """Stores a version. Raises FunctionRejected, InvalidArgument for a schema that is none, ToolVersionExists."""
        schemas.check(tool.input_schema, "tool.input_schema")
        if tool.output_schema:
            schemas.check(tool.output_schema, "tool.output_schema")
        if tool.function:
            validate(tool.function.code, tool.function.entry_point, allowed_imports=tool.function.allowed_imports)
        if not await self._store.add(tenant, tool):
            raise ToolVersionExists(f"{tool.reference} exists; versions never change", tool=tool.reference)
        return tool

    async def find(self, tenant: str, name: str, version: str) -> Tool:
        """One version, the newest without a version. Raises ToolNotFound."""
        versions = await self._store.versions(tenant, name)
        fitting = [tool for tool in versions if version in ("", tool.version)]
        if not fitting:
            raise ToolNotFound(f"no tool {name}{'@' + version if version else ''}", tool=name)
        return max(fitting, key=lambda tool: tuple(int(part) for part in tool.version.split(".")))

    async def every(self, tenant: str, *, agent: str, exec_mode: str) -> Sequence[Tool]:
        """Tools by name; those an agent may call, when one is named."""
        tools = await self._store.every(tenant)
        return [tool for tool in tools if (not agent or _may_call(tool, agent)) and exec_mode in ("", tool.exec_mode)]

    def admit(self, caller: Principal, request: Request) -> None:
        """Everything that can be said before it runs; counts it against the rate. Raises ToolNotAllowed,
        ToolModeUnavailable, ToolArgumentsInvalid and ResourceExhausted.
        """
        tool = request.tool
        allowed = _may_call(tool, request.agent) if request.agent else bool(_TESTERS & caller.roles)
        if not allowed:
            raise ToolNotAllowed(
                f"{request.agent or 'the caller'} may not call {tool.name}", agent=request.agent, tool=tool.name
            )
        if tool.exec_mode != PYTHON or tool.function is None:
            raise ToolModeUnavailable(
                f"this version of the mesh runs {PYTHON} tools; {tool.name} is {tool.exec_mode}",
                exec_mode=tool.exec_mode,
                known=PYTHON,
            )
        _check_arguments(tool, request.arguments)
        self._sandbox.check_room()
        wait = self._rates.take((caller.tenant_id, caller.subject, tool.name), per_minute=tool.rate_limit_per_min)
        if wait is not None:
            limit = str(tool.rate_limit_per_min)
            message = f"{tool.name} may be called {limit} times a minute"
            raise ResourceExhausted(message, retry_after=wait, tool=tool.name, limit=limit)

    async def run(self, caller: Principal, request: Request, invocation_id: str, printed: Printed) -> Outcome:
        """Runs an admitted request and writes it down, however it ends. Raises SandboxUnavailable."""
        function = request.tool.function
        assert function is not None  # noqa: S101 - admitted
        call = FunctionCall(
            function.code, function.entry_point, request.arguments, function.memory_limit_mib, function.timeout
        )
        began = self._clock.monotonic()
        try:
            with tracer.start_as_current_span("tool.invoke", attributes={"tool": request.tool.reference}):
                outcome = _checked(request.tool, await self._sandbox.run(call, printed))
        except (asyncio.CancelledError, MeshError) as error:
            status = "CANCELLED" if isinstance(error, asyncio.CancelledError) else "UNAVAILABLE"
            elapsed = self._clock.monotonic() - began
            await asyncio.shield(self._record(caller, request, invocation_id, status=status, elapsed=elapsed))
            raise
        status, elapsed = outcome.status.value, outcome.elapsed
        await self._record(caller, request, invocation_id, status=status, elapsed=elapsed, isolation=outcome.isolation)
        return outcome

    async def _record(
        self,
        caller: Principal,
        request: Request,
        invocation_id: str,
        *,
        status: str,
        elapsed: timedelta,
        isolation: str = "",
    ) -> None:
        _invocations.add(1, {"tool_name": request.tool.name, "status": status})
        digest = hashlib.sha256(json.dumps(dict(request.arguments), sort_keys=True).encode()).digest()
        await self._store.record(
            caller.tenant_id,
            Invocation(
                id=invocation_id,
                tool=request.tool.reference,
                agent=request.agent,
                subject=caller.subject,
                session_id=request.session_id,
                turn_id=request.turn_id,
                arguments_digest=digest,
                status=status,
                isolation=isolation,
                elapsed=elapsed,
                created_at=self._clock.now(),
            ),
        )

    def new_invocation(self) -> str:
        return self._ids.new("inv")


def _may_call(tool: Tool, agent: str) -> bool:
    return EVERY_AGENT in tool.allowed_agents or agent.partition("@")[0] in tool.allowed_agents


def _check_arguments(tool: Tool, arguments: Mapping[str, object]) -> None:
    problem = schemas.problem(tool.input_schema, dict(arguments))
    if problem is None:
        return
    path = ".".join(part for part in ("arguments", problem[0]) if part)
    raise ToolArgumentsInvalid(f"{path}: {problem[1]}"[:500], field=path, tool=tool.reference)


def _checked(tool: Tool, outcome: Outcome) -> Outcome:
    """A result that is not what the tool promised is a failure of the function."""
    if outcome.status is not Status.OK or not tool.output_schema:
        return outcome
    problem = schemas.problem(tool.output_schema, outcome.result)
    if problem is None:
        return outcome
    path = ".".join(part for part in ("result", problem[0]) if part)
    message = f"{path} does not fit the output schema: {problem[1]}"[:500]
    return replace(outcome, status=Status.USER_ERROR, result=None, message=message)
