"""The registry: immutable versions, found and described, each with a life that is governed and audited."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from services.tools import lifecycle, schemas
from services.tools.errors import FunctionRejected, ToolNotFound, ToolStateChanged, ToolVersionExists
from services.tools.lifecycle import Level, State
from services.tools.permissions import ToolAuthorizer
from services.tools.store import AuditEntry, Function, Schema, Tool, ToolStore
from services.tools.validation import is_async, validate
from shared.clock import Clock
from shared.errors import InvalidArgument
from shared.identity import Principal
from shared.ids import Ids
from shared.log import log

_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which tools; an empty field is no filter."""

    agent: str = ""
    exec_mode: str = ""
    state: str = ""
    tag: str = ""
    query: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """How a version is used; times over its last 500 calls."""

    tool: str
    total: int
    today: int
    by_status: dict[str, int]
    percentiles: tuple[timedelta, timedelta, timedelta]


class Registry:
    """The tools of all tenants, one tenant a call."""

    def __init__(self, store: ToolStore, *, authorizer: ToolAuthorizer, clock: Clock, ids: Ids) -> None:
        self._store = store
        self._authorizer = authorizer
        self._clock = clock
        self._ids = ids

    async def register(self, caller: Principal, tool: Tool) -> Tool:
        """Stores a version. Raises FunctionRejected, InvalidArgument for a schema or example that is none,
        ToolVersionExists.
        """
        _check_schemas(tool)
        function = tool.function
        if function:
            _check_code(caller, tool, function)
            function = replace(function, is_async=is_async(function.code, function.entry_point))
        state = lifecycle.first_state(Level(tool.level))
        pinned = schema_hash(tool.input_schema, tool.output_schema)
        tool = replace(tool, function=function, state=state.value, schema_hash=pinned)
        entry = self._entry(caller, tool, "registered", from_state="", to_state=state, note=tool.changelog)
        if not await self._store.add(caller.tenant_id, tool, entry):
            raise ToolVersionExists(f"{tool.reference} exists; versions never change", tool=tool.reference)
        return tool

    async def find(self, tenant: str, name: str, version: str) -> Tool:
        """One version, the newest without a version. Raises ToolNotFound."""
        return newest(await self._fitting(tenant, name, version))

    async def select(self, tenant: str, name: str, version: str, *, agent: str) -> Tool:
        """The version to call: the newest that may be called; without one the newest. Raises ToolNotFound."""
        found = await self._fitting(tenant, name, version)
        callable_ones = [tool for tool in found if lifecycle.callable_in(tool.state, agent=agent)]
        return newest(callable_ones or found)

    async def _fitting(self, tenant: str, name: str, version: str) -> Sequence[Tool]:
        fitting = [tool for tool in await self._store.versions(tenant, name) if version in ("", tool.version)]
        if not fitting:
            raise ToolNotFound(f"no tool {name}{'@' + version if version else ''}", tool=name)
        return fitting

    async def every(self, tenant: str, wanted: Wanted) -> Sequence[Tool]:
        """Tools by name; with a query the best match first. For an agent only those that it may call."""
        words = frozenset(_WORD.findall(wanted.query.lower()))
        fitting = [tool for tool in await self._store.every(tenant) if self._fits(tool, wanted)]
        if not words:
            return fitting
        ranked = [(score(tool, words), tool) for tool in fitting]
        return [tool for rank, tool in sorted(ranked, key=lambda pair: -pair[0]) if rank]

    async def in_use(self, tenant: str, *, agent: str) -> Sequence[Tool]:
        """The newest version in use of each tool, those an agent may call when one is named."""
        fitting = [tool for tool in await self.every(tenant, Wanted(agent=agent)) if tool.state in lifecycle.IN_USE]
        names = dict.fromkeys(tool.name for tool in fitting)
        return [newest([tool for tool in fitting if tool.name == name]) for name in names]

    def _fits(self, tool: Tool, wanted: Wanted) -> bool:
        return (
            (not wanted.agent or self.may_call(tool, wanted.agent))
            and wanted.exec_mode in ("", tool.exec_mode)
            and wanted.state in ("", tool.state)
            and (not wanted.tag or wanted.tag in tool.tags)
        )

    def may_call(self, tool: Tool, agent: str) -> bool:
        return self._authorizer.permission(tool).admits(agent) and lifecycle.callable_in(tool.state, agent=agent)

    async def move(self, caller: Principal, tool: Tool, wanted: State, *, note: str) -> Tool:
        """Raises ToolStateInvalid, ToolApprovalMissing, ToolStateChanged."""
        lifecycle.check_move(tool, wanted, await self._store.audit(caller.tenant_id, tool.reference))
        return await self._moved(caller, tool, "state", wanted, note)

    async def review(self, caller: Principal, tool: Tool, *, approve: bool, note: str) -> tuple[Tool, int]:
        """The tool and how many approvals are missing. Raises ToolStateInvalid, ToolNotAllowed, ToolStateChanged."""
        audit = await self._store.audit(caller.tenant_id, tool.reference)
        lifecycle.check_review(tool, caller.subject, audit)
        if not approve:
            return await self._moved(caller, tool, "rejected", State.DRAFT, note), 0
        missing = max(0, lifecycle.missing_approvals(tool, audit) - 1)
        return await self._moved(caller, tool, "approved", State.TESTING if missing else State.APPROVED, note), missing

    async def quarantine(self, caller: Principal, tool: Tool, note: str) -> Tool:
        """Takes a tool out of use because what it calls is no longer what was registered."""
        return await self._moved(caller, tool, "quarantined", State.QUARANTINED, note)

    async def _moved(self, caller: Principal, tool: Tool, action: str, to_state: State, note: str) -> Tool:
        entry = self._entry(caller, tool, action, from_state=tool.state, to_state=to_state, note=note)
        if not await self._store.move(caller.tenant_id, tool, entry):
            raise ToolStateChanged(f"{tool.reference} was moved meanwhile", tool=tool.reference)
        return replace(tool, state=to_state.value)

    async def audit(self, tenant: str, tool: Tool) -> Sequence[AuditEntry]:
        return await self._store.audit(tenant, tool.reference)

    async def usage(self, tenant: str, tool: Tool) -> Usage:
        calls = await self._store.invocations(tenant, tool.reference)
        total, today = await self._store.counted(tenant, tool.reference, self._clock.now().date())
        by_status: dict[str, int] = {}
        for one in calls:
            by_status[one.status] = by_status.get(one.status, 0) + 1
        times = sorted(one.elapsed for one in calls)
        cuts = tuple(_percentile(times, share) for share in (0.5, 0.95, 0.99))
        return Usage(tool.reference, total, today, by_status, cuts)  # type: ignore[arg-type] # three of them

    def _entry(
        self, caller: Principal, tool: Tool, action: str, *, from_state: str, to_state: State, note: str
    ) -> AuditEntry:
        return AuditEntry(
            id=self._ids.new("aud"),
            tool=tool.reference,
            action=action,
            actor=caller.subject,
            from_state=from_state,
            to_state=to_state.value,
            note=note,
            created_at=self._clock.now(),
        )


