"""Credentials nobody should get in with, through the real Envoy: each is refused with its reason, and audited."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable
from typing import Any

import aiohttp
import jwt
import pytest

from services.gateway.audit import REFUSED, STRANGERS, AuditEntry, AuditFilter
from shared.identity import HEADER
from shared.paging import Page
from tests.support.edge import Edge
from tests.support.oidc import Provider

pytestmark = pytest.mark.asyncio(loop_scope="module")

CLAIMS = {"iss": "agentnet-local", "aud": "agentnet", "sub": "eve", "tenant": "acme", "roles": ["admin"]}
LATER = 4_000_000_000
Forge = Callable[[Edge, Any], str]


def segment(data: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(data).encode()).decode().rstrip("=")


def edge_token(edge: Edge, changes: dict[str, Any], **header: Any) -> str:
    """Signed by the edge's real key, with claims or headers a thief would want."""
    key = edge.state.key("edge.pem").read_text()
    headers = {"kid": "local", **header}
    return jwt.encode({**CLAIMS, "exp": LATER, **changes}, key, algorithm="ES256", headers=headers)


def unsigned(_edge: Edge, _provider: Provider) -> str:
    return f"{segment({'alg': 'none', 'typ': 'JWT'})}.{segment({**CLAIMS, 'exp': LATER})}."


def keycloak(provider: Provider, changes: dict[str, Any] | None = None, **header: Any) -> str:
    claims = {"aud": "agentnet", "organization": ["acme"], "realm_access": {"roles": ["mesh-admin"]}}
    return provider.token(provider.url("keycloak"), claims | (changes or {}), **header)


def confused(_edge: Edge, provider: Provider) -> str:
    """The issuer's public key taken for a shared secret."""
    claims = {"iss": provider.url("keycloak"), "aud": "agentnet", "sub": "eve", "organization": "acme", "exp": LATER}
    signed = f"{segment({'alg': 'HS256', 'typ': 'JWT', 'kid': 'first'})}.{segment(claims)}"
    import hashlib
    import hmac

    mark = hmac.digest(provider.public_pem(), signed.encode(), hashlib.sha256)
    return f"{signed}.{base64.urlsafe_b64encode(mark).decode().rstrip('=')}"


def tampered(edge: Edge, _provider: Provider) -> str:
    head, _, mark = edge.token().split(".")
    return f"{head}.{segment({**CLAIMS, 'tenant': 'victim', 'exp': LATER})}.{mark}"


def header_for_token(edge: Edge, _provider: Provider) -> str:
    """An identity header of the mesh's, which the gateway's own key signed, sent as a token."""
    claims = {"iss": "agentnet-gateway", "aud": "agentnet-mesh", "sub": "eve", "tenant": "acme", "roles": ["admin"]}
    key = edge.state.key("gateway.pem").read_text()
    return jwt.encode({**claims, "kind": "token", "exp": LATER}, key, algorithm="EdDSA", headers={"kid": "gateway"})


