"""What comes out of one call in a sandbox: its output, its events, its answer, and what it asks to be fetched."""

from __future__ import annotations

import asyncio
import codecs
import json
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, Protocol

from services.tools import answer
from services.tools.answer import Answer, Artefact, Printed, Status
from services.tools.errors import SandboxUnavailable
from services.tools.jail import Drain, TooMuch
from services.tools.runner import MAX_ARTEFACT_BYTES, MAX_ARTEFACTS, MAX_EVENT, MAX_EVENTS, MAX_FETCHES
from services.tools.zygote import READY

_MAX_OUTPUT: Final = 64 * 1024
_MAX_ANSWER: Final = 1024 * 1024
# Base64 needs four bytes for three.
_MAX_ATTACHED: Final = MAX_ARTEFACT_BYTES * 4 // 3 + MAX_ARTEFACTS * 256
# An answer whose reading takes long enough for others to notice; a thread reads it beside them.
_BULKY: Final = 32 * 1024
_ATTACHED: Final = b'{"artefact": '
_PIPE_PAUSE_SECONDS: Final = 0.005

Asked = Mapping[str, Any]
# Does what a call asks for and tells what came of it; it never raises.
Fetch = Callable[[Asked], Awaitable[Mapping[str, Any]]]


class Running(Protocol):
    """A call that runs: its output, errors and answer, and its exit status when it has ended."""

    out: int
    err: int
    answer: int
    ended: asyncio.Future[int]


class Conversation:
    """What comes out of one call, and what goes back in."""

    def __init__(
        self,
        running: Running,
        printed: Printed,
        *,
        program: bool = False,
        listening: bool = True,
        fetch: Fetch | None = None,
        replies: int | None = None,
        attaches: bool = False,
    ) -> None:
        self._running = running
        self._program = program
        # It has said what came of it and closed all it had; what is left of it is its end.
        self.answered = False
        self._errands = Errands(fetch, replies) if fetch and replies is not None else None
        self._said = _Said(printed, self._errands, attaches=attaches)
        room = _MAX_ANSWER + (_MAX_ATTACHED if attaches else 0)
        out = [Drain(running.out, limit=_MAX_OUTPUT, tell=_Text("stdout", printed))] if listening else []
        self._drains = [
            *out,
            Drain(running.err, limit=_MAX_OUTPUT, tell=_Text("stderr", printed)),
            Drain(running.answer, limit=room, tell=self._said),
        ]

    async def heard(self, limit: timedelta, *, until: float) -> Answer:
        """What came of the call by then, on the monotonic clock. Raises SandboxUnavailable when it never stood."""
        try:
            async with asyncio.timeout(max(0.0, until - time.monotonic())):
                return await self._answer()
        except TimeoutError:
            return Status.TIMEOUT, {"message": f"the function ran longer than {limit}"}
        except TooMuch:
            return Status.OUTPUT_LIMIT, {"message": "the function printed or returned more than is allowed"}

    async def _answer(self) -> Answer:
        await asyncio.gather(*(drain.done for drain in self._drains))
        self.answered = not self._program and bool(self._said.rest)
        code = 0 if self.answered else await asyncio.shield(self._running.ended)
        if not self._said.ready:
            raise SandboxUnavailable("the host gave a call no isolation", why=f"status {code}")
        if self._said.disturbed:
            return answer.disturbed()
        said = self._said.rest
        if len(said) > _MAX_ANSWER:
            raise TooMuch
        if said:
            return await asyncio.to_thread(answer.read_bulky, said) if len(said) > _BULKY else answer.read(said)
        return answer.exited(code) if self._program else answer.ended(code)

    @property
    def artefacts(self) -> tuple[Artefact, ...]:
        """What the call left so far."""
        return tuple(self._said.artefacts)

    def close(self) -> None:
        if self._errands:
            self._errands.close()
        for drain in self._drains:
            drain.close()


class Errands:
    """What a call asks to be fetched, one after the other, and the line its replies go back on."""

    def __init__(self, fetch: Fetch, replies: int) -> None:
        self._fetch = fetch
        self._replies = replies
        self._running: asyncio.Task[None] | None = None

    def ask(self, request: Asked) -> bool:
        """Begins one; False when the one before has not ended, which no call of `fetch` does."""
        if self._running and not self._running.done():
            return False
        self._running = asyncio.create_task(self._answer(request), name="fetch")
        return True

    async def _answer(self, request: Asked) -> None:
        data = memoryview(json.dumps(await self._fetch(request)).encode() + b"\n")
        os.set_blocking(self._replies, False)
        while data:
            try:
                data = data[os.write(self._replies, data) :]
            except BlockingIOError:
                await asyncio.sleep(_PIPE_PAUSE_SECONDS)

    def close(self) -> None:
        if self._running:
            self._running.cancel()


class _Said:
    """What comes over the answer's pipe: a line when the sandbox stands, lines of events and errands, the answer."""

    def __init__(self, printed: Printed, errands: Errands | None, *, attaches: bool) -> None:
        self._attaches = attaches
        self._looked = 0
        self.artefacts: list[Artefact] = []
        self._printed = printed
        self._errands = errands
        self._data = bytearray()
        self._lines = 0
        self.ready = False
        self.disturbed = False

    @property
    def rest(self) -> bytes:
        return bytes(self._data)

    def __call__(self, data: bytes) -> None:
        self._data += data
        while (end := self._data.find(b"\n", self._looked)) >= 0:
            line = bytes(self._data[: end + 1])
            del self._data[: end + 1]
            self._looked = 0
            if not self.ready:
                self.ready = line == READY
                self.disturbed |= not self.ready
            else:
                self.disturbed |= not self._understood(line)
        self._looked = len(self._data)

    def _understood(self, line: bytes) -> bool:
        self._lines += 1
        if self._lines > MAX_EVENTS + MAX_FETCHES + MAX_ARTEFACTS:
            return False
        if self._attaches and line.startswith(_ATTACHED):
            return self._attached(answer.artefact(line))
        if self._errands and (request := answer.errand(line)) is not None:
            return self._errands.ask(request)
        said = answer.event(line) if len(line) <= MAX_EVENT + 1 else None
        if said is not None:
            self._printed(answer.EMITTED, said)
        return said is not None

    def _attached(self, artefact: Artefact | None) -> bool:
        """A name counts once: the last content under it stays."""
        if artefact is None:
            return False
        self.artefacts = [one for one in self.artefacts if one.name != artefact.name] + [artefact]
        total = sum(one.size for one in self.artefacts)
        return len(self.artefacts) <= MAX_ARTEFACTS and total <= MAX_ARTEFACT_BYTES


@dataclass(slots=True)
class _Text:
    """Hands bytes on as text, whatever the cuts."""

    name: str
    printed: Printed
    decoder: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")(errors="replace")
    )

    def __call__(self, data: bytes) -> None:
        if text := self.decoder.decode(data):
            self.printed(self.name, text)
