"""Answers that nobody waits for, read from inference's durable queue: live, past, or after who made them died."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from grpc import StatusCode

from agentnet.inference.v1 import generation_pb2
from agentnet.inference.v1 import queue_service_pb2 as queue
from services.gateway.facades.ask import AnswerUndone, Began, Ended, Piece, Pieces, Said, Used
from services.gateway.facades.models import Models, ended, pieces, settled
from shared.errors import MeshError, from_failure

_PAUSES: Final = (0.05, 0.1, 0.2, 0.5)
_LONGEST_PAUSE: Final = 1.0
_TRIES: Final = 30


@dataclass(slots=True)
class Submitted:
    """One reader of one submitted generation."""

    models: Models
    id: str
    held: bool = False
    """Read when it is over: what does not fit a form is asked for again."""
    running: str = ""
    """The run that is read."""
    seen: int = 0
    """Its events that were read."""
    began: bool = False
    said: bool = False
    """Whether its reader was shown any of it, now or before."""
    broken: bool = False
    """The run failed; another may follow."""

    async def pieces(self) -> Pieces:
        """All of them. Raises what it failed with, and AnswerUndone when another run says something else."""
        pauses = iter(_PAUSES)
        while True:
            found = await self._state()
            if self.running or found.running_id:
                self.running = self.running or found.running_id
                try:
                    async with aclosing(self._run()) as live:
                        async for piece in live:
                            yield piece
                            if isinstance(piece, Ended):
                                return
                except MeshError as error:
                    found = await self._after(error)
            if found.state == queue.SUBMITTED_STATE_FAILED:
                raise from_failure(found.failure)
            if found.state == queue.SUBMITTED_STATE_SUCCEEDED and not self.said:
                for piece in whole(found):
                    yield piece
                return
            await asyncio.sleep(next(pauses, _LONGEST_PAUSE))

    async def _after(self, error: MeshError) -> queue.GetSubmittedGenerationResponse:
        """How it stands after a run could not be read on. Raises AnswerUndone where that ends this reader."""
        found = await self._state()
        if error.code is StatusCode.UNAVAILABLE and not self.broken and found.running_id == self.running:
            return found
        if self.said and found.state != queue.SUBMITTED_STATE_FAILED:
            await self._anew(found)
            raise AnswerUndone("the answer broke off and starts anew; read it again from its start") from error
        self.running, self.seen, self.broken = "", 0, False
        return found

    async def _anew(self, found: queue.GetSubmittedGenerationResponse) -> None:
        """Waits until another run has begun: who then reads again is not shown the dead one."""
        for _ in range(_TRIES):
            if found.running_id != self.running or found.state == queue.SUBMITTED_STATE_SUCCEEDED:
                return
            await asyncio.sleep(_LONGEST_PAUSE)
            found = await self._state()

    async def _state(self) -> queue.GetSubmittedGenerationResponse:
        """How it stands; who must say may be starting anew."""
        for _ in range(_TRIES):
            try:
                return await self.models.submitted(self.id)
            except MeshError as error:
                if error.code is not StatusCode.UNAVAILABLE:
                    raise
            await asyncio.sleep(_LONGEST_PAUSE)
        return await self.models.submitted(self.id)

    async def _run(self) -> AsyncGenerator[Piece, None]:
        events = self._events()
        async with aclosing(pieces(settled(events) if self.held else events)) as found:
            async for piece in found:
                if isinstance(piece, Began) and self.began:
                    continue
                self.began = True
                self.said = self.said or isinstance(piece, Said | Used)
                yield piece

    async def _events(self) -> AsyncGenerator[generation_pb2.GenerationEvent, None]:
        after = 0 if self.held and not self.said else self.seen
        async with aclosing(self.models.attach(self.running, after=after)) as found:
            async for event in found:
                self.seen, self.broken = event.sequence, event.HasField("failed")
                yield event


def whole(found: queue.GetSubmittedGenerationResponse) -> Iterator[Piece]:
    """What came out, when its events are gone."""
    answer = found.response
    yield Began(found.generation_id, "", found.create_time.seconds)
    if answer.text:
        yield Said(answer.text)
    for index, call in enumerate(answer.tool_calls):
        yield Used(index, call.arguments, call.id, call.name)
    yield ended(answer.finished)