ATTACKS: dict[str, tuple[Forge, str]] = {
    "alg none": (unsigned, "TOKEN_UNTRUSTED"),
    "alg none, signature kept": (
        lambda e, _: f"{segment({'alg': 'none'})}.{segment({**CLAIMS, 'exp': LATER})}.{e.token().split('.')[2]}",
        "TOKEN_UNTRUSTED",
    ),
    "the key as a shared secret": (confused, "TOKEN_UNTRUSTED"),
    "a secret of its own": (
        lambda *_: jwt.encode({**CLAIMS, "exp": LATER}, "k" * 32, algorithm="HS256"),
        "TOKEN_UNTRUSTED",
    ),
    "kid with a path": (lambda e, _: edge_token(e, {}, kid="../../edge.pem"), "TOKEN_UNTRUSTED"),
    "kid with SQL": (lambda _, p: keycloak(p, kid="' or 1=1 --"), "TOKEN_UNTRUSTED"),
    "kid of another issuer": (
        lambda _, p: jwt.encode(
            {"iss": p.url("keycloak"), "sub": "e", "aud": "agentnet", "exp": LATER},
            "k" * 32,
            algorithm="HS256",
            headers={"kid": "local"},
        ),
        "TOKEN_UNTRUSTED",
    ),
    "jku of its own": (lambda _, p: keycloak(p, kid="evil", jku="http://127.0.0.1:1/keys"), "TOKEN_UNTRUSTED"),
    "expired": (lambda e, _: edge_token(e, {"exp": 1_000_000_000}), "TOKEN_EXPIRED"),
    "expired, of an issuer": (lambda _, p: keycloak(p, {"exp": 1_000_000_000}), "TOKEN_EXPIRED"),
    "not yet": (lambda e, _: edge_token(e, {"nbf": int(time.time()) + 900}), "TOKEN_UNTRUSTED"),
    "not yet, of an issuer": (lambda _, p: keycloak(p, {"nbf": int(time.time()) + 900}), "TOKEN_UNTRUSTED"),
    "another audience": (lambda e, _: edge_token(e, {"aud": "another"}), "TOKEN_UNTRUSTED"),
    "another audience, of an issuer": (lambda _, p: keycloak(p, {"aud": "account"}), "TOKEN_UNTRUSTED"),
    "no audience": (lambda _, p: keycloak(p, {"aud": None}), "TOKEN_CLAIM_MISSING"),
    "another issuer": (lambda e, _: edge_token(e, {"iss": "https://evil.example"}), "TOKEN_UNTRUSTED"),
    "claims swapped under a signature": (tampered, "TOKEN_UNTRUSTED"),
    "an identity header as a token": (header_for_token, "TOKEN_UNTRUSTED"),
    "no tenant": (lambda e, _: edge_token(e, {"tenant": ""}), "TOKEN_CLAIM_MISSING"),
    "a tenant with a path": (lambda e, _: edge_token(e, {"tenant": "../victim"}), "TOKEN_CLAIM_MISSING"),
    "two tenants": (lambda _, p: keycloak(p, {"organization": ["acme", "victim"]}), "TOKEN_CLAIM_MISSING"),
    "no role": (lambda e, _: edge_token(e, {"roles": ["root"]}), "TOKEN_CLAIM_MISSING"),
    "a key that is none": (lambda *_: "ank.acme.key_1.nothing", "API_KEY_INVALID"),
    "a key with a path": (lambda *_: "ank.../victim.key_1.nothing", "API_KEY_INVALID"),
    "no token at all": (lambda *_: "nonsense", "TOKEN_MALFORMED"),
    "a very long one": (lambda *_: "e30." + "A" * 20_000 + ".x", "TOKEN_MALFORMED"),
}


async def audited(edge: Edge, request_id: str, tenant: str = STRANGERS) -> AuditEntry:
    """The refusal of this call; refusals are stored a moment after."""
    for _ in range(50):
        entries = await edge.stores.audit.entries(tenant, AuditFilter(action=REFUSED), Page(size=500))
        for entry in entries:
            if entry.request_id == request_id:
                return entry
        await asyncio.sleep(0.02)
    raise AssertionError(f"{request_id} is not in the audit")


@pytest.mark.parametrize("name", ATTACKS)
async def test_a_forged_credential_is_refused_and_audited(edge: Edge, provider: Provider, name: str) -> None:
    forge, reason = ATTACKS[name]
    answer = await edge.rest("GET", "/v1/caller", authorization=f"Bearer {forge(edge, provider)}")
    assert (answer.status, answer.reason) == (401, reason)
    known = "acme" if name == "no role" else STRANGERS
    entry = await audited(edge, answer.headers["x-request-id"], known)
    assert entry.reason == reason
    assert entry.target == "/agentnet.gateway.v1.IdentityService/GetCaller"
    assert entry.address == "127.0.0.1"


@pytest.mark.parametrize("mine", ["order-4711/2", "4b51c4e1-230a-4bd8-810c-063006d6b23e"])
async def test_a_callers_own_request_id_is_kept_echoed_and_audited(edge: Edge, mine: str) -> None:
    answer = await edge.rest("GET", "/v1/caller", x_request_id=mine)
    assert (answer.status, answer.headers["x-request-id"]) == (401, mine)
    assert (await audited(edge, mine, STRANGERS)).request_id == mine
    assert (await edge.rest("GET", "/v1/caller", x_request_id="x" * 5000)).status == 401
    assert (await audited(edge, "x" * 64, STRANGERS)).reason == "CREDENTIALS_MISSING"


async def test_a_good_token_of_each_issuer_gets_in(edge: Edge, provider: Provider) -> None:
    for token in (edge.token(), keycloak(provider)):
        caller = (await edge.ok("GET", "/v1/caller", token))["principal"]
        assert (caller["tenant_id"], caller["roles"]) == ("acme", ["admin"])


async def test_a_revoked_key_does_not_get_in_again(edge: Edge) -> None:
    made = await edge.ok("POST", "/v1/keys", edge.token(), {"display_name": "k", "roles": ["operator"]})
    assert (await edge.rest("GET", "/v1/caller", x_api_key=made["secret"])).status == 200
    await edge.ok("POST", f"/v1/keys/{made['key']['id']}/revoke", edge.token(), {})
    answer = await edge.rest("GET", "/v1/caller", x_api_key=made["secret"])
    assert (answer.status, answer.reason) == (401, "API_KEY_INVALID")
    assert (await audited(edge, answer.headers["x-request-id"])).reason == "API_KEY_INVALID"


