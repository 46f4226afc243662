"""What governance may rely on, whichever store it has."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.policy.audit import AuditFilter, AuditLog, Integrity
from services.policy.audit_entry import FIRST_SEAL, AuditEntry, seal_keys
from services.policy.governance_memory import MemoryGovernance
from services.policy.governance_postgres import PostgresGovernance
from services.policy.overrides import Override
from services.policy.simulation import Decision
from services.policy.vault import Vault
from shared.clock import FakeClock
from shared.errors import Unavailable
from shared.monitors.rules import Target
from shared.objects import Objects, objects
from shared.postgres import open_database
from shared.tasks import supervised

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
EXCUSE = Override("ovr_1", ("a", "b"), "Athena", "ses_1", "why", "olga", NOON, NOON + timedelta(hours=1), tool="payer")


@pytest.fixture
async def governance(dsn: str | None) -> AsyncIterator[MemoryGovernance | PostgresGovernance]:
    if dsn is None:
        yield MemoryGovernance()
        return
    async with open_database(dsn, pool=4) as database:
        yield PostgresGovernance(database)


Governance = MemoryGovernance | PostgresGovernance


def key_of(tenant: str) -> bytes:
    return f"the key of {tenant}".encode()


async def test_an_override_comes_back_counts_its_uses_and_ends_once(governance: Governance, tenant: str) -> None:
    await governance.add_override(tenant, EXCUSE)
    assert await governance.override(tenant, "ovr_1") == EXCUSE
    assert await governance.override(f"{tenant}-other", "ovr_1") is None
    await governance.count_use(tenant, "ovr_1")
    await governance.revoke(tenant, "ovr_1", at=NOON)
    await governance.revoke(tenant, "ovr_1", at=NOON + timedelta(minutes=1))
    assert list(await governance.overrides(tenant)) == [replace(EXCUSE, uses=1, revoked_at=NOON)]


async def test_the_trail_counts_without_gaps_also_when_many_write_at_once(governance: Governance, tenant: str) -> None:
    log = AuditLog(governance, FakeClock(), key_of)
    await asyncio.gather(*(log.record(tenant, "ada", "act", f"s{n}", place=n) for n in range(40)))
    entries = await governance.entries(tenant, AuditFilter(), after=0, limit=100)
    assert [one.sequence for one in entries] == list(range(1, 41))
    assert (await log.verify(tenant)).broken_at == 0
    assert not await governance.entries(f"{tenant}-other", AuditFilter(), after=0, limit=10)


async def test_the_trail_is_archived_after_ninety_days_and_its_chain_still_holds(
    governance: Governance, tenant: str
) -> None:
    clock = FakeClock()
    log = AuditLog(governance, clock, key_of)
    await log.record(tenant, "ada", "old", "x")
    clock.advance(timedelta(days=89))
    await log.record(tenant, "ada", "young", "x")
    assert await log.archive(tenant) == 0
    clock.advance(timedelta(days=2))
    assert await log.archive(tenant) == 1
    hot = await governance.entries(tenant, AuditFilter(), after=0, limit=10)
    everything = await governance.entries(tenant, AuditFilter(archived=True), after=0, limit=10)
    assert ([one.act for one in hot], [one.act for one in everything]) == (["young"], ["old", "young"])
    await log.record(tenant, "bob", "new", "y")
    integrity = await log.verify(tenant)
    assert (integrity.entries, integrity.broken_at) == (3, 0)


async def test_archiving_goes_over_every_tenant_by_itself(governance: Governance, tenant: str) -> None:
    clock = FakeClock()
    log = AuditLog(governance, clock, key_of)
    for owner in (tenant, f"{tenant}-other"):
        await log.record(owner, "ada", "old", "x")
    clock.advance(timedelta(days=91))
    async with supervised("archive", lambda: log.keep_archiving(timedelta(hours=1))), asyncio.timeout(5):
        while await governance.entries(f"{tenant}-other", AuditFilter(), after=0, limit=1):
            await asyncio.sleep(0.01)
        while await governance.entries(tenant, AuditFilter(), after=0, limit=1):
            await asyncio.sleep(0.01)
    assert (await log.verify(tenant)).entries == 1


async def test_the_trail_is_found_by_actor_act_and_time(governance: Governance, tenant: str) -> None:
    clock = FakeClock()
    log = AuditLog(governance, clock, key_of)
    await log.record(tenant, "ada", "a", "x")
    clock.advance(timedelta(minutes=1))
    await log.record(tenant, "bob", "b", "x")
    for chosen in (AuditFilter(actor="bob"), AuditFilter(act="b"), AuditFilter(start=clock.now())):
        assert [one.actor for one in await governance.entries(tenant, chosen, after=0, limit=10)] == ["bob"]
    assert len(await governance.entries(tenant, AuditFilter(end=clock.now()), after=0, limit=10)) == 1


async def test_an_edited_entry_shows(governance: Governance, tenant: str, request: pytest.FixtureRequest) -> None:
    log = AuditLog(governance, FakeClock(), key_of)
    for number in range(3):
        await log.record(tenant, "ada", "act", f"s{number}")
    if isinstance(governance, MemoryGovernance):
        governance._hot[tenant][1] = replace(governance._hot[tenant][1], subject="other")
    else:
        connection = await asyncpg.connect(request.getfixturevalue("postgres").dsn("owner"))
        await connection.execute("select set_config('app.tenant', $1, false)", tenant)
        await connection.execute("update policy.audit_entry set subject = 'other' where sequence = 2")
        await connection.close()
    assert (await log.verify(tenant)).broken_at == 2


async def test_whoever_has_no_key_cannot_seal_an_edited_entry_anew(governance: Governance, tenant: str) -> None:
    """The unkeyed seals of old could be computed by anyone who could write."""
    log = AuditLog(governance, FakeClock(), key_of)
    entry = await log.record(tenant, "ada", "act", "x")
    forged = replace(entry, subject="other")
    guessed = forged.sealed_after(FIRST_SEAL, b"a guess")
    plain = hashlib.sha256(forged._sealed_text(FIRST_SEAL)).hexdigest()

    assert entry.follows(FIRST_SEAL, key_of(tenant))
    assert not replace(forged, seal=guessed).follows(FIRST_SEAL, key_of(tenant))
    assert not replace(forged, seal=plain).follows(entry.seal, key_of(tenant))
    assert (await AuditLog(governance, FakeClock(), lambda _: b"another").verify(tenant)).broken_at == 1


async def test_a_trail_cut_short_shows(governance: Governance, tenant: str, request: pytest.FixtureRequest) -> None:
    log = AuditLog(governance, FakeClock(), key_of)
    for number in range(3):
        await log.record(tenant, "ada", "act", f"s{number}")
    if isinstance(governance, MemoryGovernance):
        del governance._hot[tenant][2]
    else:
        connection = await asyncpg.connect(request.getfixturevalue("postgres").dsn("owner"))
        await connection.execute("select set_config('app.tenant', $1, false)", tenant)
        await connection.execute("delete from policy.audit_entry where sequence = 3")
        await connection.close()
    assert await log.verify(tenant) == Integrity(2, broken_at=3)


@pytest.fixture(params=["folder", "s3"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    if request.param == "folder":
        return objects(f"file://{tmp_path}/archive")
    return objects(f"s3://runs/policy?endpoint={request.getfixturevalue('s3_url')}")


async def test_what_is_older_than_ninety_days_lies_in_the_object_store_and_is_still_read_and_verified(
    governance: Governance, tenant: str, archive: Objects
) -> None:
    clock = FakeClock()
    log = AuditLog(governance, clock, key_of, archive)
    for number in range(3):
        await log.record(tenant, "ada", "old", f"s{number}", place=number)
    clock.advance(timedelta(days=91))
    await log.record(tenant, "bob", "young", "x")

    assert await log.archive(tenant) == 3
    assert await log.archive(tenant) == 0

    hot = await governance.entries(tenant, AuditFilter(archived=True), after=0, limit=10)
    everything = await log.entries(tenant, AuditFilter(archived=True), after=0, limit=10)
    assert ([one.sequence for one in hot], [one.sequence for one in everything]) == ([4], [1, 2, 3, 4])
    assert everything[1].detail == {"place": 1}
    assert [one.sequence for one in await log.entries(tenant, AuditFilter(archived=True), after=1, limit=2)] == [2, 3]
    assert [
        one.act for one in await log.entries(tenant, AuditFilter(actor="ada", archived=True), after=0, limit=9)
    ] == ["old"] * 3
    assert await log.verify(tenant) == Integrity(4)


async def test_an_archived_part_that_was_changed_or_is_gone_shows(
    governance: Governance, tenant: str, archive: Objects
) -> None:
    clock = FakeClock()
    log = AuditLog(governance, clock, key_of, archive)
    await log.record(tenant, "ada", "old", "x")
    clock.advance(timedelta(days=91))
    await log.archive(tenant)
    (part,) = await governance.parts(tenant)

    await archive.put(part.name, gzip.compress(b"{}"))
    assert (await log.verify(tenant)).broken_at == 1
    with pytest.raises(Unavailable, match="is not what was written"):
        await log.entries(tenant, AuditFilter(archived=True), after=0, limit=1)
    assert await archive.get("no/such") is None


async def test_an_archive_that_is_away_loses_nothing_and_holds_up_no_other_tenant(
    governance: Governance, tenant: str, s3_url: str
) -> None:
    clock = FakeClock()
    log = AuditLog(governance, clock, key_of, objects(f"s3://no-such-bucket?endpoint={s3_url}"))
    await log.record(tenant, "ada", "old", "x")
    clock.advance(timedelta(days=91))

    with pytest.raises(Unavailable):
        await log.archive(tenant)

    assert await log.verify(tenant) == Integrity(1)


def test_a_place_that_is_no_object_store_is_refused() -> None:
    for wrong in ("", "file://", "ftp://host", "s3:///prefix"):
        with pytest.raises(ValueError, match="audit archive"):
            objects(wrong, what="the audit archive")


def test_the_seals_key_comes_from_a_file_by_reference(tmp_path: Path) -> None:
    vault = Vault(Ed25519PrivateKey.generate())
    file = tmp_path / "key"
    file.write_bytes(b"k" * 31)
    with pytest.raises(ValueError, match="32 bytes"):
        seal_keys(vault, file)
    file.write_bytes(b"k" * 32)

    named, own = seal_keys(vault, file), seal_keys(vault, None)

    assert named("acme") == seal_keys(Vault(Ed25519PrivateKey.generate()), file)("acme")
    assert len({named("acme"), named("other"), own("acme"), own("other")}) == 4


def test_entries_sealed_before_there_were_keys_are_whole_and_cannot_follow_keyed_ones() -> None:
    old = AuditEntry(1, "ada", "act", "x", {}, NOON)
    old = replace(old, seal=hashlib.sha256(old._sealed_text(FIRST_SEAL)).hexdigest())

    assert old.follows(FIRST_SEAL, key_of("acme"))
    late = replace(old, seal=hashlib.sha256(old._sealed_text("hmac:00")).hexdigest())
    assert not late.follows("hmac:00", key_of("acme"))


async def test_the_service_itself_cannot_edit_the_trail(request: pytest.FixtureRequest, tenant: str) -> None:
    async with open_database(request.getfixturevalue("postgres").dsn("policy"), pool=1) as database:
        for statement in ("update audit_entry set act = 'x'", "delete from audit_archive"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                async with database.tenant(tenant) as connection:
                    await connection.execute(statement)


async def test_a_decision_is_kept_once_labelled_and_forgotten(governance: Governance, tenant: str) -> None:
    one = Decision("dec_1", Target.PROMPT, "Athena", "ses_1", True, False, NOON, b"\x00sealed")
    late = replace(
        one, id="dec_2", created_at=NOON + timedelta(minutes=1), truncated=True, bundles=("a@1.0.0",), rules=("x", "y")
    )
    assert await governance.keep(tenant, [one, late]) == 2
    assert await governance.keep(tenant, [one]) == 0
    assert await governance.tell(tenant, "dec_1", harmful=True) == replace(one, harmful=True)
    assert await governance.tell(f"{tenant}-other", "dec_1", harmful=True) is None
    found = await governance.decisions(tenant, start=None, end=None, limit=10)
    assert [row.id for row in found] == ["dec_2", "dec_1"]
    assert [row.id for row in await governance.decisions(tenant, start=None, end=late.created_at, limit=10)] == [
        "dec_1"
    ]
    assert await governance.forget_decisions(tenant, before=late.created_at) == 1
    assert list(await governance.decisions(tenant, start=None, end=None, limit=10)) == [late]


async def test_a_pseudonyms_value_is_kept_as_first_sealed(governance: Governance, tenant: str) -> None:
    await governance.keep_values(tenant, {"[EMAIL_1]": b"first", "[EMAIL_2]": b"\x00"})
    await governance.keep_values(tenant, {"[EMAIL_1]": b"second"})
    known = await governance.values(tenant, {"[EMAIL_1]", "[EMAIL_2]", "[EMAIL_3]"})
    assert dict(known) == {"[EMAIL_1]": b"first", "[EMAIL_2]": b"\x00"}
    assert not await governance.values(f"{tenant}-other", {"[EMAIL_1]"})
