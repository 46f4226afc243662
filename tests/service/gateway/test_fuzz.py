"""What broken and hostile clients send, to the real Envoy before a real gateway: no 5xx that is not meant, no crash, and
memory that comes back: `make fuzz`. Schemathesis on the whole OpenAPI document is among `make test-clients`.
"""

from __future__ import annotations

import asyncio
import gzip
import os
import random
import resource
import socket
import struct
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from tests.support.conformance_edge import serve_all
from tests.support.edge import Edge, running_edge

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.heavy, pytest.mark.timeout(300)]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
IDLE = 10_000
# What Envoy keeps for a connection that has said nothing yet, and then some.
KILOBYTES_EACH = 20


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Edge]:
    _open_files(IDLE)
    async with running_edge(tmp_path_factory.mktemp("fuzz"), serve=serve_all) as running:
        yield running


def envoy_pid() -> int:
    """Of the one this process started."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            name, _, rest = stat.read_text().partition("(")[2].rpartition(")")
            if name.startswith("envoy") and int(rest.split()[1]) == os.getpid():
                return int(stat.parent.name)
    raise AssertionError("no Envoy runs")


def resident_kilobytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1])


async def connect(edge: Edge) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = edge.address.partition(":")
    return await asyncio.open_connection(host, int(port))


async def sent(edge: Edge, data: bytes, *, wait: float = 2) -> bytes:
    """All that comes back until the other side closes or is silent."""
    reader, writer = await connect(edge)
    answer = b""
    with suppress(ConnectionError, TimeoutError):
        writer.write(data)
        async with asyncio.timeout(wait):
            await writer.drain()
            while more := await reader.read(65_536):
                answer += more
    writer.close()
    return answer


async def well(edge: Edge) -> bool:
    """Whether others are served, if not at once: what a flood left in the queue is worked off first."""
    for _ in range(40):
        if (await edge.bearer("GET", "/v1/caller", edge.token())).status == 200:
            return True
        await asyncio.sleep(0.25)
    return False


def frame(kind: int, flags: int, stream: int, body: bytes, *, said: int | None = None) -> bytes:
    length = len(body) if said is None else said
    return struct.pack(">I", length)[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + body


# RFC 9113: DATA 0, HEADERS 1, PRIORITY 2, RST_STREAM 3, SETTINGS 4, PUSH_PROMISE 5, PING 6, GOAWAY 7, WINDOW_UPDATE 8,
# CONTINUATION 9. 0x82 0x86 0x84: GET, http, /.
SETTINGS = frame(4, 0, 0, b"")
FRAMES: dict[str, bytes] = {
    "a frame that says it is the largest": frame(0, 0, 1, b"x", said=0xFFFFFF),
    "data on stream 0": frame(0, 0, 0, b"x" * 100),
    "headers on an even stream": frame(1, 5, 2, b"\x82\x86\x84"),
    "headers that are no HPACK": frame(1, 5, 1, b"\xff" * 200),
    "an HPACK index far off": frame(1, 5, 1, b"\xff\xff\xff\xff\x7f"),
    "a continuation of nothing": frame(9, 4, 1, b"\x82"),
    "headers without end, then others": frame(1, 0, 1, b"\x82") + frame(1, 5, 3, b"\x82"),
    "continuations without end": frame(1, 0, 1, b"\x82\x86\x84") + frame(9, 0, 1, b"\x40\x01a\x01b") * 20_000,
    "padding longer than the frame": frame(0, 8, 1, b"\xff" + b"x" * 10),
    "settings of odd length": frame(4, 0, 0, b"\x00\x03\x00"),
    "a window of minus one": frame(4, 0, 0, struct.pack(">HI", 4, 0xFFFFFFFF)),
    "a window that overflows": frame(8, 0, 0, struct.pack(">I", 0x7FFFFFFF)) * 2,
    "a promise from a client": frame(5, 4, 1, struct.pack(">I", 2) + b"\x82"),
    "settings in a flood": frame(4, 0, 0, b"") * 20_000,
    "pings in a flood": frame(6, 0, 0, b"12345678") * 20_000,
    "streams that are begun and reset at once": b"".join(
        frame(1, 5, 2 * n + 1, b"\x82\x86\x84\x41\x01e") + frame(3, 0, 2 * n + 1, struct.pack(">I", 8))
        for n in range(5_000)
    ),
    "empty data in a flood": frame(1, 4, 1, b"\x83\x86\x84\x41\x01e") + frame(0, 0, 1, b"") * 20_000,
}


@pytest.mark.parametrize("name", FRAMES)
async def test_malformed_frames_end_their_own_connection_and_nothing_else(edge: Edge, name: str) -> None:
    await sent(edge, PREFACE + SETTINGS + FRAMES[name])
    assert await well(edge)


async def test_random_bytes_and_random_frames_do_no_harm(edge: Edge) -> None:
    pid, dice = envoy_pid(), random.Random(20)
    before = resident_kilobytes(pid)
    for _ in range(300):
        noise = dice.randbytes(dice.randrange(1, 400))
        head = dice.choice([b"", PREFACE, PREFACE + SETTINGS, b"GET /v1/caller HTTP/1.1\r\nHost: e\r\n"])
        if dice.random() < 0.5:
            noise = frame(dice.randrange(12), dice.randrange(256), dice.randrange(8), noise)
        answer = await sent(edge, head + noise, wait=0.05)
        assert not answer.startswith(b"HTTP/1.1 5") or answer.startswith(b"HTTP/1.1 501"), answer[:200]
    assert await well(edge)
    assert resident_kilobytes(pid) - before < 30_000


@pytest.mark.parametrize("kilobytes", [64, 1024])
async def test_large_headers_are_refused(edge: Edge, kilobytes: int) -> None:
    big = "a" * kilobytes * 1024
    answer = await sent(edge, f"GET /v1/caller HTTP/1.1\r\nHost: edge\r\nx-big: {big}\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 431")
    answer = await sent(edge, f"GET /{big} HTTP/1.1\r\nHost: edge\r\n\r\n".encode())
    assert answer[9:12] in {b"414", b"431", b"400"}
    assert await well(edge)


async def test_compression_bombs_are_not_opened(edge: Edge) -> None:
    """A megabyte that would be a gigabyte: refused or read as the bytes it is, and memory stays where it was."""
    bomb = gzip.compress(b"\0" * 64_000_000)
    twice = gzip.compress(gzip.compress(b"\0" * 64_000_000))
    pid, before = envoy_pid(), resident_kilobytes(envoy_pid())
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    bodies: list[tuple[str, bytes]] = [("gzip", bomb), ("gzip", twice), ("deflate", zlib.compress(b"\0" * 10_000_000))]
    headers = {"authorization": f"Bearer {edge.token()}", "content-type": "application/json"}
    async with aiohttp.ClientSession() as session:
        for encoding, body in bodies:
            for path in ("/v1/keys", "/v1/chat/completions", "/mcp", "/graphql"):
                more = {**headers, "content-encoding": encoding, "accept": "application/json, text/event-stream"}
                async with session.post(edge.url + path, data=body, headers=more) as answer:
                    assert 400 <= answer.status < 500, (path, answer.status, await answer.text())
            grpc_frame = b"\x01" + struct.pack(">I", len(body)) + body
            more = {**headers, "content-type": "application/grpc", "te": "trailers", "grpc-encoding": encoding}
            async with session.post(
                f"{edge.url}/agentnet.gateway.v1.KeyService/CreateKey", data=grpc_frame, headers=more
            ) as answer:
                await answer.read()
    assert await well(edge)
    assert resident_kilobytes(pid) - before < 60_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - own < 120_000


@pytest.mark.parametrize(
    "start",
    [
        b"GET /v1/caller HTTP/1.1\r\nHost: edge\r\n",
        PREFACE + SETTINGS + frame(1, 0, 1, b"\x82\x86"),
    ],
    ids=["HTTP/1.1", "HTTP/2"],
)
async def test_slow_headers_are_cut_off(edge: Edge, start: bytes) -> None:
    """A header a second, for ever: within the 10 seconds that headers have the request is answered 408, over HTTP/1.1 by
    the end of the connection too; and others are served.
    """

    async def trickle() -> float:
        reader, writer = await connect(edge)
        began = asyncio.get_running_loop().time()
        writer.write(start)
        answered = asyncio.ensure_future(reader.readuntil(b"408"))
        while not answered.done():
            with suppress(ConnectionError):
                writer.write(b"x-a: b\r\n" if start.startswith(b"GET") else frame(9, 0, 1, b"\x40\x01a\x01b"))
            await asyncio.wait({answered}, timeout=1)
            assert asyncio.get_running_loop().time() - began < 30
        assert b"408" in answered.result()
        if start.startswith(b"GET"):
            with suppress(ConnectionError):
                await reader.read()
        writer.close()
        return asyncio.get_running_loop().time() - began

    slow = [asyncio.ensure_future(trickle()) for _ in range(50)]
    await asyncio.sleep(2)
    assert await well(edge)
    assert max(await asyncio.gather(*slow)) < 25


async def test_ten_thousand_idle_connections_cost_little_and_hinder_nobody(edge: Edge) -> None:
    """From several loopback addresses, for the ports of one do not suffice to be quick."""
    pid = envoy_pid()
    before = resident_kilobytes(pid)
    host, _, port = edge.address.partition(":")
    connections = [
        socket.create_connection((host, int(port)), source_address=(f"127.0.0.{2 + number % 8}", 0))
        for number in range(IDLE)
    ]
    assert await well(edge)
    grown = resident_kilobytes(pid) - before
    assert grown < IDLE * KILOBYTES_EACH, f"{grown} KiB for {IDLE}"
    print(f"{IDLE} idle connections: {grown / 1024:.1f} MiB more in Envoy")
    for one in connections:
        one.close()
    await asyncio.sleep(0.5)
    assert await well(edge)


def _open_files(wanted: int) -> None:
    """Both ends are open files of this machine; Envoy inherits the limit this process has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted + 500:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, wanted + 1_000), hard))
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > wanted, "the limit on open files is too low"


