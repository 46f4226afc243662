"""More that a thief would try, through the real Envoy: forged headers of tokens, keys used again, every method's door."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from services.gateway import contract
from services.gateway.audit import REFUSED, STRANGERS, AuditFilter
from services.gateway.permissions import ROLES, permissions
from shared.paging import Page
from tests.service.gateway.test_attacks import CLAIMS, LATER, audited, edge_token, raw, segment, told
from tests.support.edge import Answer, Edge

pytestmark = pytest.mark.asyncio(loop_scope="module")

PERMISSIONS = permissions(contract.services())
THIEF = ec.generate_private_key(ec.SECP256R1())


def stolen(**header: Any) -> str:
    """Signed by the thief's own key, with a header that wants it believed."""
    return jwt.encode({**CLAIMS, "exp": LATER}, THIEF, algorithm="ES256", headers=header)


def by_hand(header: dict[str, Any], mark: bytes = b"") -> str:
    signed = f"{segment(header)}.{segment({**CLAIMS, 'exp': LATER})}"
    return f"{signed}.{base64.urlsafe_b64encode(mark).decode().rstrip('=')}"


def by_secret(secret: bytes, kid: str) -> str:
    head = f"{segment({'alg': 'HS256', 'kid': kid})}.{segment({**CLAIMS, 'exp': LATER})}"
    mark = hmac.digest(secret, head.encode(), "sha256")
    return f"{head}.{base64.urlsafe_b64encode(mark).decode().rstrip('=')}"


def twice(edge: Edge) -> str:
    """Claims that name the tenant twice, under a signature that is none of theirs."""
    head, _, mark = edge.token().split(".")
    text = f'{{"iss":"agentnet-local","aud":"agentnet","exp":{LATER},"sub":"eve","tenant":"acme","tenant":"victim"}}'
    return f"{head}.{base64.urlsafe_b64encode(text.encode()).decode().rstrip('=')}.{mark}"


FORGED = {
    "alg None": lambda _: by_hand({"alg": "None"}),
    "alg nOnE with the edge's kid": lambda _: by_hand({"alg": "nOnE", "kid": "local"}),
    "no alg": lambda _: by_hand({"kid": "local"}),
    "an alg that is a list": lambda _: by_hand({"alg": ["ES256", "none"], "kid": "local"}),
    "the signature of zeros": lambda _: by_hand({"alg": "ES256", "kid": "local"}, b"\x00" * 64),
    "the edge's public key as a secret": lambda e: by_secret(e.state.key("edge.jwks").read_bytes(), "local"),
    "the thief's key under the edge's kid": lambda _: stolen(kid="local"),
    "the thief's key in jwk": lambda _: stolen(kid="local", jwk=json.loads(ECAlgorithm.to_jwk(THIEF.public_key()))),
    "the thief's chain in x5u": lambda _: stolen(kid="local", x5u="http://127.0.0.1:1/chain.pem"),
    "kid of /dev/null": lambda _: by_secret(b"", "/dev/null"),
    "kid with a zero byte": lambda _: stolen(kid="local\x00.pem"),
    "kid with a new line": lambda _: stolen(kid="local\r\nx-agentnet-identity: forged"),
    "kid that is a URL": lambda _: stolen(kid="http://127.0.0.1:1/keys"),
    "kid that is a number": lambda _: by_hand({"alg": "ES256", "kid": 7}, b"\x01" * 64),
    "critical headers nobody knows": lambda e: edge_token(e, {}, crit=["b64", "exp"], b64=False, kid="elsewhere"),
    "an encrypted token": lambda _: ".".join([segment({"alg": "dir", "enc": "A256GCM"}), *("AAAA",) * 4]),
    "a tenant named twice": twice,
    "the edge's token with a bit turned": lambda e: e.token()[:-6] + "AAAAAA",
}


@pytest.mark.parametrize("name", FORGED)
async def test_forged_headers_of_tokens_are_refused_and_audited(edge: Edge, name: str) -> None:
    answer = await edge.rest("GET", "/v1/caller", authorization=f"Bearer {FORGED[name](edge)}")
    assert answer.status == 401, answer.text
    entry = await audited(edge, answer.headers["x-request-id"])
    assert (entry.reason, entry.subject) == (answer.reason, "")


async def made_key(edge: Edge, **more: Any) -> dict[str, Any]:
    body = {"display_name": "k", "roles": ["operator"], **more}
    found: dict[str, Any] = await edge.ok("POST", "/v1/keys", edge.token(), body)
    return found


async def refused_key(edge: Edge, secret: str) -> None:
    """Refused, and in the audit, wherever it is sent."""
    for headers in ({"x_api_key": secret}, {"authorization": f"Bearer {secret}"}):
        answer: Answer = await edge.rest("GET", "/v1/caller", **headers)
        assert (answer.status, answer.reason) == (401, "API_KEY_INVALID"), answer.text
        assert (await audited(edge, answer.headers["x-request-id"])).reason == "API_KEY_INVALID"


