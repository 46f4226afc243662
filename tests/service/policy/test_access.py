"""Who may do what on the platform and with tools; the trail of it, and the evidence for an auditor."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agentnet.policy.v1 import access_service_pb2 as pb
from agentnet.policy.v1 import policy_service_pb2
from services.policy.access import PLATFORM
from tests.service.policy.calls import check, create, refusal
from tests.support.forged import NUMBERS, forged
from tests.support.identity import Keys
from tests.support.policy import PolicyParts


async def authorized(access: Any, keys: Keys, roles: tuple[str, ...], **more: Any) -> pb.AuthorizeResponse:
    request = pb.AuthorizeRequest(roles=roles, **more)
    answer: pb.AuthorizeResponse = await access.Authorize(request, metadata=keys.metadata())
    return answer


@pytest.mark.parametrize(
    ("role", "action", "allowed"),
    [
        ("admin", "keys.write", True), ("operator", "keys.write", False), ("operator", "policies.write", True),
        ("auditor", "audit.read", True), ("auditor", "agents.write", False), ("tenant_user", "sessions.run", True),
        ("tenant_user", "violations.read", False), ("nobody", "agents.read", False), ("admin", "unheard.of", False),
    ],
)  # fmt: skip
async def test_a_role_on_the_platform_may_what_its_rights_say(
    access: Any, keys: Keys, role: str, action: str, allowed: bool
) -> None:
    decided = await authorized(access, keys, (role,), action=action)
    assert decided.allowed is allowed
    assert action in decided.rationale


def test_rights_only_grow_from_user_to_operator_to_admin() -> None:
    assert PLATFORM["tenant_user"] < PLATFORM["operator"] < PLATFORM["admin"]


@pytest.mark.parametrize(
    ("roles", "more", "allowed"),
    [
        (("agent",), {}, True), (("admin",), {}, True), (("viewer",), {}, False), ((), {}, False),
        (("batch_processor",), {"idempotent": True}, True), (("batch_processor",), {"idempotent": False}, False),
        (("viewer", "agent"), {}, True),
    ],
)  # fmt: skip
async def test_a_role_on_tools_may_call_what_it_is_for(
    access: Any, keys: Keys, roles: tuple[str, ...], more: dict[str, bool], allowed: bool
) -> None:
    assert (await authorized(access, keys, roles or ("none",), tool="search", **more)).allowed is allowed


async def test_a_tools_permission_narrows_roles_and_agents(access: Any, keys: Keys) -> None:
    permission = pb.ToolPermission(tool="db_*", roles=["agent"], agents=["Athena"])
    await access.SetToolPermission(pb.SetToolPermissionRequest(permission=permission), metadata=keys.metadata())
    listed = await access.ListToolPermissions(pb.ListToolPermissionsRequest(), metadata=keys.metadata())
    assert list(listed.permissions) == [permission]
    other = pb.ToolPermission(tool="zip", roles=["agent"])
    await access.SetToolPermission(pb.SetToolPermissionRequest(permission=other), metadata=keys.metadata())
    first = await access.ListToolPermissions(pb.ListToolPermissionsRequest(page_size=1), metadata=keys.metadata())
    rest = pb.ListToolPermissionsRequest(page_token=first.next_page_token)
    second = await access.ListToolPermissions(rest, metadata=keys.metadata())
    assert [list(first.permissions), list(second.permissions)] == [[permission], [other]]
    assert (await authorized(access, keys, ("agent",), tool="db_read", agent="Athena")).allowed
    assert not (await authorized(access, keys, ("agent",), tool="db_read", agent="Apollo")).allowed
    assert not (await authorized(access, keys, ("admin",), tool="db_read", agent="Athena")).allowed
    assert (await authorized(access, keys, ("admin",), tool="search", agent="Athena")).allowed
    wrong = pb.SetToolPermissionRequest(permission=pb.ToolPermission(tool="x", roles=["king"]))
    assert (await refusal(access.SetToolPermission(wrong, metadata=keys.metadata()))).field == "permission.roles"


async def test_the_callers_own_roles_count_when_none_are_given(access: Any, keys: Keys) -> None:
    request = pb.AuthorizeRequest(action="keys.write")
    assert (await access.Authorize(request, metadata=keys.metadata(roles=("admin",)))).allowed
    assert not (await access.Authorize(request, metadata=keys.metadata(roles=("auditor",)))).allowed
    assert (await refusal(authorized(access, keys, ("admin",)))).field == "action"


async def test_what_matters_to_security_is_in_the_trail_in_order(stub: Any, access: Any, keys: Keys) -> None:
    await create(stub, keys, labels=("production",))
    await authorized(access, keys, ("viewer",), tool="search")
    listed = await access.ListAuditEntries(pb.ListAuditEntriesRequest(), metadata=keys.metadata())
    assert [(one.sequence, one.act, one.subject) for one in listed.entries] == [
        (1, "bundle.create", "words@1.0.0"), (2, "access.refuse", "search"),
    ]  # fmt: skip
    first = await access.ListAuditEntries(pb.ListAuditEntriesRequest(page_size=1), metadata=keys.metadata())
    rest = pb.ListAuditEntriesRequest(page_size=1, page_token=first.next_page_token)
    assert [one.sequence for one in (await access.ListAuditEntries(rest, metadata=keys.metadata())).entries] == [2]
    for cursor in NUMBERS:
        wrong = pb.ListAuditEntriesRequest(page_token=forged(first.next_page_token, cursor))
        error = await refusal(access.ListAuditEntries(wrong, metadata=keys.metadata()))
        assert (error.reason_name, error.field) == ("PAGE_TOKEN_INVALID", "page_token")
    other = await access.ListAuditEntries(pb.ListAuditEntriesRequest(), metadata=keys.metadata("globex"))
    assert not other.entries


async def test_the_export_holds_evidence_by_criterion_and_is_audited_itself(
    stub: Any, access: Any, keys: Keys, parts: PolicyParts
) -> None:
    await create(stub, keys, labels=("production",))
    await authorized(access, keys, ("viewer",), tool="search")
    await check(stub, keys, "the mesh")
    parts.clock.advance(parts.clock.monotonic().resolution)
    found = await access.ExportCompliance(pb.ExportComplianceRequest(), metadata=keys.metadata())
    controls = {one.criterion: dict(one.acts) for one in found.controls}
    assert controls["CC6.1"] == {"access.refuse": 1}
    assert controls["CC8.1"] == {"bundle.create": 1}
    assert (found.trail_entries, found.trail_whole, len(found.digest)) == (2, True, 64)
    listed = await access.ListAuditEntries(
        pb.ListAuditEntriesRequest(act="compliance.export"), metadata=keys.metadata()
    )
    assert [one.subject for one in listed.entries] == [found.digest]


async def test_the_trail_verifies_until_someone_edits_it(access: Any, keys: Keys, parts: PolicyParts) -> None:
    for tool in ("a", "b"):
        permission = pb.ToolPermission(tool=tool)
        await access.SetToolPermission(pb.SetToolPermissionRequest(permission=permission), metadata=keys.metadata())
    whole = await access.VerifyAudit(pb.VerifyAuditRequest(), metadata=keys.metadata())
    (trail,) = parts.governance._hot.values()
    trail[1] = replace(trail[1], actor="somebody else")

    broken = await access.VerifyAudit(pb.VerifyAuditRequest(), metadata=keys.metadata())

    assert (whole.entries, whole.broken_at) == (2, 0)
    assert (broken.entries, broken.broken_at) == (1, 2)


async def test_who_may_call_a_tool_is_published_to_enforcement_points(access: Any, stub: Any, keys: Keys) -> None:
    permission = pb.ToolPermission(tool="pay", agents=["Midas"])
    await access.SetToolPermission(pb.SetToolPermissionRequest(permission=permission), metadata=keys.metadata())
    call = stub.WatchBundles(policy_service_pb2.WatchBundlesRequest(), metadata=keys.metadata(kind="service"))
    snapshot = await anext(aiter(call))
    mine = next(one for one in snapshot.tenants if one.tenant_id == "acme")
    assert ([one.name for one in mine.bundles], list(mine.tool_permissions)) == (["default"], [permission])
