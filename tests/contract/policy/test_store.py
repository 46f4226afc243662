"""What the library may rely on, whichever store it has."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

from services.policy.document import read
from services.policy.store import Attachment, PolicyStore, StoredBundle, Violation, ViolationFilter
from shared.monitors.rules import Severity
from shared.paging import Page
from shared.tool_permissions import ToolPermission
from tests.support.forged import PLACES, refused

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
TEXT = "rules: [{name: words, type: keyword, severity: severe, keywords: [mesh]}]\n"
WORDS = StoredBundle(
    "words", "1.0.0", read(TEXT).digest, TEXT, read(TEXT), NOON, labels=("staging",), signature=b"s", signing_key="policy",
)  # fmt: skip
SEEN = Violation(
    "v-1", "ses_1", "gen_1", "Athena", "words", Severity.SEVERE, "keyword", "output matches", {"span": [1, 5]}, NOON
)


async def test_a_bundle_comes_back_as_it_was_added(store: PolicyStore, tenant: str) -> None:
    assert await store.add(tenant, WORDS)
    assert list(await store.bundles(tenant, name="words")) == [WORDS]


async def test_a_version_is_never_changed(store: PolicyStore, tenant: str) -> None:
    await store.add(tenant, WORDS)
    assert not await store.add(tenant, replace(WORDS, digest="other"))
    assert [one.digest for one in await store.bundles(tenant)] == [WORDS.digest]


async def test_a_label_points_at_one_version(store: PolicyStore, tenant: str) -> None:
    await store.add(tenant, replace(WORDS, labels=("production",)))
    await store.add(tenant, replace(WORDS, version="1.0.1", labels=(), created_at=NOON + timedelta(seconds=1)))
    assert await store.label(tenant, "words", "1.0.1", label="production", remove=False)
    assert not await store.label(tenant, "words", "9.9.9", label="production", remove=False)
    assert [(one.version, one.labels) for one in await store.bundles(tenant)] == [
        ("1.0.1", ("production",)), ("1.0.0", ()),
    ]  # fmt: skip
    enforced = await store.enforced()
    assert [one.version for one in enforced.tenants[tenant]] == ["1.0.1"]


async def test_what_is_in_force_for_one_tenant_is_read_alone(store: PolicyStore, tenant: str) -> None:
    for owner in (tenant, f"{tenant}-other"):
        await store.add(owner, replace(WORDS, labels=("production", "shadow")))
        await store.attach(owner, Attachment("*", "words", "1.0.0"))
    alone = await store.enforced(tenant)
    assert (list(alone.tenants), list(alone.attached)) == ([tenant], [tenant])
    assert {tenant, f"{tenant}-other"} <= set((await store.enforced()).tenants)
    assert [one.label for one in await store.labelled(tenant, "shadow")] == ["words@1.0.0"]
    assert not await store.labelled(tenant, "staging")


async def test_an_attachment_names_its_version_and_goes_again(store: PolicyStore, tenant: str) -> None:
    await store.add(tenant, WORDS)
    given = Attachment("Athena", "words", "1.0.0", "finance")
    assert await store.attach(tenant, given)
    assert not await store.attach(tenant, replace(given, version="2.0.0"))
    assert list(await store.attachments(tenant)) == [given]
    ((attached, stored),) = (await store.enforced()).attached[tenant]
    assert (attached, stored.label) == (given, "words@1.0.0")
    await store.detach(tenant, "Athena", "words")
    assert not await store.attachments(tenant)


async def test_the_revision_rises_with_every_change(store: PolicyStore, tenant: str) -> None:
    before = (await store.enforced()).revision
    await store.add(tenant, WORDS)
    between = (await store.enforced()).revision
    await store.label(tenant, "words", "1.0.0", label="production", remove=False)
    assert before < between < (await store.enforced()).revision


async def test_a_change_is_told_at_once(store: PolicyStore, tenant: str) -> None:
    async with aclosing(store.changes(at_least_every=timedelta(seconds=30))) as changes:
        await anext(changes)
        waiting = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0)
        await store.add(tenant, WORDS)
        await asyncio.wait_for(waiting, 5)


async def test_without_a_change_it_is_looked_for_now_and_then(store: PolicyStore) -> None:
    async with aclosing(store.changes(at_least_every=timedelta(milliseconds=10))) as changes:
        for _ in range(3):
            await asyncio.wait_for(anext(changes), 5)


async def test_a_tenant_sees_only_its_own_bundles(store: PolicyStore, tenant: str) -> None:
    await store.add(tenant, WORDS)
    await store.attach(tenant, Attachment("Athena", "words", "1.0.0"))
    assert not await store.bundles(f"{tenant}-other")
    assert not await store.attachments(f"{tenant}-other")


async def test_a_violation_is_stored_once_and_comes_back_as_it_was(store: PolicyStore, tenant: str) -> None:
    assert await store.record(tenant, [SEEN]) == 1
    assert await store.record(tenant, [SEEN, replace(SEEN, id="v-2")]) == 1
    found = await store.violations(tenant, ViolationFilter(), newest_first=True, page=Page())
    assert list(found) == [replace(SEEN, id="v-2"), SEEN]
    assert not await store.violations(f"{tenant}-other", ViolationFilter(), newest_first=True, page=Page())
    every = partial(store.violations, tenant, ViolationFilter())
    await refused(lambda page: every(newest_first=True, page=page), PLACES)
    await refused(lambda page: every(newest_first=False, page=page), PLACES)


async def test_violations_are_found_by_session_severity_monitor_and_time(store: PolicyStore, tenant: str) -> None:
    later = NOON + timedelta(minutes=1)
    await store.record(tenant, [
        SEEN, replace(SEEN, id="v-2", session_id="ses_2", created_at=later),
        replace(SEEN, id="v-3", severity=Severity.MINOR), replace(SEEN, id="v-4", monitor_name="pii"),
    ])  # fmt: skip

    async def found(**chosen: object) -> list[str]:
        rows = await store.violations(tenant, ViolationFilter(**chosen), newest_first=False, page=Page())  # type: ignore[arg-type]
        return [row.id for row in rows]

    assert await found(session_id="ses_2") == ["v-2"]
    assert await found(severity=Severity.MINOR) == ["v-3"]
    assert await found(monitor_name="pii") == ["v-4"]
    assert await found(start=later) == ["v-2"]
    assert await found(end=later) == ["v-1", "v-3", "v-4"]


async def test_who_may_call_a_tool_is_replaced_by_its_name_and_known_of_every_tenant_at_once(
    store: PolicyStore, tenant: str
) -> None:
    permission, before = ToolPermission("db_*", ("agent",), ("Athena",)), (await store.enforced()).revision
    await store.set_permission(tenant, replace(permission, agents=()))
    await store.set_permission(tenant, permission)
    await store.set_permission(f"{tenant}-other", replace(permission, tool="pay"))
    assert list(await store.permissions(tenant)) == [permission]
    enforced = await store.enforced()
    assert enforced.revision > before
    assert list(enforced.permissions[tenant]) == [permission]
    assert [one.tool for one in enforced.permissions[f"{tenant}-other"]] == ["pay"]