async def test_the_tenant_comes_from_the_credential_and_from_nothing_else(edge: Edge) -> None:
    spoofed = {"x_tenant_id": "victim", "x_agentnet_tenant": "victim", "tenant": "victim"}
    answer = await edge.rest("GET", "/v1/caller", authorization=f"Bearer {edge.token()}", **spoofed)
    assert answer.body["principal"]["tenant_id"] == "acme"
    body = {"display_name": "swap", "roles": ["admin"]}
    for verb, path, more in (
        ("GET", "/v1/caller?tenant_id=victim", None),
        ("POST", "/v1/keys", body | {"tenant": "victim"}),
    ):
        answer = await edge.bearer(verb, path, edge.token(), more)
        assert (answer.status, answer.reason) == (400, "FIELD_INVALID")
        entry = await audited(edge, answer.headers["x-request-id"], "acme")
        assert (entry.subject, entry.reason) == ("ada", "FIELD_INVALID")
    made = await edge.ok("POST", "/v1/keys", edge.token(), body)
    assert await edge.stores.keys.find("acme", made["key"]["id"])
    assert not await edge.stores.keys.keys("victim", active_at=None, page=Page())


async def test_identity_headers_of_the_clients_own_never_arrive(edge: Edge) -> None:
    forged = header_for_token(edge, None)
    answer = await edge.rest("GET", "/v1/caller", x_agentnet_identity=forged)
    assert (answer.status, answer.reason) == (401, "CREDENTIALS_MISSING")
    answer = await edge.rest(
        "GET", "/v1/caller", x_agentnet_identity=forged, authorization=f"Bearer {edge.token('auditor')}"
    )
    assert answer.body["principal"]["roles"] == ["auditor"]


async def raw(edge: Edge, text: str) -> bytes:
    """What Envoy answers to these very bytes."""
    host, _, port = edge.address.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(text.replace("\n", "\r\n").encode(errors="surrogateescape"))
    await writer.drain()
    answer = await asyncio.wait_for(reader.read(65_536), 5)
    writer.close()
    return answer


SMUGGLED = {
    "http1.content_length_and_chunked_not_allowed": "Content-Length: 0\nTransfer-Encoding: chunked\n",
    "http1.invalid_transfer_encoding": "Transfer-Encoding: chunked, identity\n",
    "http1.codec_error": "Content-Length: 0\nContent-Length: 5\n",
    "http1.unexpected_underscore": f"{HEADER.replace('-', '_')}: forged\n",
    "http1.headers_too_large": f"X-Big: {'a' * 64 * 1024}\n",
    "http1.too_many_headers": "".join(f"X-H{number}: a\n" for number in range(150)),
}


async def test_smuggled_headers_are_refused_before_anyone_reads_them_and_audited(edge: Edge) -> None:
    for head in SMUGGLED.values():
        answer = await raw(edge, f"POST /v1/keys HTTP/1.1\nHost: edge\nX-Api-Key: secret\n{head}\n")
        assert answer.split(b" ", 2)[1] in {b"400", b"431", b"501"}
    for reason in SMUGGLED:
        assert (await told(edge, reason=reason)).address == "127.0.0.1"


async def told(edge: Edge, **wanted: str) -> AuditEntry:
    """A refusal of a stranger's with these values; what Envoy refuses itself is told within a second."""
    for _ in range(100):
        for entry in await edge.stores.audit.entries(STRANGERS, AuditFilter(action=REFUSED), Page(size=10_000)):
            if all(getattr(entry, name) == value for name, value in wanted.items()):
                assert "secret" not in str(entry)
                return entry
        await asyncio.sleep(0.03)
    raise AssertionError(f"{wanted} is not in the audit")


async def test_two_credentials_do_not_add_up(edge: Edge) -> None:
    """A verified token is who calls, whatever key comes with it; two authorization headers are none."""
    made = await edge.ok("POST", "/v1/keys", edge.token(), {"display_name": "k", "roles": ["admin"]})
    auditor = f"Bearer {edge.token('auditor')}"
    answer = await edge.rest("GET", "/v1/caller", authorization=auditor, x_api_key=made["secret"])
    assert answer.body["principal"]["roles"] == ["auditor"]
    answer = await edge.rest("GET", "/v1/caller", authorization=f"Bearer {tampered(edge, None)}", x_api_key="ank.a.b.c")
    assert answer.status == 401
    good, forged = edge.token("auditor"), unsigned(edge, None)
    head = f"Authorization: Bearer {forged}\nAuthorization: Bearer {good}\n"
    answer_bytes = await raw(edge, f"GET /v1/caller HTTP/1.1\nHost: edge\nConnection: close\n{head}\n")
    assert answer_bytes.split(b" ", 2)[1] == b"401"


