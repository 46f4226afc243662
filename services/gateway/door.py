"""The door: where Envoy asks whether a call may come in, over HTTP/1.1 on connections that nobody else reaches.

A gRPC server in Python spends more on a call than admission does: 530 us of processor time against 26 here.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import socket
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, cast

import httptools
from opentelemetry.propagate import extract

from services.gateway import question
from services.gateway.admission import Admission, Admitted, Request
from services.gateway.names import Names
from services.gateway.question import Question
from services.gateway.refusals import refusals
from shared.clock import Clock
from shared.errors import InvalidArgument, MeshError
from shared.identity import Principal, Signer
from shared.log import log
from shared.rpc.tls import server_context
from shared.telemetry import meter, recorded, tracer

_CACHE: Final = 4096
# All of a question: four MiB of a body in base64, and headers as many as Envoy takes.
_LONGEST: Final = 6 * 1024 * 1024
_GRACE_SECONDS: Final = 2.0
# More than Envoy's connections: where there is no room in the line of a Unix socket a connection fails at once.
_BACKLOG: Final = 1024
_UNIX: Final = "unix:"
_ENVOY: Final = "envoy"
_ONCE: Final = frozenset(
    {question.ADDRESS, question.CLAIMS, question.TYPE, question.FAILURE, question.BODY, question.SHOWN}
)

_latency = meter.create_histogram(
    "gateway_admission_latency_ms", unit="ms", description="time from Envoy's question to the answer, by outcome"
)

Answer = Callable[[Question], Coroutine[Any, Any, bytes]]


class DoorUnguarded(ValueError):
    """Whoever reached this door could have himself called anyone."""


class Door:
    """Answers questions. A fault of ours ends the connection: to Envoy that is an error, and it keeps everyone out."""

    def __init__(self, admission: Admission, names: Names, signer: Signer, clock: Clock, *, ttl: timedelta) -> None:
        self._admission = admission
        self._names = names
        self._signer = signer
        self._clock = clock
        self._ttl = ttl
        self._headers: OrderedDict[Principal, tuple[datetime, str]] = OrderedDict()

    async def answer(self, asked: Question) -> bytes:
        """Raises Unasked and DecodeError."""
        if asked.target == question.REFUSED:
            return await self._noted(asked)
        began, outcome, call = time.perf_counter(), "ADMITTED", asked.call()
        try:
            with _traced(asked):
                return await self._let_in(asked, call)
        except MeshError as error:
            outcome = error.reason_name
            return question.denied(error, call.path, rest=call.rest)
        finally:
            _latency.record((time.perf_counter() - began) * 1000, {"outcome": outcome})

    async def _noted(self, asked: Question) -> bytes:
        for one in refusals(asked.body):
            await self._admission.note_refused(one.path, one.details, address=one.address, request_id=one.request_id)
        return question.let_by()

    async def _let_in(self, asked: Question, call: Request) -> bytes:
        if asked.identify_only:
            await self._admission.identify(call)
            return question.let_by()
        admitted = await self._admission.admit(call)
        if call.rest:
            self._check_names(asked, call, admitted)
        return self._admitted(admitted) if admitted else question.let_by()

    def _check_names(self, asked: Question, call: Request, admitted: Admitted | None) -> None:
        try:
            self._names.check(call.path, *asked.said())
        except InvalidArgument as error:
            self._admission.note_name(admitted, call, error)
            raise

    def _admitted(self, found: Admitted) -> bytes:
        return question.admitted(self._signed(found.principal), found.level)

    def _signed(self, principal: Principal) -> str:
        """A header serves a caller for half its life, so that those behind have it verified once."""
        now, found = self._clock.now(), self._headers.get(principal)
        if found and found[0] > now:
            return found[1]
        header = self._signer.sign(principal, self._ttl)
        end = now + self._ttl / 2
        self._headers[principal] = (min(end, principal.expires_at) if principal.expires_at else end, header)
        if len(self._headers) > _CACHE:
            self._headers.popitem(last=False)
        return header


class Connection(asyncio.Protocol):
    """One connection of Envoy's, one question at a time. Whatever Envoy would not send ends it unanswered."""

    def __init__(self, answer: Answer, others: set[Connection], secret: bytes) -> None:
        self._answer = answer
        self._secret = secret
        self._others = others
        self._parser = httptools.HttpRequestParser(self)
        self._loop = asyncio.get_running_loop()
        self._begin()
        self.task: asyncio.Task[bytes] | None = None
        self._closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._others.add(self)
        if transport.get_extra_info("sslcontext") and not _of_envoy(transport.get_extra_info("peercert")):
            self._refuse("a certificate that is not Envoy's")

    def connection_lost(self, exc: Exception | None) -> None:
        self._others.discard(self)
        if self.task:
            self.task.cancel()

    def data_received(self, data: bytes) -> None:
        self._size += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._refuse(str(error))
        if self._size > _LONGEST:
            self._refuse("a question that does not end")

    def close(self) -> None:
        """Once the question that is being answered is; at once when there is none."""
        self._closing = True
        if self.task is None:
            self._transport.close()

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        key, said = name.decode("latin-1").lower(), value.decode(errors="replace")
        if key in self._headers:
            if key in _ONCE:
                self._refuse(f"{key} twice")
            said = f"{self._headers[key]},{said}"
        self._headers[key] = said

    def on_body(self, body: bytes) -> None:
        if self._target != question.REFUSED.encode():
            self._refuse("a body")
        self._body += body

    def on_message_complete(self) -> None:
        if self.task:
            self._refuse("a question before the last was answered")
        shown = self._headers.pop(question.SHOWN, "").encode()
        if self._secret and not hmac.compare_digest(shown, self._secret):
            self._refuse("not the door's secret")
        if not self._transport.is_closing():
            asked = Question(self._target.decode(errors="replace"), self._headers, self._body)
            self.task = self._loop.create_task(self._answer(asked))
            self.task.add_done_callback(self._ended)
        self._begin()

    def _begin(self) -> None:
        self._target, self._body, self._size = b"", b"", 0
        self._headers: dict[str, str] = {}

    def _ended(self, task: asyncio.Task[bytes]) -> None:
        self.task = None
        if task.cancelled() or self._transport.is_closing():
            return
        if error := task.exception():
            log.error("door.fault", exc_info=error)
            self._transport.abort()
            return
        self._transport.write(task.result())
        if self._closing:
            self._transport.close()

    def _refuse(self, why: str) -> None:
        log.warning("door.refused", why=why)
        self._transport.abort()


