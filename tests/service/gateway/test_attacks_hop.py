"""Attacks on the hop from Envoy to the door: what a client sends to be taken there for Envoy's own word, or not at all."""

from __future__ import annotations

import asyncio
import base64
import json
import struct

import pytest

from tests.service.gateway.test_attacks import CLAIMS, LATER, audited, raw, told
from tests.support.edge import Edge

pytestmark = pytest.mark.asyncio(loop_scope="module")

FORGED = base64.urlsafe_b64encode(json.dumps({**CLAIMS, "tenant": "victim", "exp": LATER}).encode()).decode()
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


@pytest.mark.parametrize(
    "name", ["x-agentnet-claims", "X-AgentNet-Claims", "x-agentnet-address", "x-agentnet-body", "x-agentnet-identity",
             "x-agentnet-token-failure", "x-agentnet-content-type", "x-envoy-auth-headers-to-remove"],
)  # fmt: skip
async def test_words_of_envoys_own_are_never_the_clients(edge: Edge, name: str) -> None:
    answer = await raw(
        edge, f"GET /v1/caller HTTP/1.1\nHost: e\nConnection: close\n{name}: {FORGED}\nX-Request-Id: hop-{name}\n\n"
    )
    assert status(answer) == 401
    assert (await audited(edge, f"hop-{name}")).address == "127.0.0.1"
    both = await edge.rest("GET", "/v1/caller", authorization=f"Bearer {edge.token('auditor')}", **{name: FORGED})
    assert both.body["principal"]["tenant_id"] == "acme"
    assert both.body["principal"]["roles"] == ["auditor"]


@pytest.mark.parametrize(
    "head",
    [
        f"Authorization: Bearer x\r x-agentnet-claims: {FORGED}\n",
        f"X-Request-Id: a\x0bx-agentnet-claims: {FORGED}\n",
        f"X-Api-Key: ank.a.b.c\x00\nx-agentnet-claims: {FORGED}\n",
        f"Content-Type: application/grpc\x0c\nX-Agentnet-Claims : {FORGED}\n",
        f"X-Request-Id: \xff\xfe\x80 \xe2\x80\xa8x-agentnet-claims: {FORGED}\n",
        f"X-Request-Id: %0d%0ax-agentnet-claims:%20{FORGED}\n",
        f"X-Request-Id: a\\r\\nx-agentnet-claims: {FORGED}\n",
        f"Content-Type: application/json\nContent-Type: application/grpc\nX-Agentnet-Claims: {FORGED}\n",
        f"Authorization: Bearer a\nAuthorization: Basic b\nX-Agentnet-Claims: {FORGED}\nX-Agentnet-Claims: e30\n",
        "X-Api-Key: ank.acme.key_1.a\nX-Api-Key: ank.acme.key_1.b\n",
        "X-Api-Key: ank.acme.key_1.\x7f\x01\n",
    ],
)  # fmt: skip
async def test_header_values_do_not_become_headers(edge: Edge, head: str) -> None:
    answer = await raw(edge, f"GET /v1/caller HTTP/1.1\nHost: e\nConnection: close\n{head}\n")
    assert status(answer) in {400, 401}, answer
    assert b"victim" not in answer


def literal(name: bytes, value: bytes) -> bytes:
    """HPACK without index or Huffman."""
    return b"\x00" + bytes([len(name)]) + name + _length(len(value)) + value


def _length(number: int) -> bytes:
    if number < 127:
        return bytes([number])
    rest, found = number - 127, b"\x7f"
    while rest >= 128:
        found, rest = found + bytes([rest % 128 + 128]), rest // 128
    return found + bytes([rest])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"x-request-id", f"a\r\nx-agentnet-claims: {FORGED}".encode()),
        (b"authorization", f"Bearer a\nx-agentnet-claims: {FORGED}".encode()),
        (b"x-api-key", b"ank.acme.key_1.a\x00b"),
        (b"content-type", f"application/grpc\r\nx-agentnet-claims: {FORGED}".encode()),
        (b"x-agentnet-claims\r\nx", FORGED.encode()),
        (b"X-Agentnet-Claims", FORGED.encode()),
        (b":path", f"/v1/caller HTTP/1.1\r\nx-agentnet-claims: {FORGED}\r\n\r\nGET /".encode()),
        (b":path", b"/v1/keys"),
        (b":method", b"POST"),
        (b"x-agentnet-claims", FORGED.encode()),
        (b"connection", b"x-agentnet-claims"),
        (b"transfer-encoding", b"chunked"),
    ],
)
async def test_http2_carries_no_line_ends_into_the_question(edge: Edge, name: bytes, value: bytes) -> None:
    """Where values have lengths of their own they may hold anything; nothing of it may come out as a header of its own."""
    head = b"\x82\x86" + literal(b":authority", b"edge")
    head += (
        literal(name, value)
        if name == b":path" and b"HTTP" in value
        else literal(b":path", b"/v1/caller") + literal(name, value)
    )
    frame = struct.pack(">I", len(head))[1:] + b"\x01\x05" + struct.pack(">I", 1) + head
    host, _, port = edge.address.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(PREFACE + frame)
    answer = b""
    try:
        async with asyncio.timeout(1):
            while more := await reader.read(65_536):
                answer += more
                if b"CREDENTIALS_MISSING" in answer:
                    break
    except (TimeoutError, ConnectionError):
        pass
    writer.close()
    assert b"victim" not in answer
    assert b"principal" not in answer


