"""The real store: the schema `tools`. A version is one JSON document; what runs it is never changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from services.tools.store import Function, Invocation, Tool
from shared.postgres import Database, load_queries

_SQL = load_queries(Path(__file__).with_name("queries.sql"))


class PostgresToolStore:
    """One row a version, one row a call."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, tenant: str, tool: Tool) -> bool:
        async with self._database.tenant(tenant) as connection:
            added = await connection.fetchval(
                _SQL["add"], tenant, tool.name, tool.version, _definition(tool), tool.created_at
            )
        return added is not None

    async def versions(self, tenant: str, name: str) -> Sequence[Tool]:
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(_SQL["versions"], name)
        return [_tool(row["definition"], row["created_at"]) for row in rows]

    async def every(self, tenant: str) -> Sequence[Tool]:
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(_SQL["every"])
        return [_tool(row["definition"], row["created_at"]) for row in rows]

    async def record(self, tenant: str, invocation: Invocation) -> None:
        one = invocation
        async with self._database.tenant(tenant) as connection:
            await connection.execute(
                _SQL["record"], tenant, one.id, one.tool, one.agent, one.subject, one.session_id, one.turn_id,
                one.arguments_digest, one.status, one.isolation, one.elapsed, one.created_at,
            )  # fmt: skip

    async def invocations(self, tenant: str, tool: str) -> Sequence[Invocation]:
        async with self._database.tenant(tenant) as connection:
            return [Invocation(**row) for row in await connection.fetch(_SQL["invocations"], tool)]


def _definition(tool: Tool) -> dict[str, Any]:
    data = asdict(tool)
    del data["created_at"]
    if tool.function:
        data["function"]["timeout"] = tool.function.timeout.total_seconds()
    return data


def _tool(data: dict[str, Any], created_at: datetime) -> Tool:
    function = data.pop("function")
    return Tool(
        **{**data, "allowed_agents": tuple(data["allowed_agents"])},
        function=Function(
            **{
                **function,
                "timeout": timedelta(seconds=function["timeout"]),
                "allowed_imports": tuple(function["allowed_imports"]),
            }
        )
        if function
        else None,
        created_at=created_at,
    )