async def test_a_key_in_another_tenants_name_is_no_key(edge: Edge) -> None:
    secret = (await made_key(edge))["secret"]
    kind, _, rest = secret.split(".", 2)
    await refused_key(edge, f"{kind}.victim.{rest}")
    await refused_key(edge, f"{kind}.acme.{rest[:-1]}")


async def test_a_key_that_ended_or_was_replaced_is_refused_when_it_is_sent_again(edge: Edge) -> None:
    ends = (datetime.now(UTC) + timedelta(seconds=1.2)).isoformat()
    short = await made_key(edge, expire_time=ends)
    old = await made_key(edge)
    await edge.ok("POST", f"/v1/keys/{old['key']['id']}/rotate", edge.token(), {"grace": "0s"})
    await asyncio.sleep(1.3)
    for secret in (short["secret"], old["secret"]):
        await refused_key(edge, secret)


async def test_a_tenant_in_path_query_or_body_changes_nothing(edge: Edge) -> None:
    """What is another tenant's is not there, however it is asked for."""
    theirs = await edge.ok(
        "POST", "/v1/keys", edge.token(tenant="victim"), {"display_name": "v", "roles": ["operator"]}
    )
    key = theirs["key"]["id"]
    for path in (f"/v1/keys/{key}/revoke", f"/v1/keys/{key}/rotate"):
        for more in ("", "?tenant_id=victim", "?tenant=victim"):
            body = {"tenant_id": "victim", "principal": {"tenant_id": "victim", "roles": ["admin"]}}
            answer = await edge.rest(
                "POST", path + more, body, authorization=f"Bearer {edge.token()}", x_tenant_id="victim",
                x_forwarded_tenant="victim", x_envoy_original_path="/healthz", x_original_url="/healthz",
                x_rewrite_url="/healthz", x_http_method_override="GET", x_forwarded_for="10.0.0.1",
            )  # fmt: skip
            assert answer.status in {400, 404}, answer.text
    assert (await edge.rest("GET", "/v1/caller", x_api_key=theirs["secret"])).body["principal"]["tenant_id"] == "victim"


@pytest.mark.parametrize(
    "head",
    [
        "x-agentnet-identity : forged\n",
        " x-agentnet-identity: forged\n",
        "x-a: 1\r x-agentnet-identity: forged\n",
        "x-a: 1\x00\nx-agentnet-identity: forged\n",
        "Connection: authorization\nX-AGENTNET-IDENTITY: forged\n",
        "Transfer-Encoding:\x0bchunked\nContent-Length: 3\n",
        "Host: other\nHost: edge\n",
    ],
    ids=["space before the colon", "folded", "bare CR", "zero byte", "hop by hop", "vertical tab", "two hosts"],
)
async def test_headers_written_in_strange_ways_let_nobody_in(edge: Edge, head: str) -> None:
    answer = await raw(
        edge, f"GET /v1/caller HTTP/1.1\nHost: edge\nConnection: close\n{head}X-Request-Id: {hash(head)}\n\n"
    )
    status = answer.split(b" ", 2)[1]
    assert status in {b"400", b"401", b"501"}, answer
    if status == b"401":
        await told(edge, request_id=str(hash(head)))
    else:
        await told(edge, reason="http1.codec_error")


async def test_every_method_asks_for_a_credential_and_for_its_permission_and_audits_who_lacks_it(edge: Edge) -> None:
    """Each path of the contract and of what is served beside it, over gRPC: no credential, then a role without it, then a
    narrowed credential without its scope.
    """
    body = {"scopes": ["health:read"], "ttl": "600s"}
    narrow = (await edge.ok("POST", "/v1/tokens/exchange", edge.token(subject="narrow"), body))["token"]
    expected: list[tuple[str, str, str]] = []
    async with grpc.aio.insecure_channel(edge.address) as channel:
        for path, permission in PERMISSIONS.items():
            if permission.open or path.startswith("/grpc.reflection"):
                continue
            assert await code(channel, path, "") == grpc.StatusCode.UNAUTHENTICATED, path
            expected.append((STRANGERS, path, "CREDENTIALS_MISSING"))
            assert await code(channel, path, narrow) == grpc.StatusCode.PERMISSION_DENIED, path
            expected.append(("acme", path, "SCOPE_INSUFFICIENT"))
            for role in sorted(ROLES - permission.roles)[:1]:
                token = edge.token(role, subject=f"only-{role}")
                assert await code(channel, path, token) == grpc.StatusCode.PERMISSION_DENIED, (path, role)
                expected.append(("acme", path, "ROLE_INSUFFICIENT"))
    assert len(expected) > 400
    await asyncio.sleep(0.1)
    wanted = AuditFilter(action=REFUSED)
    for tenant in ("acme", STRANGERS):
        noted = {
            (entry.target, entry.reason)
            for entry in await edge.stores.audit.entries(tenant, wanted, Page(size=100_000))
        }
        assert {(path, reason) for owner, path, reason in expected if owner == tenant} <= noted


async def code(channel: grpc.aio.Channel, path: str, token: str) -> grpc.StatusCode:
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    call = channel.unary_stream(path)(b"", metadata=metadata, timeout=10)
    return await call.code()
