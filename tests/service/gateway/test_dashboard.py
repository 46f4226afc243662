"""The dashboard over the real Envoy: who is not signed in sees nothing, and a cookie does no more than its pages need."""

from __future__ import annotations

import base64
import hashlib
import re
from datetime import timedelta
from typing import Any

import pytest

from services.gateway import contract
from services.gateway.bus.signing import Seal
from services.gateway.dashboard.cookies import DASHBOARD, Cookies
from services.gateway.dashboard.service import POLICY
from services.gateway.permissions import permissions
from tests.service.gateway.test_attacks import audited, told
from tests.support.edge import Answer, Edge
from tests.support.oidc import Provider

pytestmark = pytest.mark.asyncio(loop_scope="module")

PERMISSIONS = permissions(contract.services())
PAGE = {"x_agentnet_page": "1"}
FILES = ("", "/app.js", "/api.js", "/asking.js", "/draw.js", "/overview.js", "/session.js")
DATA = ("/v1/caller", "/v1/sessions", "/v1/cost/summary", "/v1/budgets", "/v1/violations", "/v1/audit")
VERIFIER = "v" * 64


async def signed_in(edge: Edge, token: str) -> str:
    """The cookie, as a browser sends it back."""
    answer = await edge.rest("POST", "/v1/dashboard/session", {}, authorization=f"Bearer {token}", **PAGE)
    assert answer.status == 200, answer.text
    return cookie_of(answer)


def cookie_of(answer: Answer) -> str:
    said = answer.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(said.split("; "))
    assert 0 < int(said.partition("Max-Age=")[2].partition(";")[0]) <= 3600
    return str(said.partition(";")[0])


async def test_without_a_cookie_every_page_and_datum_is_refused(edge: Edge) -> None:
    for file in FILES:
        answer = await edge.rest("GET", f"/dashboard{file}")
        assert (answer.status, answer.headers["location"], answer.text) == (303, "/dashboard/sign-in", "")
        assert (await audited(edge, answer.headers["x-request-id"])).reason == "CREDENTIALS_MISSING"
    for path in DATA:
        assert (await edge.rest("GET", path, **PAGE)).status == 401
    page = await edge.rest("GET", "/dashboard/sign-in")
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    for hidden in ("app.js", "index.html", "..%2fservice.py", "service.py"):
        assert (await edge.rest("GET", f"/dashboard/sign-in/{hidden}")).status in {400, 501}


async def test_pages_are_static_and_say_what_may_run_in_them(edge: Edge) -> None:
    """Nothing of another host, nothing inline, nothing that a text could become."""
    cookie = await signed_in(edge, edge.token())
    pages = [await edge.rest("GET", f"/dashboard{file}", cookie=cookie) for file in FILES]
    pages += [await edge.rest("GET", f"/dashboard/sign-in{file}") for file in ("", "/sign-in.js", "/style.css")]
    for page in pages:
        assert page.status == 200
        assert page.headers.getall("content-security-policy") == [POLICY]
        assert page.headers["cache-control"] == "no-store"
        assert not re.search(
            r"innerHTML|\beval\(|https?://(?!www\.w3\.org/)|<script>|<style| style=| on\w+=\"", page.text
        )
    assert "unsafe" not in POLICY
    assert "script-src 'self'" in POLICY
    assert (await edge.rest("GET", "/dashboard/other.js", cookie=cookie)).reason == "NOT_SERVED"


@pytest.mark.parametrize("role", ["admin", "auditor", "tenant_user"])
async def test_the_cookie_brings_the_rights_of_who_signed_in_and_no_others(edge: Edge, role: str) -> None:
    token = edge.token(role)
    cookie = await signed_in(edge, token)
    mine = (await edge.rest("GET", "/v1/caller", cookie=cookie, **PAGE)).body["principal"]
    assert (mine["tenant_id"], mine["subject"], mine["roles"]) == ("acme", "ada", [role])
    for path in ("/v1/keys", "/v1/users", "/v1/audit", "/v1/tenants"):
        answers = [await edge.bearer("GET", path, token), await edge.rest("GET", path, cookie=cookie, **PAGE)]
        assert answers[0].status == answers[1].status, path


async def test_a_key_signs_in_and_what_is_no_credential_does_not(edge: Edge) -> None:
    made = await edge.ok("POST", "/v1/keys", edge.token(), {"display_name": "k", "roles": ["operator"]})
    cookie = await signed_in(edge, made["secret"])
    assert made["secret"] not in cookie
    mine = (await edge.rest("GET", "/v1/caller", cookie=cookie, **PAGE)).body["principal"]
    assert mine["roles"] == ["operator"]
    answer = await edge.rest("POST", "/v1/dashboard/session", {}, authorization="Bearer ank.acme.key_1.no", **PAGE)
    assert (answer.status, answer.reason) == (401, "API_KEY_INVALID")
    assert "set-cookie" not in answer.headers


async def test_a_cookie_is_not_to_be_forged_or_turned_into_a_token(edge: Edge) -> None:
    cookie = await signed_in(edge, edge.token())
    name, _, value = cookie.partition("=")
    for forged in (edge.token(), value[:-8] + "AAAAAAA=", "nonsense", "é", "A" * 9000, value[40:]):
        answer = await edge.rest("GET", "/v1/caller", cookie=f"{name}={forged}", **PAGE)
        assert answer.status == 401, forged
    assert (await edge.rest("GET", "/v1/caller", authorization=f"Bearer {value}")).status == 401
    assert (await edge.rest("GET", "/v1/caller", cookie=f"other=1; {cookie}; last=2", **PAGE)).status == 200


