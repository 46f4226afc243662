"""The real store: the schema `tools`. A version is one JSON document; what runs it is never changed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from services.tools.store import AuditEntry, Effect, Function, Invocation, Quota, Tool
from shared.batches import TenantBatches
from shared.postgres import REFUSED, Database, load_queries

_SQL = load_queries(Path(__file__).with_name("queries.sql"))
_TEXT: Final = "json"
_MOST: Final = 64


class PostgresToolStore:
    """One row a version, one row a call, one row a named effect; calls that end together are written together."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._recorded = TenantBatches(self._record, most=_MOST, faults=REFUSED)

    async def add(self, tenant: str, tool: Tool, entry: AuditEntry) -> bool:
        async with self._database.tenant(tenant) as connection:
            added = await connection.fetchval(
                _SQL["add"], tenant, tool.name, tool.version, _definition(tool), tool.created_at
            )
            if added is not None:
                await connection.execute(_SQL["set_state"], tenant, tool.reference, tool.state)
                await connection.execute(_SQL["log"], tenant, *astuple(entry))
        return added is not None

    async def versions(self, tenant: str, name: str) -> Sequence[Tool]:
        return [_tool(**row) for row in await self._database.statement(_SQL["versions"], tenant, name)]

    async def every(self, tenant: str) -> Sequence[Tool]:
        async with self._database.tenant(tenant) as connection:
            return [_tool(**row) for row in await connection.fetch(_SQL["every"])]

    async def move(self, tenant: str, tool: Tool, entry: AuditEntry) -> bool:
        async with self._database.tenant(tenant) as connection:
            moved = await connection.fetchval(_SQL["move"], tenant, tool.reference, entry.from_state, entry.to_state)
            if moved is not None:
                await connection.execute(_SQL["log"], tenant, *astuple(entry))
        return moved is not None

    async def audit(self, tenant: str, tool: str) -> Sequence[AuditEntry]:
        async with self._database.tenant(tenant) as connection:
            return [AuditEntry(**row) for row in await connection.fetch(_SQL["audit"], tool)]

    async def count(self, tenant: str, tool: Tool, day: date) -> str:
        quota = tool.quota
        (row,) = await self._database.statement(_SQL["count"], tenant, tool.reference, day, quota.total, quota.per_day)
        full: str = row["full_quota"]
        return full

    async def counted(self, tenant: str, tool: str, day: date) -> tuple[int, int]:
        async with self._database.tenant(tenant) as connection:
            found = await connection.fetchrow(_SQL["counted"], tool, day)
        assert found is not None  # noqa: S101 - a sum is always there
        return found["total"], found["today"]

    async def reserve(self, tenant: str, effect: Effect) -> Effect:
        (found,) = await self._database.statement(_SQL["reserve"], tenant, *_effect_row(effect))
        return Effect(**{**found, "outcome": _told(found["outcome"])})

    async def take_over(self, tenant: str, seen: Effect, effect: Effect) -> bool:
        async with self._database.tenant(tenant) as connection:
            taken = await connection.fetchval(
                _SQL["take_over"], effect.request_id, effect.invocation_id, effect.step, effect.leased_until,
                seen.invocation_id, seen.step, seen.leased_until,
            )  # fmt: skip
        return taken is not None

    async def advance(self, tenant: str, effect: Effect) -> bool:
        (row,) = await self._database.statement(
            _SQL["advance"], tenant, effect.request_id, effect.invocation_id, effect.step, effect.leased_until,
            _outcome(effect),
        )  # fmt: skip
        return row["written"] is not None

    async def forget_effects(self, tenant: str, before: datetime) -> int:
        async with self._database.tenant(tenant) as connection:
            said = await connection.execute(_SQL["forget_effects"], before)
        return int(said.rpartition(" ")[2])

    async def record(self, tenant: str, invocation: Invocation) -> None:
        await self._recorded.ask(tenant, invocation)

    async def _record(self, tenant: str, invocations: Sequence[Invocation]) -> Sequence[None]:
        await self._database.statement(_SQL["record"], tenant, [_invocation_row(tenant, one) for one in invocations])
        return [None] * len(invocations)

    async def invocations(self, tenant: str, tool: str) -> Sequence[Invocation]:
        async with self._database.tenant(tenant) as connection:
            return [Invocation(**row) for row in await connection.fetch(_SQL["invocations"], tool)]


def _outcome(effect: Effect) -> dict[str, Any] | None:
    """Its text where it holds U+0000, which jsonb cannot."""
    if effect.outcome is None:
        return None
    text = json.dumps(dict(effect.outcome))
    return {_TEXT: text} if "\\u0000" in text else dict(effect.outcome)


def _told(kept: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    if kept is None or _TEXT not in kept:
        return kept
    told: dict[str, Any] = json.loads(kept[_TEXT])
    return told


def _effect_row(effect: Effect) -> tuple[object, ...]:
    return (
        effect.request_id, effect.digest, effect.invocation_id, effect.step, effect.leased_until, _outcome(effect),
        effect.created_at,
    )  # fmt: skip


def _invocation_row(tenant: str, one: Invocation) -> tuple[object, ...]:
    """A row of the table, its columns in their order."""
    return (
        tenant, one.id, one.tool, one.agent, one.subject, one.session_id, one.turn_id, one.arguments_digest, one.status,
        one.isolation, one.elapsed, one.created_at,
    )  # fmt: skip


def _definition(tool: Tool) -> dict[str, Any]:
    data = asdict(tool)
    del data["created_at"], data["state"]
    data["cache_ttl"] = tool.cache_ttl.total_seconds()
    if tool.function:
        data["function"]["timeout"] = tool.function.timeout.total_seconds()
    return data


def _tool(definition: dict[str, Any], created_at: datetime, state: str) -> Tool:
    """Fields that a version was stored without have their defaults."""
    data = dict(definition)
    function = data.pop("function")
    for name in ("allowed_agents", "allowed_roles", "examples", "tags"):
        data[name] = tuple(data.get(name, ()))
    if "cache_ttl" in data:
        data["cache_ttl"] = timedelta(seconds=data["cache_ttl"])
    if "quota" in data:
        data["quota"] = Quota(**data["quota"])
    data |= {"function": _function(function) if function else None, "created_at": created_at, "state": state}
    return Tool(**data)


def _function(data: dict[str, Any]) -> Function:
    lists = {name: tuple(data.get(name, ())) for name in ("allowed_imports", "network")}
    return Function(**data | lists | {"timeout": timedelta(seconds=data["timeout"])})
