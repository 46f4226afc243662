"""Who gets in with what: issuers and their keys, tokens made from tokens, users, roles, tenants, and the audit of it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.edge import Edge
from tests.support.oidc import Provider

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def principal(edge: Edge, token: str):
    return (await edge.ok("GET", "/v1/caller", token))["principal"]


async def test_keycloaks_and_auth0s_claims_are_mapped_by_configuration(edge: Edge, provider: Provider) -> None:
    keycloak = provider.token(
        provider.url("keycloak"),
        {
            "aud": ["account", "agentnet"],
            "organization": ["acme"],
            "realm_access": {"roles": ["mesh-admin", "offline"]},
        },
    )
    auth0 = provider.token(
        provider.url("auth0") + "/",
        {
            "aud": ["https://agentnet.example/api", "userinfo"],
            "org_id": "org_Ab12",
            "https://agentnet.example/roles": ["operator"],
        },
    )
    assert (await principal(edge, keycloak))["roles"] == ["admin"]
    found = await principal(edge, auth0)
    assert (found["tenant_id"], found["subject"], found["roles"]) == ("acme", "grace", ["operator"])


async def test_keys_rotate_without_a_restart_and_unknown_ones_do_not_flood_the_issuer(
    edge: Edge, provider: Provider
) -> None:
    claims = {"aud": "agentnet", "organization": "acme", "realm_access": {"roles": ["auditor"]}}
    issuer = provider.url("keycloak")
    await principal(edge, provider.token(issuer, claims))
    import asyncio

    await asyncio.sleep(5.2)  # a key set is fetched anew at most every five seconds
    provider.rotate("second")
    assert (await principal(edge, provider.token(issuer, claims)))["roles"] == ["auditor"]
    asked = provider.asked
    for _ in range(5):
        assert (await edge.bearer("GET", "/v1/caller", provider.token(issuer, claims, kid="nobody"))).status == 401
    assert provider.asked == asked


async def test_a_key_becomes_a_short_lived_token_that_does_no_more(edge: Edge) -> None:
    admin = edge.token()
    body = {"display_name": "k", "roles": ["operator", "auditor"], "scopes": ["identity:read", "token:write"]}
    made = await edge.ok("POST", "/v1/keys", admin, body)
    answer = await edge.rest(
        "POST", "/v1/tokens/exchange", {"ttl": "60s", "roles": ["auditor"]}, x_api_key=made["secret"]
    )
    token = answer.body["token"]
    found = await principal(edge, token)
    assert (found["roles"], found["grant"]["scopes"]) == (["auditor"], ["identity:read", "token:write"])
    refused = await edge.bearer("GET", "/v1/keys", token)
    assert (refused.status, refused.reason) == (403, "SCOPE_INSUFFICIENT")
    wider = await edge.bearer("POST", "/v1/tokens/exchange", token, {"roles": ["operator"]})
    assert (wider.status, wider.reason) == (403, "DELEGATION_TOO_WIDE")
    wider = await edge.bearer("POST", "/v1/tokens/exchange", token, {"scopes": ["key:write"]})
    assert (wider.status, wider.reason) == (403, "DELEGATION_TOO_WIDE")
    too_long = await edge.bearer("POST", "/v1/tokens/exchange", token, {"ttl": "7200s"})
    assert too_long.status == 400


async def test_a_delegated_token_only_narrows(edge: Edge) -> None:
    grant = {"scopes": ["identity:read", "token:write"], "tools": ["search"], "budget_micros_usd": 500, "depth": 1}
    body = {"subject": "agent:Athena@1.0.0", "roles": ["tenant_user"], "grant": grant}
    first = await edge.ok("POST", "/v1/tokens/delegate", edge.token("admin", "tenant_user"), body)
    found = await principal(edge, first["token"])
    assert (found["subject"], found["tenant_id"], found["roles"]) == ("agent:Athena@1.0.0", "acme", ["tenant_user"])
    assert found["grant"]["delegators"] == ["ada"]
    for wider in ({"tools": ["search", "shell"]}, {"budget_micros_usd": 501}, {"depth": 2}, {"scopes": ["key:write"]}):
        answer = await edge.bearer(
            "POST", "/v1/tokens/delegate", first["token"], {"subject": "agent:b", "grant": wider}
        )
        assert (answer.status, answer.reason) == (403, "DELEGATION_TOO_WIDE")
    second = await edge.ok(
        "POST", "/v1/tokens/delegate", first["token"], {"subject": "agent:Apollo", "grant": {"budget_micros_usd": 9}}
    )
    kept = (await principal(edge, second["token"]))["grant"]
    assert (kept["tools"], kept["budget_micros_usd"], kept["depth"]) == (["search"], "9", 0)
    assert kept["delegators"] == ["ada", "agent:Athena@1.0.0"]
    assert [purse["limit_micros_usd"] for purse in kept["purses"]] == ["500", "9"]
    assert kept["purses"][0] == found["grant"]["purses"][0]
    last = await edge.bearer("POST", "/v1/tokens/delegate", second["token"], {"subject": "agent:c"})
    assert (last.status, last.reason) == (403, "DELEGATION_TOO_WIDE")


@pytest.mark.parametrize("grant", [{"tools": ["search"]}, {"budget_micros_usd": 5}, {"depth": 0}, {}])
async def test_a_delegate_cannot_shed_what_narrows_it_by_a_key(edge: Edge, grant: dict[str, Any]) -> None:
    """Neither by making one nor by rotating one that may do more."""
    admin = edge.token()
    wide = await edge.ok("POST", "/v1/keys", admin, {"display_name": "wide", "roles": ["admin"]})
    body = {"subject": "agent:sly", "roles": ["admin"], "grant": grant}
    sly = (await edge.ok("POST", "/v1/tokens/delegate", admin, body))["token"]
    made = await edge.bearer("POST", "/v1/keys", sly, {"display_name": "k", "roles": ["admin"]})
    turned = await edge.bearer("POST", f"/v1/keys/{wide['key']['id']}/rotate", sly, {})
    for answer in (made, turned):
        assert (answer.status, answer.reason) == (403, "DELEGATION_TOO_WIDE")


async def test_a_scoped_token_rotates_no_wider_key(edge: Edge) -> None:
    admin = edge.token()
    wide = await edge.ok("POST", "/v1/keys", admin, {"display_name": "wide", "roles": ["admin"]})
    like = await edge.ok("POST", "/v1/keys", admin, {"display_name": "k", "roles": ["admin"], "scopes": ["key:write"]})
    scoped = (await edge.ok("POST", "/v1/tokens/exchange", admin, {"scopes": ["key:write"]}))["token"]
    refused = await edge.bearer("POST", f"/v1/keys/{wide['key']['id']}/rotate", scoped, {})
    assert (refused.status, refused.reason) == (403, "DELEGATION_TOO_WIDE")
    assert (await edge.bearer("POST", f"/v1/keys/{like['key']['id']}/rotate", scoped, {})).status == 200


async def test_a_rotated_key_is_followed_and_ends(edge: Edge) -> None:
    admin = edge.token()
    made = await edge.ok("POST", "/v1/keys", admin, {"display_name": "k", "roles": ["auditor"]})
    path = f"/v1/keys/{made['key']['id']}/rotate"
    followed = await edge.ok("POST", path, admin, {"grace": "3600s"})
    for secret in (made["secret"], followed["secret"]):
        assert (await edge.rest("GET", "/v1/caller", x_api_key=secret)).status == 200
    await edge.ok("POST", path, admin, {"grace": "0s"})
    assert (await edge.rest("GET", "/v1/caller", x_api_key=made["secret"])).status == 401
    again = await edge.bearer("POST", path, admin, {})
    assert (again.status, again.reason) == (400, "API_KEY_INVALID")
    listed = (await edge.ok("GET", "/v1/keys", admin))["keys"]
    used = next(key for key in listed if key["id"] == followed["key"]["id"])
    assert used["last_use_time"]
    assert made["secret"] not in str(listed)


async def test_a_service_account_is_who_its_keys_speak_for(edge: Edge) -> None:
    admin = edge.token()
    account = {"kind": "USER_KIND_SERVICE_ACCOUNT", "roles": ["operator"]}
    await edge.ok("PUT", "/v1/users/svc.nightly", admin, account)
    body = {"display_name": "k", "roles": ["operator", "admin"], "service_account": "svc.nightly"}
    made = await edge.ok("POST", "/v1/keys", admin, body)
    caller = (await edge.rest("GET", "/v1/caller", x_api_key=made["secret"])).body["principal"]
    assert (caller["subject"], caller["roles"]) == ("svc.nightly", ["operator"])
    await edge.ok("DELETE", "/v1/users/svc.nightly", admin)
    assert (await edge.rest("GET", "/v1/caller", x_api_key=made["secret"])).status == 401
    missing = await edge.bearer("POST", "/v1/keys", admin, body)
    assert (missing.status, missing.reason) == (404, "USER_NOT_FOUND")


async def test_a_suspended_user_and_a_suspended_tenant_stay_out(edge: Edge) -> None:
    await edge.ok("PUT", "/v1/users/mallory", edge.token(), {"standing": "STANDING_SUSPENDED"})
    answer = await edge.bearer("GET", "/v1/caller", edge.token(subject="mallory"))
    assert (answer.status, answer.reason) == (403, "USER_SUSPENDED")
    await edge.ok("PUT", "/v1/tenants/shut", edge.token(tenant="platform"), {"standing": "STANDING_SUSPENDED"})
    answer = await edge.bearer("GET", "/v1/caller", edge.token(tenant="shut"))
    assert (answer.status, answer.reason) == (403, "TENANT_SUSPENDED")


async def test_a_users_record_and_a_tenants_own_role_bring_what_they_say(edge: Edge) -> None:
    admin, user = edge.token(), edge.token("analyst", subject="bob")
    assert (await edge.bearer("GET", "/v1/caller", user)).reason == "TOKEN_CLAIM_MISSING"
    await edge.ok("PUT", "/v1/roles/analyst", admin, {"scopes": ["audit:read", "identity:read", "key:write"]})
    assert (await principal(edge, user))["roles"] == ["analyst"]
    assert (await edge.bearer("GET", "/v1/audit", user)).status == 200
    assert (await edge.bearer("GET", "/v1/users", user)).reason == "ROLE_INSUFFICIENT"
    made = await edge.bearer("POST", "/v1/keys", user, {"display_name": "k", "roles": ["analyst"]})
    assert made.reason == "ROLE_INSUFFICIENT"  # what only admins may, no role of a tenant's own brings
    await edge.ok("PUT", "/v1/users/bob", admin, {"roles": ["auditor"]})
    assert (await principal(edge, user))["roles"] == ["analyst", "auditor"]
    unknown = await edge.bearer("PUT", "/v1/users/bob", admin, {"roles": ["emperor"]})
    assert (unknown.status, unknown.reason) == (404, "ROLE_NOT_FOUND")
    invalid = await edge.bearer("PUT", "/v1/roles/odd", admin, {"scopes": ["no:such"]})
    assert invalid.status == 400
    await edge.ok("PUT", "/v1/roles/zoologist", admin, {"scopes": ["audit:read"]})
    page = await edge.ok("GET", "/v1/roles?page_size=1", admin)
    rest = await edge.ok("GET", f"/v1/roles?page_token={page['next_page_token']}", admin)
    assert [one["name"] for one in (*page["roles"], *rest["roles"])] == ["analyst", "zoologist"]
    await edge.ok("DELETE", "/v1/roles/zoologist", admin)
    await edge.ok("DELETE", "/v1/roles/analyst", admin)
    assert [role["name"] for role in (await edge.ok("GET", "/v1/roles", admin))["roles"]] == []


async def test_only_the_platforms_admins_keep_tenants(edge: Edge) -> None:
    operator = edge.token(tenant="platform")
    for name in ("blue", "green"):
        await edge.ok("PUT", f"/v1/tenants/{name}", operator, {"display_name": name.title()})
    page = await edge.ok("GET", "/v1/tenants?page_size=1", operator)
    rest = await edge.ok("GET", f"/v1/tenants?page_token={page['next_page_token']}", operator)
    names = [tenant["id"] for tenant in page["tenants"] + rest["tenants"]]
    assert names == sorted(names)
    assert {"blue", "green"} <= set(names)
    refused = await edge.bearer("PUT", "/v1/tenants/blue", edge.token(), {"display_name": "mine"})
    assert (refused.status, refused.reason) == (404, "TENANT_NOT_FOUND")
    own = await edge.ok("GET", "/v1/tenants/blue", edge.token(tenant="blue"))
    assert own["tenant"]["display_name"] == "Blue"
    assert (await edge.bearer("GET", "/v1/tenants/green", edge.token(tenant="blue"))).status == 404


async def test_what_changes_who_gets_in_is_audited(edge: Edge) -> None:
    admin = edge.token(tenant="watched", subject="root")
    made = await edge.ok("POST", "/v1/keys", admin, {"display_name": "k", "roles": ["auditor"]})
    await edge.ok("POST", f"/v1/keys/{made['key']['id']}/revoke", admin, {})
    await edge.ok("PUT", "/v1/users/ann", admin, {"roles": ["auditor"]})
    await edge.ok("POST", "/v1/tokens/exchange", admin, {})
    entries = (await edge.ok("GET", "/v1/audit", edge.token("auditor", tenant="watched")))["entries"]
    assert [entry["action"] for entry in entries] == ["token.exchanged", "user.put", "key.revoked", "key.created"]
    assert {entry["subject"] for entry in entries} == {"root"}
    only = await edge.ok("GET", "/v1/audit?action=user.put", admin)
    assert [entry["target"] for entry in only["entries"]] == ["ann"]
    assert (await edge.ok("GET", "/v1/audit", edge.token(tenant="another")))["entries"] == []


async def test_a_token_of_ours_gains_nothing_by_the_name_it_bears(edge: Edge) -> None:
    """Neither may a delegate take a user's name, nor does a narrowed token get its user's other roles back."""
    admin = edge.token()
    await edge.ok("PUT", "/v1/users/chief", admin, {"roles": ["admin"]})
    await edge.ok("PUT", "/v1/users/agent:chief", admin, {"roles": ["admin"]})
    lowly = edge.token("tenant_user", subject="lowly")
    named = await edge.bearer("POST", "/v1/tokens/delegate", lowly, {"subject": "chief"})
    assert (named.status, named.reason) == (400, "FIELD_INVALID")
    made = await edge.ok("POST", "/v1/tokens/delegate", lowly, {"subject": "agent:chief"})
    assert (await principal(edge, made["token"]))["roles"] == ["tenant_user"]
    chief = edge.token("auditor", subject="chief")
    assert (await principal(edge, chief))["roles"] == ["admin", "auditor"]
    narrow = await edge.ok("POST", "/v1/tokens/exchange", chief, {"roles": ["auditor"]})
    assert (await principal(edge, narrow["token"]))["roles"] == ["auditor"]


async def test_an_admins_delegate_is_no_admin_unless_it_is_said(edge: Edge) -> None:
    unsaid = await edge.bearer("POST", "/v1/tokens/delegate", edge.token(), {"subject": "agent:helper"})
    assert (unsaid.status, unsaid.reason) == (403, "DELEGATION_TOO_WIDE")
    both = edge.token("admin", "operator")
    made = await edge.ok("POST", "/v1/tokens/delegate", both, {"subject": "agent:helper"})
    assert (await principal(edge, made["token"]))["roles"] == ["operator"]


async def test_who_is_suspended_acts_through_nobody_else(edge: Edge) -> None:
    body = {"subject": "agent:helper", "roles": ["admin"]}
    made = await edge.ok("POST", "/v1/tokens/delegate", edge.token(subject="leaver"), body)
    assert (await edge.bearer("GET", "/v1/caller", made["token"])).status == 200
    await edge.ok("PUT", "/v1/users/leaver", edge.token(), {"standing": "STANDING_SUSPENDED"})
    answer = await edge.bearer("GET", "/v1/caller", made["token"])
    assert (answer.status, answer.reason) == (403, "USER_SUSPENDED")