PATHS = (
    "/healthz/../v1/keys",
    "/healthz/%2e%2e/v1/keys",
    "//v1//keys",
    "/v1/keys/",
    "/v1/keys;jsessionid=1",
    "/V1/KEYS",
    "/healthz%2f..%2fv1%2fkeys?token=secret",
    "/healthz\\..\\v1\\keys",
    "/agentnet.gateway.v1.HealthService/../agentnet.gateway.v1.KeyService/ListKeys",
    "/agentnet.gateway.v1.KeyService/ListKeys?token=secret",
    "/agentnet.gateway.v1.KeyService/ListKeys?/agentnet.gateway.v1.HealthService/GetHealth",
    "/envoy.service.auth.v3.Authorization/Check",
    "/grpc.health.v1.Health/Check",
    "http://internal/agentnet.cost.v1.CostService/Settle",
    "/v1/keys/%00",
)


async def test_no_way_of_writing_a_path_leads_around_admission_or_the_audit(edge: Edge) -> None:
    """Whether gateway refuses or Envoy itself, which asks nobody about a path that can be read in two ways."""
    for number, path in enumerate(PATHS):
        answer = await raw(
            edge,
            f"POST {path} HTTP/1.1\nHost: edge\nContent-Length: 0\nConnection: close\nX-Request-Id: path-{number}\n\n",
        )
        assert int(answer.split(b" ", 2)[1]) in {400, 401}, answer
        assert b"display_name" not in answer
    reasons = {path: (await told(edge, request_id=f"path-{number}")).reason for number, path in enumerate(PATHS)}
    assert set(reasons.values()) == {"CREDENTIALS_MISSING", "path_normalization_failed"}


async def test_a_caller_whose_headers_are_no_text_hides_no_refusal(edge: Edge) -> None:
    for mark in ("\udcff\udcfe\udc80", "unhidden"):
        await raw(edge, f"GET /healthz%2fx HTTP/1.1\nHost: e\nConnection: close\nX-Request-Id: {mark}\n\n")
    assert (await told(edge, request_id="unhidden")).target == "/healthz/x"
    await told(edge, request_id="\ufffd" * 3)


async def test_methods_of_the_mesh_alone_are_closed_to_admins(edge: Edge) -> None:
    async with aiohttp.ClientSession() as session:
        headers = {"authorization": f"Bearer {edge.token()}", "content-type": "application/grpc", "te": "trailers"}
        async with session.post(f"{edge.url}/agentnet.cost.v1.CostService/Settle", headers=headers) as answer:
            assert answer.headers["grpc-status"] == "7"
            entry = await audited(edge, answer.headers["x-request-id"], "acme")
    assert (entry.subject, entry.reason) == ("ada", "ROLE_INSUFFICIENT")


async def test_large_and_many_headers_are_refused(edge: Edge) -> None:
    big = await edge.rest("GET", "/v1/caller", authorization=f"Bearer {edge.token()}", x_big="a" * 64 * 1024)
    assert big.status == 431
    many = {f"x_h{number}": "a" for number in range(150)}
    assert (await edge.rest("GET", "/v1/caller", **many)).status == 431


async def test_every_answer_carries_the_security_headers(edge: Edge) -> None:
    asked = [await edge.rest("GET", "/v1/caller"), await edge.bearer("GET", "/v1/caller", edge.token())]
    asked += [await edge.bearer("GET", path, edge.token()) for path in ("/v1/nothing", "/v1/keys?page_size=x")]
    assert [answer.status for answer in asked] == [401, 200, 404, 400]
    for answer in asked:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["cache-control"] == "no-store"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert "max-age=31536000" in answer.headers["strict-transport-security"]


async def test_pages_of_known_origins_may_read_answers_and_refusals_over_rest(edge: Edge) -> None:
    known, allowed = "http://localhost:3000", "access-control-allow-origin"
    good = f"Bearer {edge.token()}"
    for credential, status in ((good, 200), ("Bearer nonsense", 401)):
        answer = await edge.rest("GET", "/v1/caller", origin=known, authorization=credential)
        assert (answer.status, answer.headers[allowed]) == (status, known)
        assert "ratelimit" in answer.headers["access-control-expose-headers"]
    assert (
        allowed not in (await edge.rest("GET", "/v1/caller", origin="http://evil.example", authorization=good)).headers
    )
    asked = {"access_control_request_method": "GET", "access_control_request_headers": "authorization"}
    assert (await edge.rest("OPTIONS", "/v1/caller", origin=known, **asked)).headers[allowed] == known
