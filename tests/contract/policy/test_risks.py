"""What the risk register may rely on, whichever store it has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from services.policy.risks import Enforced, EnforcementRule, Mitigation, RiskEvent, TargetKind
from services.policy.risks_memory import MemoryRisks
from services.policy.risks_postgres import PostgresRisks
from shared.postgres import open_database

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
EVENT = RiskEvent("rev_1", "memory_bloat", 2.5, "Athena", "ses_1", NOON, {"mb": 300})
RULE = EnforcementRule("mine", "memory_bloat", 10.5, MINUTE, "block", TargetKind.AGENT, 2 * MINUTE, enabled=False)
DONE = Enforced("enf_1", "mine", "memory_bloat", "block", TargetKind.AGENT, "Athena", 11.5, NOON, NOON + MINUTE)
Store = MemoryRisks | PostgresRisks


@pytest.fixture
async def store(dsn: str | None) -> AsyncIterator[Store]:
    if dsn is None:
        yield MemoryRisks()
        return
    async with open_database(dsn, pool=4) as database:
        yield PostgresRisks(database)


async def test_values_add_up_by_target_and_since_a_time(store: Store, tenant: str) -> None:
    for number, event in enumerate(
        (EVENT, replace(EVENT, agent="Apollo"), replace(EVENT, session_id="ses_2", created_at=NOON + MINUTE))
    ):
        await store.add_event(tenant, replace(event, id=f"rev_{number}"))

    async def total(kind: TargetKind, target: str, since: datetime = NOON - MINUTE) -> float:
        return await store.total(tenant, "memory_bloat", kind, target, since=since)

    assert await total(TargetKind.TENANT, tenant) == 7.5
    assert await total(TargetKind.AGENT, "Athena") == 5
    assert await total(TargetKind.SESSION, "ses_2") == 2.5
    assert await total(TargetKind.TENANT, tenant, NOON) == 2.5
    assert dict(await store.counts(tenant, since=NOON - MINUTE)) == {"memory_bloat": 3}
    assert (
        await store.total(f"{tenant}-other", "memory_bloat", TargetKind.TENANT, f"{tenant}-other", since=NOON - MINUTE)
        == 0
    )


async def test_a_rule_comes_back_as_it_was_set_and_is_replaced_by_name(store: Store, tenant: str) -> None:
    await store.set_rule(tenant, RULE)
    assert list(await store.rules(tenant)) == [RULE]
    await store.set_rule(tenant, replace(RULE, action="alert"))
    assert [rule.action for rule in await store.rules(tenant)] == ["alert"]
    assert not await store.rules(f"{tenant}-other")


async def test_one_action_holds_for_a_target_however_many_try_at_once(store: Store, tenant: str) -> None:
    tries = [store.enforce(tenant, replace(DONE, id=f"enf_{number}")) for number in range(20)]
    assert sum(await asyncio.gather(*tries)) == 1
    assert await store.enforce(tenant, replace(DONE, id="enf_x", target="Apollo"))
    later = replace(DONE, id="enf_y", created_at=NOON + MINUTE, expires_at=NOON + 2 * MINUTE)
    assert await store.enforce(tenant, later)
    active = await store.actions(tenant, active_at=NOON + MINUTE, target="")
    assert list(active) == [later]
    assert [one.target for one in await store.actions(tenant, active_at=None, target="Apollo")] == ["Apollo"]


async def test_mitigations_come_back_as_they_were(store: Store, tenant: str) -> None:
    made = Mitigation("mit_1", "memory_bloat", "pruned", "olga", NOON)
    await store.add_mitigation(tenant, made)
    assert list(await store.mitigations(tenant)) == [made]
    assert not await store.mitigations(f"{tenant}-other")


async def test_of_each_risk_the_newest_hundred_mitigations_are_told(store: Store, tenant: str) -> None:
    for number in range(103):
        at = NOON + number * MINUTE
        await store.add_mitigation(tenant, Mitigation(f"mit_{number:03}", "memory_bloat", f"{number}", "policy", at))
    await store.add_mitigation(tenant, Mitigation("mit_a", "prompt_leakage", "once", "olga", NOON))
    told = await store.mitigations(tenant)
    assert [one.text for one in told] == [*map(str, range(102, 2, -1)), "once"]
