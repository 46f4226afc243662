"""Risks in the schema `policy`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from services.policy.risk_archive import Kind, OldRow
from services.policy.risks import MITIGATIONS, Enforced, EnforcementRule, Mitigation, RiskEvent, TargetKind
from shared.postgres import Database, load_queries

_SQL = load_queries(Path(__file__).with_name("risks.sql"))
_OLD: Final = {Kind.EVENT: "old_events", Kind.ACTION: "old_actions", Kind.MITIGATION: "old_mitigations"}


class PostgresRisks:
    """Events, mitigations, rules, actions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add_event(self, tenant: str, event: RiskEvent) -> None:
        async with self._database.tenant(tenant) as connection:
            await connection.execute(
                _SQL["add_event"], tenant, event.id, event.risk, event.value, event.agent, event.session_id,
                dict(event.detail), event.created_at,
            )  # fmt: skip

    async def total(self, tenant: str, risk: str, kind: TargetKind, target: str, *, since: datetime) -> float:
        async with self._database.tenant(tenant) as connection:
            found: float = await connection.fetchval(_SQL["total"], risk, kind.value, target, since)
        return found

    async def counts(self, tenant: str, *, since: datetime) -> Mapping[str, int]:
        async with self._database.tenant(tenant) as connection:
            return {row["risk"]: row["events"] for row in await connection.fetch(_SQL["counts"], since)}

    async def add_mitigation(self, tenant: str, mitigation: Mitigation) -> None:
        async with self._database.tenant(tenant) as connection:
            await connection.execute(
                _SQL["add_mitigation"], tenant, mitigation.id, mitigation.risk, mitigation.text, mitigation.owner,
                mitigation.created_at,
            )  # fmt: skip

    async def mitigations(self, tenant: str) -> Sequence[Mitigation]:
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(_SQL["mitigations"], MITIGATIONS)
        return [Mitigation(row["id"], row["risk"], row["text"], row["owner"], row["created_at"]) for row in rows]

    async def set_rule(self, tenant: str, rule: EnforcementRule) -> None:
        async with self._database.tenant(tenant) as connection:
            await connection.execute(
                _SQL["set_rule"], tenant, rule.name, rule.risk, rule.threshold, rule.window, rule.action,
                rule.target.value, rule.hold, rule.enabled,
            )  # fmt: skip

    async def rules(self, tenant: str) -> Sequence[EnforcementRule]:
        async with self._database.tenant(tenant) as connection:
            return [_rule(row) for row in await connection.fetch(_SQL["rules"])]

    async def enforce(self, tenant: str, action: Enforced) -> bool:
        async with self._database.tenant(tenant) as connection:
            await connection.execute(_SQL["lock_target"], f"{tenant}|{action.rule}|{action.target}")
            made = await connection.fetchval(
                _SQL["enforce"], tenant, action.id, action.rule, action.risk, action.action, action.target_kind.value,
                action.target, action.value, action.created_at, action.expires_at,
            )  # fmt: skip
        return made is not None

    async def actions(self, tenant: str, *, active_at: datetime | None, target: str) -> Sequence[Enforced]:
        async with self._database.tenant(tenant) as connection:
            return [_action(row) for row in await connection.fetch(_SQL["actions"], active_at, target)]

    async def tenants(self) -> Sequence[str]:
        return [row["tenant"] for row in await self._database.statement(_SQL["risk_tenants"])]

    async def old(self, tenant: str, kind: Kind, *, before: datetime, limit: int) -> Sequence[OldRow]:
        shown = (MITIGATIONS,) if kind is Kind.MITIGATION else ()
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(_SQL[_OLD[kind]], before, limit, *shown)
        return [OldRow(kind, row["id"], row["created_at"], row["data"]) for row in rows]

    async def let_go(self, tenant: str, rows: Sequence[OldRow], *, keep: bool) -> None:
        kept = [(tenant, row.kind.value, row.id, dict(row.data), row.created_at) for row in rows if keep]
        async with self._database.tenant(tenant) as connection:
            await connection.executemany(_SQL["keep_old_risk"], kept)
            await connection.execute(_SQL["forget_risks"], rows[0].kind.value, [row.id for row in rows])

    async def archived(self, tenant: str, kind: Kind) -> Sequence[OldRow]:
        """What is in the table of old rows, oldest first."""
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(_SQL["archived_risks"], kind.value)
        return [OldRow(kind, row["id"], row["created_at"], row["data"]) for row in rows]


def _rule(row: Any) -> EnforcementRule:
    return EnforcementRule(
        name=row["name"],
        risk=row["risk"],
        threshold=row["threshold"],
        window=row["window_span"],
        action=row["action"],
        target=TargetKind(row["target_kind"]),
        hold=row["hold_span"],
        enabled=row["enabled"],
    )


def _action(row: Any) -> Enforced:
    return Enforced(
        id=row["id"],
        rule=row["rule"],
        risk=row["risk"],
        action=row["action"],
        target_kind=TargetKind(row["target_kind"]),
        target=row["target"],
        value=row["value"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
    )
