"""What the risk register may rely on, whichever store it has."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from services.policy.risk_archive import Kind, OldRow, RiskArchivist
from services.policy.risks import DAY, MITIGATIONS, Enforced, EnforcementRule, Mitigation, RiskEvent, TargetKind
from services.policy.risks_memory import MemoryRisks
from services.policy.risks_postgres import PostgresRisks
from shared.clock import FakeClock
from shared.errors import Unavailable
from shared.objects import FolderObjects
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


LONG_AGO = NOON - 91 * DAY


async def aged(store: Store, tenant: str) -> None:
    """Of each kind a row that is old and one that is not; the old mitigation is beyond the hundred that are shown."""
    for name, at in (("old", LONG_AGO), ("new", NOON)):
        await store.add_event(tenant, replace(EVENT, id=f"rev_{name}", created_at=at))
        done = replace(DONE, id=f"enf_{name}", created_at=at, expires_at=at + MINUTE)
        assert await store.enforce(tenant, done)
    for number in range(MITIGATIONS + 1):
        at = LONG_AGO + number * MINUTE
        await store.add_mitigation(tenant, Mitigation(f"mit_{number:03}", "memory_bloat", "pruned", "ada", at))


@pytest.mark.parametrize("folder", [False, True])
async def test_old_rows_move_to_the_archive_and_what_the_register_shows_stays(
    store: Store, tenant: str, tmp_path: Path, folder: bool
) -> None:
    await aged(store, tenant)
    archivist = RiskArchivist(store, FakeClock(NOON), FolderObjects(tmp_path) if folder else None)
    assert tenant in await store.tenants()

    assert [await archivist.archive(tenant), await archivist.archive(tenant)] == [3, 0]

    actions = await store.actions(tenant, active_at=None, target="")
    assert [one.id for one in actions] == ["enf_new"]
    assert await store.total(tenant, "memory_bloat", TargetKind.TENANT, tenant, since=LONG_AGO - MINUTE) == EVENT.value
    shown = await store.mitigations(tenant)
    assert (len(shown), shown[-1].id) == (MITIGATIONS, "mit_001")
    kept = {kind: [row.id for row in await store.archived(tenant, kind)] for kind in Kind}
    everything = {Kind.EVENT: ["rev_old"], Kind.ACTION: ["enf_old"], Kind.MITIGATION: ["mit_000"]}
    assert kept == ({kind: [] for kind in Kind} if folder else everything)
    parts = sorted(tmp_path.rglob("*.jsonl.gz"))
    assert len(parts) == (3 if folder else 0)
    lines = {part.parent.name: json.loads(gzip.decompress(part.read_bytes())) for part in parts}
    assert {kind: line["id"] for kind, line in lines.items()} == (
        {kind.value: ids[0] for kind, ids in everything.items()} if folder else {}
    )


async def test_old_rows_of_others_stay_where_they_are(store: Store, tenant: str) -> None:
    await aged(store, tenant)
    other = f"{tenant}-other"
    await store.add_event(other, replace(EVENT, created_at=LONG_AGO))
    await RiskArchivist(store, FakeClock(NOON)).archive(tenant)
    assert await store.total(other, "memory_bloat", TargetKind.TENANT, other, since=LONG_AGO - MINUTE) == EVENT.value
    assert await RiskArchivist(store, FakeClock(NOON)).archive(other) == 1


async def test_an_archive_that_is_away_loses_nothing(store: Store, tenant: str) -> None:
    await aged(store, tenant)

    class Away:
        async def put(self, name: str, data: bytes) -> None:
            raise Unavailable("the archive does not answer", dependency="archive")

        async def get(self, name: str) -> bytes | None:
            return None

    with pytest.raises(Unavailable):
        await RiskArchivist(store, FakeClock(NOON), Away()).archive(tenant)
    assert len(await store.actions(tenant, active_at=None, target="")) == 2


async def test_the_services_role_takes_no_row_away_that_is_young(dsn: str | None, tenant: str) -> None:
    if dsn is None:
        pytest.skip("the guard is the database's")
    now = datetime.now(UTC)
    async with open_database(dsn, pool=2) as database:
        store = PostgresRisks(database)
        await store.add_event(tenant, replace(EVENT, created_at=now))
        await store.let_go(tenant, [OldRow(Kind.EVENT, EVENT.id, now)], keep=False)
        assert dict(await store.counts(tenant, since=now - MINUTE)) == {"memory_bloat": 1}
