"""The real store: the schema `policy`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from services.policy.document import parse
from services.policy.store import Enforced, StoredBundle, Violation, ViolationFilter
from shared.monitors.rules import Severity
from shared.paging import Page
from shared.postgres import Database, load_queries

_SQL = load_queries(Path(__file__).with_name("queries.sql"))
_EVERY_TENANT: Final = "*"


class PostgresPolicyStore:
    """Bundles, labels and violations."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, tenant: str, bundle: StoredBundle) -> bool:
        async with self._database.tenant(tenant) as connection:
            added = await connection.fetchval(
                _SQL["add_bundle"], tenant, bundle.name, bundle.version, bundle.digest, bundle.document,
                bundle.created_at,
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

    async def revision(self) -> int:
        async with self._database.transaction() as connection:
            found: int = await connection.fetchval(_SQL["revision"])
        return found

    async def enforced(self) -> Enforced:
        revision = await self.revision()
        tenants: dict[str, list[StoredBundle]] = {}
        async with self._database.tenant(_EVERY_TENANT) as connection:
            for row in await connection.fetch(_SQL["enforced"]):
                tenants.setdefault(row["tenant_id"], []).append(_bundle(row))
        return Enforced(revision, tenants)

    async def record(self, tenant: str, violations: Sequence[Violation]) -> int:
        async with self._database.tenant(tenant) as connection:
            written = [
                await connection.fetchval(
                    _SQL["record_violation"], tenant, one.id, one.session_id, one.turn_id, one.agent, one.monitor_name,
                    one.severity.value, one.violation_type, one.rationale, dict(one.meta), one.created_at,
                )
                for one in violations
            ]  # fmt: skip
        return sum(found is not None for found in written)

    async def violations(
        self, tenant: str, chosen: ViolationFilter, *, newest_first: bool, page: Page
    ) -> Sequence[Violation]:
        seen: tuple[datetime | None, str] = (None, "")
        if page.cursor:
            seen = (datetime.fromisoformat(page.cursor[0]), page.cursor[1])
        severity = chosen.severity.value if chosen.severity else ""
        query = _SQL["newest_violations" if newest_first else "oldest_violations"]
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(
                query, chosen.session_id, severity, chosen.monitor_name, chosen.start, chosen.end, *seen, page.size + 1
            )
        return [_violation(row) for row in rows]


def _bundle(row: Any) -> StoredBundle:
    return StoredBundle(
        name=row["name"],
        version=row["version"],
        digest=row["digest"],
        document=row["document"],
        rules=parse(row["document"]),
        created_at=row["created_at"],
        labels=tuple(row["labels"]),
    )


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
    )