JSON: list[Callable[[], bytes]] = [
    lambda: b"[" * 100_000,
    lambda: b'{"a":' * 50_000,
    lambda: b'{"display_name":' + b'"\\ud800"}',
    lambda: b'{"display_name": "\xff\xfe"}',
    lambda: b'{"roles": {"a": 1}}',
    lambda: b'{"display_name": 1e400, "roles": [null]}',
    lambda: b'{"ttl": "999999999999999999999s"}',
    lambda: b'{"expire_time": "0000-00-00T00:00:00Z"}',
    lambda: b"null",
    lambda: b'"text"',
    lambda: b"\x00",
    lambda: (
        b'{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:;base64,%%%"}}]}]}'
    ),
    lambda: b'{"model": {"a": 1}, "messages": "x", "input": 7, "max_tokens": -1, "stream": "yes"}',
    lambda: b'{"query": "{' + b"a{" * 5_000 + b'"}',
    lambda: b'{"jsonrpc": "2.0", "id": [], "method": {}, "params": 1}',
]
PATHS = (
    "/v1/keys", "/v1/tokens/exchange", "/v1/tokens/delegate", "/v1/events", "/v1/webhooks", "/v1/chat/completions",
    "/v1/responses", "/v1/embeddings", "/v1/messages", "/v1/run", "/mcp", "/graphql", "/a2a", "/a2a/Athena",
)  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
async def test_strange_bodies_are_the_callers_fault(edge: Edge, path: str) -> None:
    headers = {"authorization": f"Bearer {edge.token()}", "content-type": "application/json",
               "accept": "application/json, text/event-stream", "a2a-version": "1.0", "anthropic-version": "2023-06-01"}  # fmt: skip
    async with aiohttp.ClientSession(headers=headers) as session:
        for made in JSON:
            async with session.post(edge.url + path, data=made()) as answer:
                text = await answer.text()
                assert answer.status < 500, (made()[:80], answer.status, text[:300])
    assert await well(edge)
