"""Sends ended generations to Langfuse: a bounded queue, batches, retries. A generation never waits for it."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeVar

from services.inference.langfuse.contract import ExportedGeneration, Link
from services.inference.langfuse.links import PromptLinks
from services.inference.langfuse.server import LangfuseServer, Passing, Refused
from services.inference.langfuse.wire import Event, batches, body, events, read
from shared.log import log
from shared.tasks import supervised
from shared.telemetry import meter

_INGESTION: Final = "/api/public/ingestion"
_TOO_LARGE: Final = 413
_exported = meter.create_counter("langfuse_events_total", description="events, by outcome: accepted, refused, dropped")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Pace:
    """How much waits, how much goes together and how patiently."""

    waiting: int = 2000  # generations
    waiting_characters: int = 64_000_000
    together: int = 50  # generations a batch
    gather: timedelta = timedelta(seconds=1)  # from the first of a batch to sending it
    attempts: int = 8
    first_pause: timedelta = timedelta(milliseconds=500)
    longest_pause: timedelta = timedelta(seconds=30)


class GivenUp(Exception):
    """Every attempt failed."""


class LangfuseExporter:
    """One project. What does not fit the queue is dropped and counted, newest first."""

    def __init__(
        self, server: LangfuseServer, links: PromptLinks, *, pace: Pace, content: bool, environment: str
    ) -> None:
        """Without `content` no text leaves the mesh."""
        self._server = server
        self._links = links
        self._pace = pace
        self._content = content
        self._environment = environment
        self._waiting: deque[ExportedGeneration] = deque()
        self._characters = 0
        self._arrived, self._enough, self._idle = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._idle.set()

    def offer(self, generation: ExportedGeneration) -> bool:
        """Takes a generation without waiting; False when there is no room and it is dropped."""
        size = _characters(generation)
        if len(self._waiting) >= self._pace.waiting or self._characters + size > self._pace.waiting_characters:
            _exported.add(2, {"outcome": "dropped"})
            return False
        self._waiting.append(generation)
        self._characters += size
        self._idle.clear()
        self._arrived.set()
        if len(self._waiting) >= self._pace.together:
            self._enough.set()
        return True

    async def run(self) -> None:
        """Sends what is offered, for as long as the service runs."""
        while True:
            await self._arrived.wait()
            await self._gather()
            taken = self._take()
            for batch in batches([event for one in taken for event in await self._events(one)]):
                await self._deliver(batch)
            if not self._waiting:
                self._idle.set()

    async def drain(self, grace: timedelta) -> bool:
        """Waits until all is sent, at most this long; False when something is left."""
        self._enough.set()
        try:
            async with asyncio.timeout(grace.total_seconds()):
                await self._idle.wait()
        except TimeoutError:
            _exported.add(2 * len(self._waiting), {"outcome": "dropped"})
            return False
        return True

    async def _gather(self) -> None:
        try:
            async with asyncio.timeout(self._pace.gather.total_seconds()):
                await self._enough.wait()
        except TimeoutError:
            return

    def _take(self) -> list[ExportedGeneration]:
        taken = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._pace.together))]
        self._characters -= sum(map(_characters, taken))
        if len(self._waiting) < self._pace.together:
            self._enough.clear()
        if not self._waiting:
            self._arrived.clear()
        return taken

    async def _events(self, one: ExportedGeneration) -> Sequence[Event]:
        link: Link | None = None
        if one.prompt:
            prompt = one.prompt
            try:
                link = await self._patiently(lambda: self._links.find(one.tenant_id, prompt))
            except GivenUp:
                log.warning("langfuse.prompt_not_linked", generation_id=one.id)
        return await asyncio.to_thread(events, one, link=link, content=self._content, environment=self._environment)

    async def _deliver(self, batch: Sequence[Event]) -> None:
        """Sends a batch; what Langfuse cannot take now goes again, what it refuses is dropped and counted."""
        left = list(batch)

        async def send() -> None:
            answer = await self._server.post(_INGESTION, body(left))
            try:
                verdict = read(left, answer)
            except ValueError as error:
                raise Passing("something else answered in Langfuse's place") from error
            for event_id, status in verdict.refused:
                self._lost(1, f"{event_id} was answered {status}", outcome="refused")
            _exported.add(len(left) - len(verdict.again) - len(verdict.refused), {"outcome": "accepted"})
            left[:] = verdict.again
            if left:
                raise Passing("Langfuse could not take every event")

        try:
            await self._patiently(send)
        except GivenUp:
            self._lost(len(left), "given up")
        except Refused as error:
            if error.status != _TOO_LARGE or len(left) == 1:
                self._lost(len(left), str(error))
                return
            middle = len(left) // 2
            for half in (left[:middle], left[middle:]):
                await self._deliver(half)

    async def _patiently(self, call: Callable[[], Awaitable[Result]]) -> Result:
        """The call's result, after growing jittered pauses, none shorter than asked for. Raises GivenUp, Refused."""
        for attempt in range(self._pace.attempts):
            try:
                return await call()
            except Passing as error:
                log.info("langfuse.waits", problem=str(error), attempt=attempt + 1)
                await asyncio.sleep(self._pause(attempt, error.after))
        raise GivenUp

    def _pause(self, attempt: int, after: timedelta | None) -> float:
        longest: float = min(self._pace.longest_pause, self._pace.first_pause * 2**attempt).total_seconds()
        jittered = longest * random.uniform(0.5, 1)  # noqa: S311 - no secret
        asked = min(after, self._pace.longest_pause).total_seconds() if after else 0.0
        return max(jittered, asked)

    def _lost(self, count: int, why: str, *, outcome: str = "dropped") -> None:
        _exported.add(count, {"outcome": outcome})
        log.warning("langfuse.lost", events=count, why=why)


@asynccontextmanager
async def exporting(exporter: LangfuseExporter, *, grace: timedelta) -> AsyncIterator[LangfuseExporter]:
    """The exporter at work in the block; at its end what waits is sent, at most for `grace`."""
    async with supervised("langfuse", exporter.run):
        try:
            yield exporter
        finally:
            await exporter.drain(grace)


def _characters(generation: ExportedGeneration) -> int:
    return len(generation.output) + sum(len(message.text) for message in generation.messages)
