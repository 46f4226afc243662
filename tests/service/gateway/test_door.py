"""The door that Envoy asks at: what it takes for a question, who reaches it, and that no trouble with it lets a call by."""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import aiohttp
import grpc
import pytest
import pytest_asyncio
from google.rpc import status_pb2
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from deploy.envoy.admission import CONNECTIONS
from deploy.local.authority import Authority
from deploy.local.parts import door_socket
from deploy.local.state import State
from services.gateway import door, question
from services.gateway.audit import REFUSED, STRANGERS, AuditFilter
from services.gateway.question import Question
from shared.errors import MeshError, Unavailable, from_status
from shared.paging import Page
from shared.rpc import tls
from tests.service.gateway.test_attacks import told as refusal
from tests.support.edge import Answer, Edge, inputs_of, running_edge, running_envoy
from tests.support.valkey import free_port

pytestmark = pytest.mark.asyncio(loop_scope="module")

CALLER = "/agentnet.gateway.v1.IdentityService/GetCaller"
ASKED = f"POST {question.ADMIT}{CALLER} HTTP/1.1\r\nhost: edge\r\ncontent-length: 0\r\n"
Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Edge]:
    async with running_edge(tmp_path_factory.mktemp("edge")) as running:
        yield running


async def test_a_busy_door_has_room_for_every_connection_of_envoys(tmp_path: Path) -> None:
    """In the line of a Unix socket that is full a connection fails at once, and Envoy lets nobody in."""

    async def answer(_: Question) -> bytes:
        return b""

    async with door.opened(f"unix:{tmp_path / 'door.sock'}", answer):
        waiting = [socket.socket(socket.AF_UNIX) for _ in range(CONNECTIONS)]
        with ExitStack() as stack:
            for one in waiting:  # the loop accepts none of them meanwhile
                stack.enter_context(one).setblocking(False)
                one.connect(str(tmp_path / "door.sock"))


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


async def hanging_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


def saying(answer: bytes) -> Handle:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):  # a health check
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
        writer.close()

    return say


