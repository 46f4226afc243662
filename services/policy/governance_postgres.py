"""Governance in the schema `policy`: overrides, the audit trail, decisions and pseudonyms."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from services.policy.archive import Part
from services.policy.audit import AuditFilter
from services.policy.audit_entry import FIRST_SEAL, AuditEntry
from services.policy.overrides import Override
from services.policy.simulation import Decision
from services.policy.store import EVERY_TENANT
from shared.monitors.rules import Target
from shared.postgres import Database, load_queries

_SQL = load_queries(Path(__file__).with_name("governance.sql"))


class PostgresGovernance:
    """Overrides, the audit trail and decisions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add_override(self, tenant: str, override: Override) -> None:
        async with self._database.tenant(tenant) as connection:
            await connection.execute(
                _SQL["add_override"], tenant, override.id, list(override.rules), override.agent, override.session_id,
                override.reason, override.issued_by, override.created_at, override.expires_at, override.tool,
                override.request_id,
            )  # fmt: skip

    async def override(self, tenant: str, override_id: str) -> Override | None:
        async with self._database.tenant(tenant) as connection:
            row = await connection.fetchrow(_SQL["override"], override_id)
        return _override(row) if row else None

    async def overrides(self, tenant: str) -> Sequence[Override]:
        async with self._database.tenant(tenant) as connection:
            return [_override(row) for row in await connection.fetch(_SQL["overrides"])]

    async def count_use(self, tenant: str, override_id: str) -> None:
        async with self._database.tenant(tenant) as connection:
            await connection.execute(_SQL["count_use"], override_id)

    async def revoke(self, tenant: str, override_id: str, *, at: datetime) -> None:
        async with self._database.tenant(tenant) as connection:
            await connection.execute(_SQL["revoke"], override_id, at)

    async def append(
        self,
        tenant: str,
        actor: str,
        act: str,
        subject: str,
        detail: Mapping[str, object],
        *,
        at: datetime,
        key: bytes,
    ) -> AuditEntry:
        async with self._database.tenant(tenant) as connection:
            head = await connection.fetchrow(_SQL["lock_head"], tenant, FIRST_SEAL)
            entry = AuditEntry(
                head["sequence"] + 1 if head else 1, actor, act, subject, dict(detail), at.astimezone(UTC)
            )
            entry = replace(entry, seal=entry.sealed_after(head["seal"] if head else FIRST_SEAL, key))
            await connection.execute(
                _SQL["add_entry"],
                tenant,
                entry.sequence,
                actor,
                act,
                subject,
                dict(detail),
                entry.created_at,
                entry.seal,
            )
            await connection.execute(_SQL["move_head"], entry.sequence, entry.seal)
        return entry

    async def entries(self, tenant: str, chosen: AuditFilter, *, after: int, limit: int) -> Sequence[AuditEntry]:
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(
                _SQL["entries"], chosen.actor, chosen.act, chosen.start, chosen.end, chosen.archived, after, limit
            )
        return [_entry(row) for row in rows]

    async def archive(self, tenant: str, *, before: datetime) -> int:
        async with self._database.tenant(tenant) as connection:
            done: str = await connection.execute(_SQL["archive"], before)
        return int(done.rpartition(" ")[2])

    async def head(self, tenant: str) -> tuple[int, str]:
        async with self._database.tenant(tenant) as connection:
            row = await connection.fetchrow(_SQL["head"])
        return (row["sequence"], row["seal"]) if row else (0, FIRST_SEAL)

    async def move_to(self, tenant: str, part: Part) -> None:
        async with self._database.tenant(tenant) as connection:
            await connection.execute(_SQL["add_part"], tenant, part.first, part.last, part.name, part.digest)
            await connection.execute(_SQL["forget_part"], part.first, part.last)

    async def parts(self, tenant: str) -> Sequence[Part]:
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(_SQL["parts"])
        return [Part(row["first_sequence"], row["last_sequence"], row["name"], row["digest"]) for row in rows]

    async def audited_tenants(self) -> Sequence[str]:
        async with self._database.tenant(EVERY_TENANT) as connection:
            return [row["tenant_id"] for row in await connection.fetch(_SQL["audited_tenants"])]

    async def keep(self, tenant: str, decisions: Sequence[Decision]) -> int:
        async with self._database.tenant(tenant) as connection:
            kept = [
                await connection.fetchval(
                    _SQL["keep_decision"], tenant, one.id, one.target.value, one.agent, one.session_id, one.allowed,
                    one.unchanged, one.sealed, one.created_at, one.truncated, list(one.bundles), list(one.rules),
                )
                for one in decisions
            ]  # fmt: skip
        return sum(found is not None for found in kept)

    async def tell(self, tenant: str, decision_id: str, *, harmful: bool) -> Decision | None:
        async with self._database.tenant(tenant) as connection:
            row = await connection.fetchrow(_SQL["tell_decision"], decision_id, harmful)
        return _decision(row) if row else None

    async def decisions(
        self, tenant: str, *, start: datetime | None, end: datetime | None, limit: int
    ) -> Sequence[Decision]:
        async with self._database.tenant(tenant) as connection:
            return [_decision(row) for row in await connection.fetch(_SQL["decisions"], start, end, limit)]

    async def forget_decisions(self, tenant: str, *, before: datetime) -> int:
        async with self._database.tenant(tenant) as connection:
            done: str = await connection.execute(_SQL["forget_decisions"], before)
        return int(done.rpartition(" ")[2])

    async def keep_values(self, tenant: str, sealed: Mapping[str, bytes]) -> None:
        async with self._database.tenant(tenant) as connection:
            await connection.executemany(
                _SQL["keep_value"], [(tenant, name, value) for name, value in sorted(sealed.items())]
            )

    async def values(self, tenant: str, pseudonyms: Collection[str]) -> Mapping[str, bytes]:
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(_SQL["values"], list(pseudonyms))
        return {row["name"]: row["sealed"] for row in rows}


def _decision(row: Any) -> Decision:
    return Decision(
        id=row["id"],
        target=Target(row["target"]),
        agent=row["agent_name"],
        session_id=row["session_id"],
        allowed=row["allowed"],
        unchanged=row["unchanged"],
        created_at=row["created_at"],
        sealed=row["sealed"],
        harmful=row["harmful"],
        truncated=row["truncated"],
        bundles=tuple(row["bundles"]),
        rules=tuple(row["rules"]),
    )


def _override(row: Any) -> Override:
    return Override(
        id=row["id"],
        rules=tuple(row["rules"]),
        agent=row["agent_name"],
        session_id=row["session_id"],
        reason=row["reason"],
        issued_by=row["issued_by"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        uses=row["uses"],
        tool=row["tool"],
        request_id=row["request_id"],
    )


def _entry(row: Any) -> AuditEntry:
    return AuditEntry(
        sequence=row["sequence"],
        actor=row["actor"],
        act=row["act"],
        subject=row["subject"],
        detail=row["detail"],
        created_at=row["created_at"],
        seal=row["seal"],
    )
