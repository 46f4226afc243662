"""One streamed call over the pooled session; what differs between providers is their dialect."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from typing import Any, Final, Protocol

import aiohttp

from services.inference.credentials import Proof
from services.inference.errors import ProviderTimeout, ProviderUnavailable, StreamBroken
from services.inference.providers.contract import Chunk, ModelCall, Timeouts
from services.inference.providers.refusals import refusal
from services.inference.providers.sse import EventStream, EventTooLong, ServerEvent
from services.inference.turns import Turns

_OK: Final = 200
_UNAUTHORIZED: Final = 401
_LINGER_SECONDS: Final = 1.0
_FLUSH: Final = b"\n\n"
"""Ends an event that the server left open when it closed the stream."""


@dataclass(frozen=True, slots=True)
class HttpCall:
    """What a dialect posts: a path below the base URL, a JSON body or a fresh form, headers of its own."""

    path: str
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)
    form: Callable[[], aiohttp.FormData] | None = None


class Reader(Protocol):
    """Reads one stream of a dialect."""

    @property
    def whole(self) -> bool:
        """Whether what came so far is a whole answer."""

    @property
    def ended(self) -> bool:
        """Whether the provider said that nothing more comes."""

    def read(self, event: ServerEvent) -> Chunk | None:
        """What an event says. Raises MeshError for errors inside the stream, ValueError for what is no event."""

    def alike(self, events: bytes, at: int) -> tuple[Chunk | None, int]:
        """What whole events say, from one place on, that are like an earlier one but for their text; and where the
        first that is not begins.
        """


class Dialect(Protocol):
    """A provider's wire format, without any I/O."""

    def request(self, call: ModelCall) -> HttpCall:
        """The call as it is posted."""

    def reader(self, provider: str) -> Reader:
        """A reader for one answer; errors name the provider."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a provider is, and what proves that we may call it."""

    name: str
    base_url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    proof: Proof | None = None
    """Where the key may change: its headers go beside the others."""

    @property
    def shown(self) -> Mapping[str, str]:
        """What goes with a call made now."""
        return {**self.headers, **self.proof.headers} if self.proof else self.headers


def pooled(connect: timedelta) -> aiohttp.ClientSession:
    """The connections that all providers share. No cookies: one set in answer to a tenant would go out for the next."""
    return aiohttp.ClientSession(
        timeout=_within(connect),
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30),
        cookie_jar=aiohttp.DummyCookieJar(),
    )


@lru_cache(maxsize=256)
def _within(connect: timedelta) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, connect=connect.total_seconds())


class HttpProvider:
    """A provider behind HTTP and server-sent events."""

    def __init__(
        self, endpoint: Endpoint, dialect: Dialect, session: aiohttp.ClientSession, *, turns: Turns | None = None
    ) -> None:
        self._endpoint = endpoint
        self._dialect = dialect
        self._session = session
        self._turns = turns or Turns()

    @property
    def name(self) -> str:
        return self._endpoint.name

    async def stream(self, call: ModelCall) -> AsyncGenerator[Chunk, None]:
        reader, events, begun, timeouts = self._dialect.reader(self.name), EventStream(), False, call.timeouts
        async with self.answer(self._dialect.request(call), timeouts) as answer:
            while not reader.ended:
                received = await self._next(answer, reader, timeouts.idle if begun else None)
                if received is None:
                    break
                if begun and self._turns.crowded:  # who has heard nothing yet does not wait
                    await self._its_turn(answer.response)
                if chunk := self._understood(reader, events, received or _FLUSH):
                    begun = begun or chunk.says  # what only shows that the server is alive is no first token
                    yield chunk
                if not received:
                    break
            answer.said = reader.ended
        if not (reader.ended or reader.whole):
            raise StreamBroken("the provider's stream ended in the middle", provider=self.name)

    async def _next(self, answer: Answer, reader: Reader, limit: timedelta | None) -> bytes | None:
        """What came; None when it broke after a whole answer: that is no fault of the answer."""
        try:
            return await answer.read(limit)
        except (aiohttp.ClientError, ProviderTimeout):
            if not reader.whole:
                raise
        return None

    async def _its_turn(self, answer: aiohttp.ClientResponse) -> None:
        """Waits, and leaves unread meanwhile what comes, so that it comes at once."""
        protocol = answer.connection.protocol if answer.connection else None
        if protocol:
            protocol.pause_reading()
        try:
            await self._turns.wait()
        finally:
            if protocol and protocol.connected:
                protocol.resume_reading()

    def _understood(self, reader: Reader, events: EventStream, received: bytes) -> Chunk | None:
        try:
            whole, rest = events.split(received)
            found = list(_together(reader, events, whole))
            if rest:
                found += _read(reader, events, rest)
        except (ValueError, LookupError, TypeError, AttributeError) as error:  # it is JSON of another form, or none
            raise StreamBroken("the provider's stream cannot be read", provider=self.name) from error
        except EventTooLong as error:
            raise StreamBroken("the provider's stream has no end of line", provider=self.name) from error
        return joined(found)

    @asynccontextmanager
    async def answer(self, call: HttpCall, timeouts: Timeouts) -> AsyncIterator[Answer]:
        """The answer while the block lasts, when it is no refusal. Raises the errors of services.inference.errors."""
        until = asyncio.get_running_loop().time() + timeouts.first_token.total_seconds()
        answer = Answer(await self._allowed(call, timeouts, until), self.name, until)
        response = answer.response
        try:
            if response.status != _OK:
                refused = await self._refused(response, timeouts)
                raise refusal(response.status, response.headers, refused, provider=self.name)
            yield answer
        except aiohttp.ClientError as error:
            raise StreamBroken("the provider's stream broke", provider=self.name) from error
        finally:
            answer.close()

    async def _allowed(self, call: HttpCall, timeouts: Timeouts, until: float) -> aiohttp.ClientResponse:
        """Posts; once more when the key was refused and there is another by now."""
        proof = self._endpoint.proof
        refused = proof.headers if proof else {}
        response = await self._post(call, timeouts, until)
        if response.status != _UNAUTHORIZED or not proof or not await proof.renewed(refused):
            return response
        response.close()
        return await self._post(call, timeouts, until)

    async def _post(self, call: HttpCall, timeouts: Timeouts, until: float) -> aiohttp.ClientResponse:
        """Posts; once more when a pooled connection turned out to be closed by the server."""
        try:
            return await self._posted(call, timeouts, until)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientConnectionResetError, ConnectionResetError):
            pass
        try:
            return await self._posted(call, timeouts, until)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientConnectionResetError, ConnectionResetError) as error:
            raise ProviderUnavailable("the provider closed the connection", provider=self.name) from error

    async def _posted(self, call: HttpCall, timeouts: Timeouts, until: float) -> aiohttp.ClientResponse:
        try:
            async with asyncio.timeout_at(until):
                return await self._session.post(
                    self._endpoint.base_url.rstrip("/") + call.path,
                    **({"data": call.form()} if call.form else {"json": call.body}),
                    headers={**self._endpoint.shown, **call.headers},
                    timeout=_within(timeouts.connect),
                )
        except aiohttp.ConnectionTimeoutError as error:  # nothing was asked yet, so nothing is paid for
            raise ProviderUnavailable("no connection to the provider in time", provider=self.name) from error
        except TimeoutError as error:
            raise ProviderTimeout("the provider did not answer in time", provider=self.name) from error
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientConnectionResetError):
            raise
        except aiohttp.ClientError as error:
            if isinstance(error.__cause__, aiohttp.ClientConnectionResetError):
                raise error.__cause__ from None  # closed under us while the request was being written
            raise ProviderUnavailable("the provider cannot be reached", provider=self.name) from error

    async def _refused(self, answer: aiohttp.ClientResponse, timeouts: Timeouts) -> bytes:
        """What a refusal says."""
        try:
            async with asyncio.timeout(timeouts.idle.total_seconds()):
                return await answer.read()
        except TimeoutError as error:
            raise ProviderTimeout("the provider's refusal stalled", provider=self.name) from error