def newest(tools: Sequence[Tool]) -> Tool:
    """By number and not by text."""
    return max(tools, key=lambda tool: tuple(int(part) for part in tool.version.split(".")))


def score(tool: Tool, words: frozenset[str]) -> int:
    """How well a tool answers to words: its name counts most, then its tags, then its description."""
    name, described = tool.name.lower(), frozenset(_WORD.findall(tool.description.lower()))
    tags = frozenset(word for tag in tool.tags for word in _WORD.findall(tag.lower()))
    return sum(4 * (word in name) + 2 * (word in tags) + (word in described) for word in words)


def schema_hash(input_schema: Schema, output_schema: Schema | None) -> str:
    """What pins a tool to what was reviewed."""
    said = json.dumps([dict(input_schema), dict(output_schema) if output_schema else None], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()


def _check_schemas(tool: Tool) -> None:
    schemas.check(tool.input_schema, "tool.input_schema")
    if tool.output_schema:
        schemas.check(tool.output_schema, "tool.output_schema")
    for place, example in enumerate(tool.examples):
        if problem := schemas.problem(tool.input_schema, example["arguments"]):
            path = ".".join(part for part in (f"tool.examples.{place}.arguments", problem[0]) if part)
            raise InvalidArgument(f"{path}: {problem[1]}"[:500], field=path)


def _check_code(caller: Principal, tool: Tool, function: Function) -> None:
    if not function.safe_mode:
        return
    try:
        validate(function.code, function.entry_point, allowed_imports=function.allowed_imports)
    except FunctionRejected as error:
        log.warning("function.rejected", tool=tool.reference, subject=caller.subject, why=error.message)
        raise


def _percentile(times: Sequence[timedelta], share: float) -> timedelta:
    return times[min(len(times) - 1, int(len(times) * share))] if times else timedelta()
