"""The real store: the schema `policy`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import asyncpg

from services.policy.document import read
from services.policy.store import EVERY_TENANT, Attachment, Enforced, StoredBundle, Violation, ViolationFilter
from shared.errors import Unavailable
from shared.monitors.rules import Severity
from shared.paging import Page
from shared.postgres import Database, load_queries
from shared.tool_permissions import ToolPermission

_SQL = load_queries(Path(__file__).with_name("queries.sql"))
_CHANNEL: Final = "policy_enforced"
_read = lru_cache(maxsize=512)(read)  # documents never change


class PostgresPolicyStore:
    """Bundles, labels and violations."""

    def __init__(self, database: Database, dsn: str) -> None:
        self._database = database
        self._dsn = dsn

    async def add(self, tenant: str, bundle: StoredBundle) -> bool:
        async with self._database.tenant(tenant) as connection:
            added = await connection.fetchval(
                _SQL["add_bundle"], tenant, bundle.name, bundle.version, bundle.digest, bundle.document,
                bundle.created_at, bundle.signature, bundle.signing_key,
            )  # fmt: skip
            if added is None:
                return False
            for label in bundle.labels:
                await connection.execute(_SQL["put_label"], tenant, bundle.name, label, bundle.version)
            await connection.fetchval(_SQL["bump_revision"])
        return True

    async def bundles(self, tenant: str, *, name: str = "") -> Sequence[StoredBundle]:
        async with self._database.tenant(tenant) as connection:
            return [_bundle(row) for row in await connection.fetch(_SQL["get_bundles"], name)]

    async def label(self, tenant: str, name: str, version: str, *, label: str, remove: bool) -> bool:
        async with self._database.tenant(tenant) as connection:
            if not await connection.fetchval(_SQL["has_version"], name, version):
                return False
            if remove:
                await connection.execute(_SQL["drop_label"], name, label, version)
            else:
                await connection.execute(_SQL["put_label"], tenant, name, label, version)
            await connection.fetchval(_SQL["bump_revision"])
        return True

    async def attach(self, tenant: str, attachment: Attachment) -> bool:
        async with self._database.tenant(tenant) as connection:
            if not await connection.fetchval(_SQL["has_version"], attachment.name, attachment.version):
                return False
            await connection.execute(
                _SQL["put_attachment"], tenant, attachment.agent, attachment.name, attachment.version,
                attachment.profile,
            )  # fmt: skip
            await connection.fetchval(_SQL["bump_revision"])
        return True

    async def detach(self, tenant: str, agent: str, name: str) -> None:
        async with self._database.tenant(tenant) as connection:
            await connection.execute(_SQL["drop_attachment"], agent, name)
            await connection.fetchval(_SQL["bump_revision"])

    async def attachments(self, tenant: str) -> Sequence[Attachment]:
        async with self._database.tenant(tenant) as connection:
            return [_attachment(row) for row in await connection.fetch(_SQL["attachments"])]

    async def changes(self, *, at_least_every: timedelta) -> AsyncIterator[None]:
        heard, lost = asyncio.Event(), asyncio.Event()

        def ended(_: object) -> None:
            lost.set()
            heard.set()

        try:
            connection = await asyncpg.connect(self._dsn)
        except (OSError, asyncpg.PostgresError) as error:
            raise Unavailable("the database does not answer", dependency="postgres") from error
        try:
            connection.add_termination_listener(ended)
            await connection.add_listener(_CHANNEL, lambda *_: heard.set())
            while not lost.is_set():
                heard.clear()
                yield
                with suppress(TimeoutError):
                    await asyncio.wait_for(heard.wait(), at_least_every.total_seconds())
            raise Unavailable("the database closed the connection", dependency="postgres")
        finally:
            await connection.close()

    async def labelled(self, tenant: str, label: str) -> Sequence[StoredBundle]:
        async with self._database.tenant(tenant) as connection:
            return [_bundle(row) for row in await connection.fetch(_SQL["labelled"], label)]

    async def enforced(self, tenant: str = EVERY_TENANT) -> Enforced:
        tenants: dict[str, list[StoredBundle]] = {}
        attached: dict[str, list[tuple[Attachment, StoredBundle]]] = {}
        async with self._database.tenant(tenant) as connection:
            # The number first: rows that are newer than it come again with the next.
            revision: int = await connection.fetchval(_SQL["revision"])
            for row in await connection.fetch(_SQL["labelled"], "production"):
                tenants.setdefault(row["tenant_id"], []).append(_bundle(row))
            for row in await connection.fetch(_SQL["attached"]):
                attached.setdefault(row["tenant_id"], []).append((_attachment(row), _bundle(row)))
            trying = await connection.fetch(_SQL["trying"]) if tenant == EVERY_TENANT else ()
            rows = await connection.fetch(_SQL["permissions"]) if tenant == EVERY_TENANT else ()
        permissions: dict[str, list[ToolPermission]] = {}
        for row in rows:
            permissions.setdefault(row["tenant_id"], []).append(_permission(row))
        return Enforced(revision, tenants, attached, frozenset(row["tenant_id"] for row in trying), permissions)

    async def set_permission(self, tenant: str, permission: ToolPermission) -> None:
        async with self._database.tenant(tenant) as connection:
            await connection.execute(
                _SQL["set_permission"], tenant, permission.tool, list(permission.roles), list(permission.agents)
            )
            await connection.fetchval(_SQL["bump_revision"])

    async def permissions(self, tenant: str) -> Sequence[ToolPermission]:
        async with self._database.tenant(tenant) as connection:
            return [_permission(row) for row in await connection.fetch(_SQL["permissions"])]

    async def record(self, tenant: str, violations: Sequence[Violation]) -> int:
        async with self._database.tenant(tenant) as connection:
            written = [
                await connection.fetchval(
                    _SQL["record_violation"], tenant, one.id, one.session_id, one.turn_id, one.agent, one.monitor_name,
                    one.severity.value, one.violation_type, one.rationale, dict(one.meta), one.created_at, one.shadow,
                )
                for one in violations
            ]  # fmt: skip
        return sum(found is not None for found in written)

    async def violations(
        self, tenant: str, chosen: ViolationFilter, *, newest_first: bool, page: Page
    ) -> Sequence[Violation]:
        seen = page.place
        severity = chosen.severity.value if chosen.severity else ""
        query = _SQL["newest_violations" if newest_first else "oldest_violations"]
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(
                query,
                chosen.session_id,
                severity,
                chosen.monitor_name,
                chosen.start,
                chosen.end,
                *seen,
                page.size + 1,
                chosen.shadow,
            )
        return [_violation(row) for row in rows]


def _bundle(row: Any) -> StoredBundle:
    return StoredBundle(
        name=row["name"],
        version=row["version"],
        digest=row["digest"],
        document=row["document"],
        content=_read(row["document"]),
        created_at=row["created_at"],
        labels=tuple(row["labels"]),
        signature=row["signature"],
        signing_key=row["signing_key"],
    )


def _attachment(row: Any) -> Attachment:
    return Attachment(row["agent_name"], row["name"], row["version"], row["profile"])


def _permission(row: Any) -> ToolPermission:
    return ToolPermission(row["tool"], tuple(row["roles"]), tuple(row["agents"]))


def _violation(row: Any) -> Violation:
    return Violation(
        id=row["id"],
        session_id=row["session_id"],
        turn_id=row["turn_id"],
        agent=row["agent_name"],
        monitor_name=row["monitor_name"],
        severity=Severity(row["severity"]),
        violation_type=row["violation_type"],
        rationale=row["rationale"],
        meta=row["meta"],
        created_at=row["created_at"],
        shadow=row["shadow"],
    )