async def test_pages_of_other_sites_do_nothing_with_the_cookie(edge: Edge) -> None:
    """Neither read nor write, whatever the browser would send along."""
    cookie, own = await signed_in(edge, edge.token()), {"origin": f"http://{edge.address}"}
    body = {"display_name": "k", "roles": ["admin"]}

    async def post(**headers: str) -> Answer:
        return await edge.rest("POST", "/v1/keys", body, cookie=cookie, **headers)

    assert (await post(**own, **PAGE)).status == 200
    strangers: list[dict[str, str]] = [
        {}, PAGE, own, {"origin": "http://evil.example"}, {"origin": "http://evil.example", **PAGE},
        {"origin": "null", **PAGE}, {"origin": f"http://{edge.address}.evil.example", **PAGE},
        {"origin": "http://127.0.0.1:1", **PAGE},
    ]  # fmt: skip
    for headers in strangers:
        answer = await post(**headers)
        assert (answer.status, answer.reason) == (401, "CREDENTIALS_MISSING"), headers
        assert (await audited(edge, answer.headers["x-request-id"])).reason == "CREDENTIALS_MISSING"
    for headers in ({}, {"origin": "http://evil.example", **PAGE}):
        assert (await edge.rest("GET", "/v1/keys", cookie=cookie, **headers)).status == 401
    preflight = await edge.rest(
        "OPTIONS", "/v1/keys", origin="http://localhost:3000", access_control_request_method="POST",
        access_control_request_headers="x-agentnet-page",
    )  # fmt: skip
    assert "x-agentnet-page" not in preflight.headers.get("access-control-allow-headers", "")
    assert "access-control-allow-credentials" not in preflight.headers


async def test_signing_out_takes_the_cookie_away(edge: Edge) -> None:
    cookie = await signed_in(edge, edge.token(subject="leaver"))
    answer = await edge.rest("DELETE", "/v1/dashboard/session", cookie=cookie, origin=edge.url, **PAGE)
    assert answer.status == 200
    assert "Max-Age=0" in answer.headers["set-cookie"]
    for action in ("dashboard.signed_in", "dashboard.signed_out"):
        path = f"/v1/audit?action={action}&subject=leaver"
        assert len((await edge.ok("GET", path, edge.token("auditor")))["entries"]) == 1


async def test_who_is_shut_out_is_out_of_the_dashboard_too(edge: Edge) -> None:
    cookie = await signed_in(edge, edge.token("auditor", subject="gone"))
    await edge.ok("PUT", "/v1/users/gone", edge.token(), {"subject": "gone", "standing": "STANDING_SUSPENDED"})
    assert (await edge.rest("GET", "/v1/caller", cookie=cookie, **PAGE)).reason == "USER_SUSPENDED"


def code(provider: Provider, verifier: str = VERIFIER, **claims: Any) -> str:
    """What the issuer would send the browser back with, after the user agreed there."""
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
    whole = {"aud": "agentnet", "organization": ["acme"], "realm_access": {"roles": ["mesh-admin"]}, **claims}
    return provider.granted("keycloak", challenge, "http://here/dashboard/sign-in", whole)


async def by_code(edge: Edge, provider: Provider, code: str, **headers: str) -> Answer:
    body = {
        "issuer": provider.url("keycloak"), "code": code, "code_verifier": VERIFIER,
        "redirect_uri": "http://here/dashboard/sign-in",
    }  # fmt: skip
    return await edge.rest("POST", "/v1/dashboard/session/code", body, **headers)


async def test_an_issuers_user_signs_in_with_a_code_and_pkce(edge: Edge, provider: Provider) -> None:
    (issuer,) = (await edge.rest("GET", "/v1/dashboard/issuers")).body["issuers"]
    assert issuer["issuer"] == provider.url("keycloak")
    assert (issuer["client_id"], issuer["audience"]) == ("dashboard", "agentnet")
    answer = await by_code(edge, provider, code(provider), **PAGE)
    assert (answer.status, answer.body["principal"]["subject"]) == (200, "grace")
    mine = await edge.rest("GET", "/v1/caller", cookie=cookie_of(answer), **PAGE)
    assert mine.body["principal"]["roles"] == ["admin"]


async def test_codes_that_are_not_this_browsers_sign_nobody_in(edge: Edge, provider: Provider) -> None:
    good = code(provider)
    assert (await by_code(edge, provider, good)).reason == "CREDENTIALS_MISSING"  # another site's page
    assert (await by_code(edge, provider, good, **PAGE)).status == 200
    for bad in (good, "unknown", code(provider, verifier="w" * 64), code(provider, aud="another")):
        answer = await by_code(edge, provider, bad, **PAGE)
        assert (answer.status, answer.reason) == (401, "TOKEN_UNTRUSTED"), answer.text
        assert "set-cookie" not in answer.headers
        assert (await told(edge, request_id=answer.headers["x-request-id"])).reason == "TOKEN_UNTRUSTED"
    answer = await edge.rest("GET", "/dashboard/sign-in?code=a&state=b&session_state=c&iss=d")
    assert answer.status == 200


async def test_over_tls_the_cookie_is_secure_and_the_hosts_own() -> None:
    cookies = Cookies(Seal("pepper"), PERMISSIONS, secure=True)
    said = cookies.made("token", timedelta(minutes=5)).split("; ")
    assert said[0].startswith("__Host-agentnet=")
    assert said[1:] == ["Path=/", "Max-Age=300", "HttpOnly", "SameSite=Strict", "Secure"]
    assert cookies.credential(DASHBOARD, {"cookie": said[0]}) == "token"
    assert not cookies.credential(DASHBOARD, {"cookie": said[0].replace("__Host-", "")})