PATHS = (
    "http://edge/v1/caller", "https://edge:443/v1/keys", "//v1/keys", "/v1/./keys", "/v1/%2e/keys", "/v1/%2e%2e/v1/keys",
    "/v1;a=b/keys", "/v1/keys;a=b", "/v1/keys%3Fa", "/v1/keys%23", "/v1/keys%00", "/v1/keys#x", "/v1/keys?path=/healthz",
    "/v1/keys?x-envoy-original-path=/healthz", "/v1/keys?%0d%0ax-agentnet-claims:%20e30", "/admit/v1/keys",
    "/identify/v1/keys", "/admit/agentnet.gateway.v1.KeyService/ListKeys", "/healthz?x=1&/../v1/keys", "*",
    "/v1/keys?" + "a=b&" * 6_000,
)  # fmt: skip


UNREAD = {"https://edge:443/v1/keys": "http1.https_url_on_plaintext_connection", "*": "http1.invalid_url"}


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_paths_lead_nowhere_else_at_the_door_and_each_is_audited(edge: Edge, method: str) -> None:
    mistaken: set[str] = set()
    for number, path in enumerate(PATHS):
        mark = f"Content-Length: 0\nX-Request-Id: {method}-{number}\nConnection: close\n"
        answer = await raw(edge, f"{method} {path} HTTP/1.1\nHost: edge\n{mark}\n")
        assert status(answer) in {400, 401, 403}, (path, answer)
        assert b"display_name" not in answer
        mistaken |= {path} if b"there is no query parameter" in answer else set()
    assert mistaken <= {"/healthz?x=1&/../v1/keys"}  # open to all, and not to parameters it does not know
    for number, path in enumerate(PATHS):
        assert path in mistaken or await told(
            edge, **({"reason": UNREAD[path]} if path in UNREAD else {"request_id": f"{method}-{number}"})
        )


async def test_cookies_as_large_as_headers_may_be_hinder_nobody(edge: Edge) -> None:
    good = {"authorization": f"Bearer {edge.token()}"}
    assert (await edge.rest("GET", "/v1/caller", cookie="a=" + "b" * 28_000, **good)).status == 200
    assert (await edge.rest("GET", "/v1/caller", cookie="a=" + "b" * 40_000, **good)).status == 431
    long = "x" * 24_000
    assert (await edge.rest("GET", "/v1/caller", x_other=long, **good)).status == 200
    assert (await edge.rest("GET", "/v1/caller", authorization=f"Bearer {long}")).status == 401


async def test_a_long_body_of_a_stranger_is_refused_before_it_is_sent(edge: Edge) -> None:
    for length in ("Content-Length: 16000000", "Transfer-Encoding: chunked"):
        answer = await raw(
            edge, f"POST /v1/keys HTTP/1.1\nHost: e\n{length}\nContent-Type: application/json\nX-Request-Id: long\n\n"
        )
        assert status(answer) == 401
        assert b"CREDENTIALS_MISSING" in answer
    entry = await audited(edge, "long")
    assert (entry.target, entry.reason) == ("/v1/keys", "CREDENTIALS_MISSING")


async def test_open_methods_refuse_parameters_they_do_not_know(edge: Edge) -> None:
    for path in ("/healthz", "/openapi.json", "/docs"):
        assert (await edge.rest("GET", path)).status == 200
    for path in ("/healthz?verbose=1", "/livez?verbose=1", "/docs?page=2", "/healthz?"):
        answer = await edge.rest("GET", path)
        assert answer.status == (200 if path.endswith("?") else 400), answer.text
    answer = await edge.rest("GET", "/healthz?verbose=1")
    assert (answer.reason, answer.body["message"]) == (
        "FIELD_INVALID", "there is no query parameter verbose; known here: none",
    )  # fmt: skip