class Answer:
    """An answer as it arrives. Its one timer is set anew when it goes off, and not for each of thousands of pieces."""

    def __init__(self, response: aiohttp.ClientResponse, provider: str, until: float) -> None:
        """`until` is when the first token must have come, by the loop's clock."""
        self.response = response
        self.said = False
        """Whether all that matters has come: the connection is kept for the next call once the rest has."""
        self._provider = provider
        self._until = until
        self._loop = asyncio.get_running_loop()
        self._ends = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._due = math.inf

    async def read(self, limit: timedelta | None) -> bytes:
        """All that has arrived; empty at the end. Raises ProviderTimeout when nothing comes for so long; None: by the
        time that the first token must have come, whatever came before it.
        """
        self._ends = self._loop.time() + limit.total_seconds() if limit else self._until
        if self._due > self._ends:
            self._set()
        try:
            return await self.response.content.readany()
        finally:
            self._ends = math.inf

    def close(self) -> None:
        """A stream left early must not go on at the provider."""
        if self._timer:
            self._timer.cancel()
        if self.said and not self.response.content.is_eof():
            self._loop.call_later(_LINGER_SECONDS, self.response.close)
        else:
            self.response.close()

    def _set(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._due = self._ends
        self._timer = self._loop.call_at(self._due, self._look) if self._due < math.inf else None

    def _look(self) -> None:
        if self._ends <= self._loop.time():
            first = self._ends == self._until
            what = "the model's first token did not come in time" if first else "the provider's stream stalled"
            self.response.content.set_exception(ProviderTimeout(what, provider=self._provider))
        else:
            self._set()


def _together(reader: Reader, events: EventStream, whole: bytes) -> Iterator[Chunk]:
    """What whole events say: those that are alike at once, the others one by one."""
    at = 0
    while at < len(whole):
        chunk, end = reader.alike(whole, at)
        if chunk:
            yield chunk
        else:
            end = whole.index(_FLUSH, at) + len(_FLUSH)
            yield from _read(reader, events, whole[at:end])
        at = end


def _read(reader: Reader, events: EventStream, received: bytes) -> list[Chunk]:
    return [chunk for event in events.feed(received) if (chunk := reader.read(event))]


def joined(chunks: Sequence[Chunk]) -> Chunk | None:
    """Everything one read brought, as one chunk."""
    if len(chunks) <= 1:
        return chunks[0] if chunks else None
    return Chunk(
        text="".join(chunk.text for chunk in chunks),
        token_count=sum(chunk.token_count for chunk in chunks),
        finish_reason=next((chunk.finish_reason for chunk in reversed(chunks) if chunk.finish_reason), None),
        usage=next((chunk.usage for chunk in reversed(chunks) if chunk.usage), None),
        reasoning="".join(chunk.reasoning for chunk in chunks),
        tools=tuple(delta for chunk in chunks for delta in chunk.tools),
    )