@asynccontextmanager
async def opened(address: str, answer: Answer, *, secret: str = "", tls: Path | None = None) -> AsyncIterator[str]:
    """Asked at `unix:/path`, a socket that only this user reaches, or at `host:port`: with `tls` by Envoy alone, which
    shows its certificate; else by who shows the `secret`. Yields the bound address. On leaving, questions that were
    asked are answered. Raises DoorUnguarded.
    """
    if not (secret or tls or address.startswith(_UNIX)):
        raise DoorUnguarded("AGENTNET_GATEWAY_DOOR at host:port wants TLS or AGENTNET_GATEWAY_DOOR_SECRET")
    connections: set[Connection] = set()
    context = server_context(tls) if tls and not address.startswith(_UNIX) else None
    listening = _socket(address)
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(answer, connections, secret.encode()), sock=listening, ssl=context, backlog=_BACKLOG
    )
    try:
        yield address if address.startswith(_UNIX) else "{}:{}".format(*listening.getsockname()[:2])
    finally:
        server.close()
        asked = [connection.task for connection in connections if connection.task]
        for connection in tuple(connections):
            connection.close()
        if asked:
            await asyncio.wait(asked, timeout=_GRACE_SECONDS)


def _traced(asked: Question) -> AbstractContextManager[object]:
    """A span in the call's trace, where spans are kept; admission calls nobody who would want the trace's ids."""
    if not recorded():
        return nullcontext()
    return tracer.start_as_current_span("admission", context=extract(dict(asked.headers)))


def _socket(address: str) -> socket.socket:
    if not address.startswith(_UNIX):
        host, _, port = address.rpartition(":")
        return socket.create_server((host.strip("[]"), int(port)), backlog=_BACKLOG)
    path = Path(address.removeprefix(_UNIX))
    path.unlink(missing_ok=True)
    found = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        found.bind(str(path))
    finally:
        os.umask(before)
    return found


def _of_envoy(certificate: Any) -> bool:
    return ("DNS", _ENVOY) in (certificate or {}).get("subjectAltName", ())