TROUBLES: dict[str, Handle | None] = {
    "it is gone": None,
    "it never answers": silent,
    "it hangs up": hanging_up,
    "it talks nonsense": saying(b"\x00\xff" * 40),
    "it breaks off": saying(b"HTTP/1.1 200 OK\r\nx-agent"),
    "it has a fault": saying(b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n"),
}


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_no_trouble_at_the_door_lets_a_call_by(edge: Edge, trouble: str, tmp_path: Path) -> None:
    """Not over gRPC either, whose errors Envoy writes as 200. Behind Envoy the call would be UNAUTHENTICATED."""
    socket, port = tmp_path / "door.sock", free_port()
    inputs = inputs_of(edge.state, edge.behind, edge=port, internal=free_port())
    server = await asyncio.start_unix_server(handle, socket) if (handle := TROUBLES[trouble]) else None
    async with running_envoy(replace(inputs, door=socket, health_seconds=0.3), tmp_path):
        await listening(port)
        for kind in ("application/json", "application/grpc", "application/grpc-web+proto"):
            path = "/v1/caller" if kind.endswith("json") else CALLER
            headers = {"authorization": f"Bearer {edge.token()}", "content-type": kind, "te": "trailers"}
            async with aiohttp.ClientSession() as session:
                method = "GET" if kind.endswith("json") else "POST"
                asked = session.request(method, f"http://127.0.0.1:{port}{path}", headers=headers)
                async with asked as answer:
                    said = answer.headers.get("grpc-status") if "grpc" in kind else str(answer.status)
                    text = await answer.text(errors="replace")
            assert said == ("503" if kind.endswith("json") else "14"), (kind, answer.headers, text)
            _in_clean_words(Answer(answer.status, answer.headers, text))
    if server:
        server.close()


def _in_clean_words(answer: Answer) -> None:
    told = "nobody can be let in while gateway does not answer; try again in a moment"
    if "grpc-status" in answer.headers:
        assert unquote(answer.headers["grpc-message"]) == told
        details = base64.b64decode(answer.headers["grpc-status-details-bin"] + "==")
        error = from_status(status_pb2.Status.FromString(details))
        assert (error.message, error.reason_name, error.facts) == (
            told,
            "DEPENDENCY_UNAVAILABLE",
            {"dependency": "gateway"},
        )
    else:
        assert (answer.body["message"], answer.reason) == (told, "DEPENDENCY_UNAVAILABLE")


async def listening(port: int) -> None:
    for _ in range(200):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            return writer.close()
    raise TimeoutError(port)


async def welcome(asked: Question) -> bytes:
    call = asked.call()
    return question.denied(ValueLost(call.path), call.path, rest=True) if call.rest else question.let_by()


class ValueLost(MeshError):
    """An error of none of the codes that Envoy is told."""


@asynccontextmanager
async def opened(folder: Path, answer: door.Answer = welcome) -> AsyncIterator[Path]:
    async with door.opened(f"unix:{folder / 'door.sock'}", answer) as address:
        yield Path(address.removeprefix("unix:"))


async def told(path: Path, asked: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(asked)
    try:
        return await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    except (ConnectionError, asyncio.IncompleteReadError):
        return b""
    finally:
        writer.close()


def grpc_question(more: str = "") -> bytes:
    return f"{ASKED}{question.TYPE}: application/grpc\r\n{more}\r\n".encode()


async def test_a_connection_serves_question_after_question(tmp_path: Path) -> None:
    async with opened(tmp_path) as path:
        reader, writer = await asyncio.open_unix_connection(path)
        for asked in (grpc_question(), f"{ASKED}\r\n".encode(), grpc_question()):
            for part in (asked[:9], asked[9:60], asked[60:]):
                writer.write(part)
                await asyncio.sleep(0)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.split(b" ")[1] == (b"200" if b"grpc" in asked else b"421")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
            await reader.readexactly(length)
        writer.close()


@pytest.mark.parametrize(
    "asked",
    [
        grpc_question() * 2,
        grpc_question(f"{question.CLAIMS}: e30\r\n{question.CLAIMS}: e30\r\n"),
        grpc_question(f"{question.ADDRESS}: 10.0.0.1\r\n{question.ADDRESS}: 10.0.0.2\r\n"),
        grpc_question(f"{question.CLAIMS}: nonsense\r\n"),
        grpc_question(f"{question.CLAIMS}: W10\r\n"),
        grpc_question("x-a: " + "a" * 7_000_000 + "\r\n"),
        grpc_question().replace(b"content-length: 0", b"content-length: 4") + b"body",
        grpc_question().replace(b"content-length: 0", b"transfer-encoding: chunked") + b"4\r\nbody\r\n0\r\n\r\n",
        grpc_question().replace(question.ADMIT.encode(), b""),
        grpc_question().replace(question.ADMIT.encode(), b"/admitted"),
        grpc_question("x-a: 1\r\n x-folded: 2\r\n"),
        grpc_question("x-a: 1\x00\r\n"),
        b"\x16\x03\x01" + b"\x00" * 100,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=[
        "two at once", "claims twice", "addresses twice", "claims that are none", "claims that are a list", "no end",
        "a body", "a chunked body", "no purpose", "another purpose", "a folded header", "a zero byte", "TLS", "HTTP/2",
    ],
)  # fmt: skip
async def test_what_envoy_would_not_ask_is_not_answered(tmp_path: Path, asked: bytes) -> None:
    async with opened(tmp_path) as path:
        assert await told(path, asked) == b""
        assert (await told(path, grpc_question())).startswith(b"HTTP/1.1 200 ")


def refused(*details: str, address: str = "192.0.2.9") -> bytes:
    """As Envoy tells of its own refusals."""
    export = logs_service_pb2.ExportLogsServiceRequest()
    records = export.resource_logs.add().scope_logs.add().log_records
    for number, one in enumerate(details):
        said = {"address": address, "path": "/v1/keys", "details": one, "request_id": f"told-{number}"}
        values = [KeyValue(key=key, value=AnyValue(string_value=value)) for key, value in said.items()]
        records.add(attributes=values)
    body = export.SerializeToString()
    return f"POST {question.REFUSED} HTTP/1.1\r\nhost: door\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


async def test_a_flood_of_what_envoy_refuses_does_not_flood_the_audit(edge: Edge) -> None:
    """As many as an address may fail at once, then one a second. Nobody but Envoy can tell of them, nor in other forms."""
    path, loud = door_socket(edge.state), ["path_normalization_failed{GET /?key=secret}"] * 1000
    assert (await told(path, refused(*loud))).startswith(b"HTTP/1.1 200 ")
    assert (await told(path, refused("http1.codec_error", address="192.0.2.10"))).startswith(b"HTTP/1.1 200 ")
    assert await told(path, refused("x").replace(b"\x0a", b"\xff", 1)) == b""
    answer = await edge.rest("POST", question.REFUSED, {"x": 1})
    assert (answer.status, answer.reason) == (401, "CREDENTIALS_MISSING")
    entries = await edge.stores.audit.entries(STRANGERS, AuditFilter(action=REFUSED), Page(size=10_000))
    told_of = [entry.reason for entry in entries if entry.address == "192.0.2.9"]
    assert 100 <= len(told_of) < 130
    assert set(told_of) == {"path_normalization_failed"}
    assert "http1.codec_error" in {entry.reason for entry in entries if entry.address == "192.0.2.10"}


async def test_a_fault_of_ours_ends_the_connection(tmp_path: Path) -> None:
    async def faulty(_asked: Question) -> bytes:
        raise ZeroDivisionError

    async with opened(tmp_path, faulty) as path:
        assert await told(path, grpc_question()) == b""


async def test_what_was_asked_is_answered_before_the_door_closes(tmp_path: Path) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def slow(_asked: Question) -> bytes:
        asked.set()
        await go_on.wait()
        return question.let_by()

    async with opened(tmp_path, slow) as path:
        idle, unused = await asyncio.open_unix_connection(path)
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(grpc_question())
        await asked.wait()
        asyncio.get_running_loop().call_later(0.05, go_on.set)
    assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
    assert await idle.read() == b""
    for one in (writer, unused):
        one.close()


async def test_the_socket_is_its_owners_alone_and_a_dead_ones_is_taken_over(tmp_path: Path) -> None:
    for _ in range(2):
        async with opened(tmp_path) as path:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        path.touch()


@pytest.mark.parametrize(("party", "heard"), [("envoy", True), ("tools", False), ("", False)])
async def test_over_tls_only_envoy_is_heard(tmp_path: Path, party: str, heard: bool) -> None:
    authority = Authority.of(State(tmp_path))
    (tmp_path / "tls").mkdir()
    authority.renew()
    context = ssl.create_default_context(cafile=str(authority.certificate))
    if party:
        folder = authority.of_party(party)
        context.load_cert_chain(folder / tls.CERTIFICATE, folder / tls.KEY)
    async with door.opened("127.0.0.1:0", welcome, tls=authority.of_party("gateway")) as address:
        host, _, port = address.partition(":")
        answer = b""
        try:
            reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
            writer.write(grpc_question())
            answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
            writer.close()
        except (OSError, asyncio.IncompleteReadError):
            pass
    assert answer.startswith(b"HTTP/1.1 200 ") is heard


@pytest.mark.parametrize(("shown", "heard"), [("s%cret", True), ("", False), ("s%cre", False), ("other", False)])
async def test_over_plain_tcp_only_who_shows_the_secret_is_heard(shown: str, heard: bool) -> None:
    async with door.opened("127.0.0.1:0", welcome, secret="s%cret") as address:
        host, _, port = address.partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(grpc_question(f"{question.SHOWN}: {shown}\r\n" if shown else ""))
        answer = await asyncio.wait_for(reader.read(100), 5)
        writer.close()
    assert answer.startswith(b"HTTP/1.1 200 ") is heard


async def test_a_door_that_anyone_could_ask_at_does_not_open() -> None:
    with pytest.raises(door.DoorUnguarded, match="DOOR_SECRET"):
        async with door.opened("127.0.0.1:0", welcome):
            raise AssertionError("it opened")


@pytest.mark.parametrize(("shown", "status"), [("s%cret", 200), ("another", 503)])
async def test_envoy_shows_the_secret_and_a_callers_own_is_not_it(tmp_path: Path, shown: str, status: int) -> None:
    host, door_port, port = "127.0.0.1", free_port(), free_port()
    async with running_edge(tmp_path, door=f"{host}:{door_port}", door_secret="s%cret") as edge:
        inputs = inputs_of(edge.state, edge.behind, edge=port, internal=free_port())
        (tmp_path / "beside").mkdir()
        asking = replace(inputs, door=(host, door_port), door_secret=shown)
        async with running_envoy(asking, tmp_path / "beside"):
            await listening(port)
            beside, forged = replace(edge, address=f"{host}:{port}"), {"x_agentnet_door": "s%cret"}
            authorization = f"Bearer {edge.token()}"
            assert (await beside.rest("GET", "/v1/caller", authorization=authorization, **forged)).status == status
            assert (await beside.rest("GET", "/v1%2fkeys", x_request_id="itself")).status == 400
            if status == 200:
                await refusal(edge, request_id="itself")


async def test_a_door_over_tcp_and_tls_admits_as_the_socket_does(tmp_path: Path) -> None:
    at = f"127.0.0.1:{free_port()}"
    async with running_edge(tmp_path, tls=("gateway",), door=at) as edge:
        port = free_port()
        host, _, door_port = at.partition(":")
        inputs = inputs_of(edge.state, edge.behind, edge=port, internal=free_port(), authority=edge.authority)
        (tmp_path / "beside").mkdir()
        async with running_envoy(replace(inputs, door=(host, int(door_port))), tmp_path / "beside"):
            await listening(port)
            beside = replace(edge, address=f"127.0.0.1:{port}")
            assert (await beside.ok("GET", "/v1/caller", edge.token()))["principal"]["subject"] == "ada"
            assert (await beside.rest("GET", "/v1/caller")).status == 401


async def test_that_gateway_cannot_tell_is_told_in_its_own_words(tmp_path: Path) -> None:
    """Postgres is away and the caller was never seen: 503 with the reason, over gRPC UNAVAILABLE with details."""
    port = free_port()
    async with running_edge(tmp_path / "edge") as edge:

        async def away(asked: Question) -> bytes:
            call = asked.call()
            gone = Unavailable("the database does not answer", dependency="postgres")
            return question.denied(gone, call.path, rest=call.rest)

        async with opened(tmp_path, away) as path:
            inputs = inputs_of(edge.state, edge.behind, edge=port, internal=free_port())
            async with running_envoy(replace(inputs, door=path), tmp_path):
                await listening(port)
                answer = await replace(edge, address=f"127.0.0.1:{port}").rest("GET", "/v1/caller")
                assert (answer.status, answer.body["message"]) == (503, "the database does not answer")
                assert answer.body["details"][0]["metadata"] == {"dependency": "postgres"}
                async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                    with pytest.raises(grpc.aio.AioRpcError) as raised:
                        await channel.unary_unary(CALLER)(b"", timeout=5)
                assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
                assert raised.value.details() == "the database does not answer"
