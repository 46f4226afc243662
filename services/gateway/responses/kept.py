"""Responses as they are kept: begun with what was said before, read again, gone on without their caller, called off."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import Any, Final

from agentnet.inference.v1 import queue_service_pb2 as queue
from services.gateway.facades import openai_input, openai_responses
from services.gateway.facades.agents import PREFIX as AGENT
from services.gateway.facades.ask import AnswerUndone, Ask, Pieces
from services.gateway.facades.models import pieces, settled
from services.gateway.facades.openai_input import ResponseRequest
from services.gateway.facades.openai_responses import PREFIX, Response
from services.gateway.facades.openai_rounds import Rounds, Within, within
from services.gateway.facades.reading import Object
from services.gateway.facades.router import Answerers
from services.gateway.facades.submitted import Submitted
from services.gateway.responses.driven import PREFIX as ROUNDS
from services.gateway.responses.driven import Driven, read
from services.gateway.responses.store import Record, ResponseStore
from shared.clock import Clock
from shared.errors import FailedPrecondition, InvalidArgument, MeshError, NotFound, Reason
from shared.identity import current
from shared.ids import Ids

_GENERATION: Final = "gen_"
_SESSION: Final = "ses_"
# How long a reader waits for the first of what goes on, before it is told that it has not begun; and for what did.
_SOON: Final = timedelta(seconds=0.2)
_BEGUN: Final = timedelta(seconds=5)
# The last event before anything is said: response.in_progress.
_BEGINS: Final = 2
_TRIES: Final = 10
_FAILED: Final = frozenset({"failed", "cancelled"})


class ResponseUnknown(NotFound):
    """Never made, not kept, forgotten, or another tenant's."""

    reason = Reason.ERROR_REASON_GENERATION_NOT_FOUND


class PreviousUnknown(InvalidArgument):
    """There is nothing to go on from."""

    reason = Reason.ERROR_REASON_GENERATION_NOT_FOUND


class NotSo(FailedPrecondition):
    """This response cannot do that."""

    reason = Reason.ERROR_REASON_FIELD_INVALID


@dataclass(frozen=True, slots=True)
class Begun:
    """A response that begins, and where what is said comes from."""

    request: ResponseRequest
    response: Response
    pieces: Pieces
    record: Record


@dataclass(frozen=True, slots=True)
class Responses:
    """All of the tenant's who calls."""

    store: ResponseStore
    answerers: Answerers
    driven: Driven
    clock: Clock
    ids: Ids
    work: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when there is something to drive on."""

    async def begin(self, data: Object) -> Begun:
        """Asks; what is to go on without its caller is on its way when this returns. Raises MeshError."""
        generation = self.ids.new(_GENERATION.removesuffix("_"))
        name = PREFIX + generation.removeprefix(_GENERATION)
        previous = openai_input.previous(data)
        before = await self._before(previous) if previous else ()
        request = openai_input.read(data, generation, before)
        tools = await within(self.driven.offer, request)
        asked: dict[str, Any] = {"items": request.items, "repeated": request.repeated}
        work = generation
        if request.background and tools:
            work, asked = ROUNDS + generation, {**asked, **await self.driven.submit(request, tools, before)}
        elif request.background:
            work = await self._submitted(request.ask)
        record = Record(name, previous, work, request.background, self.clock.now(), json.dumps(asked).encode())
        response = response_of(record, tools)
        return Begun(request, response, self._asked(request, tools, record), record)

    async def began(self, begun: Begun) -> None:
        """Keeps it from now on."""
        if begun.request.store:
            driven = _is_driven(begun.record)
            await self.store.begin(current().tenant_id, begun.record, work=driven)
            if driven:
                self.work.set()

    async def keep(self, response: Response) -> bool:
        """Keeps what came of it, once it ended; False when it has not, and goes on without who reads it."""
        if response.status in openai_responses.UNDONE or (response.error and not await self._over(response)):
            return False
        await self.write(response)
        return True

    async def write(self, response: Response) -> None:
        """Keeps what came of it, unless something else was kept."""
        answer = json.dumps(response.body()).encode()
        kept = await self.store.finish(current().tenant_id, response.id, answer)
        if kept and response.background and response.spent:
            await self.answerers.models.count(response.spent)

    async def undone(self, response: Response, error: MeshError) -> None:
        """Its caller was told the error instead: what never began was never made."""
        if not response.began:
            await self.store.forget(current().tenant_id, response.id)
            return
        response.fail(error)
        await self.keep(response)

    async def body(self, response_id: str) -> Mapping[str, Any]:
        """As it is now. Raises ResponseUnknown."""
        return await self._now(await self._find(response_id))

    async def read(self, response_id: str, *, after: int) -> tuple[Response, Pieces]:
        """To be told from its first event; those to `after` were seen. Raises ResponseUnknown, NotSo for one in rounds,
        and AnswerUndone when what was seen is void: it was begun anew after the death of who made it.
        """
        record = await self._find(response_id)
        if after > _BEGINS and await self._anew(record):
            raise AnswerUndone("the answer was begun anew; read it again from its start, without starting_after")
        if not record.background and any(tool.get("type") == "mcp" for tool in _repeated(record)["tools"]):
            raise NotSo(
                "Responses that called tools of the mesh while their caller waited cannot be streamed again.",
                field="stream",
            )
        return self._response(record), self._followed(record, shown=after > _BEGINS)

    async def items(self, response_id: str) -> Sequence[Object]:
        """What its input was, oldest first. Raises ResponseUnknown."""
        found: Sequence[Object] = json.loads((await self._find(response_id)).asked)["items"]
        return found

    async def cancel(self, response_id: str) -> Mapping[str, Any]:
        """As it then is; one that has ended stays so. Raises ResponseUnknown, and NotSo for one that has its caller."""
        record = await self._find(response_id)
        if not record.background:
            raise NotSo("Cannot cancel a synchronous response.")
        if record.answer is not None:
            return _answer(record)
        if record.work_id.startswith(_SESSION):
            await self.answerers.agents.cancel(record.work_id)
        elif not _is_driven(record) and not await self.answerers.models.call_off(record.work_id):
            return await self._now(record)
        response = response_of(record)
        response.status = "cancelled"
        await self.write(response)
        if _is_driven(record):
            self.work.set()
            await self.driven.call_off(record)
        return _answer(await self._find(response_id))

    async def forget(self, response_id: str) -> None:
        """Raises ResponseUnknown."""
        if not await self.store.forget(current().tenant_id, response_id):
            raise _unknown(response_id)
        self.work.set()

    async def _submitted(self, ask: Ask) -> str:
        """The id of what now goes on by itself: a session of the agent, or a generation in inference's queue."""
        if ask.model.startswith(AGENT):
            return (await self.answerers.agents.start(ask)).id
        await self.answerers.models.submit(ask)
        return ask.generation_id

    def _asked(self, request: ResponseRequest, tools: Within | None, record: Record) -> Pieces:
        if record.background:
            return self._followed(record)
        if tools is None:
            return self.answerers.answer(replace(request.ask, whole=not request.stream))
        return Rounds(request, tools, self.driven.offer, self.answerers.answer).pieces()

    def _followed(self, record: Record, *, shown: bool = False) -> Pieces:
        if record.work_id.startswith(_SESSION):
            return self.answerers.agents.follow(record.work_id)
        if _is_driven(record):
            return self.driven.follow(record, shown=shown)
        if record.background:
            return Submitted(self.answerers.models, record.work_id, _formal(record), said=shown).pieces()
        events = self.answerers.models.attach(record.work_id)
        return pieces(settled(events) if _formal(record) else events)

    async def _find(self, response_id: str) -> Record:
        chain = await self.store.chain(current().tenant_id, response_id)
        if not chain:
            raise _unknown(response_id)
        return chain[-1]

    async def _now(self, record: Record) -> Mapping[str, Any]:
        if record.answer is not None:
            return _answer(record)
        response = self._response(record)
        first = None
        if record.background:
            first = _BEGUN if await self._begun(record) else _SOON
            response.status = "queued"
        await openai_responses.so_far(response, self._followed(record), first=first)
        if response.status not in openai_responses.UNDONE and not await self.keep(response):
            response.status = "in_progress"
        return response.body()

    async def _over(self, response: Response) -> bool:
        """Whether what failed is the response, and not the reading of it."""
        if not response.background:
            return True
        record = await self._find(response.id)
        if record.work_id.startswith(_SESSION):
            return await self.answerers.agents.ended(record.work_id)
        if _is_driven(record):
            return await self._failed(record)
        return (await self.answerers.models.submitted(record.work_id)).state == queue.SUBMITTED_STATE_FAILED

    async def _failed(self, record: Record) -> bool:
        """Whether it failed: who drives it on writes that down a moment later."""
        for _ in range(_TRIES):
            if (found := await self._find(record.id)).answer is not None:
                return _answer(found)["status"] in _FAILED
            await asyncio.sleep(_SOON.total_seconds())
        return False

    async def _begun(self, record: Record) -> bool:
        if record.work_id.startswith(_SESSION):
            return True
        if _is_driven(record):
            return any([found.state != queue.SUBMITTED_STATE_QUEUED async for _, found in self.driven.rounds(record)])
        found = await self.answerers.models.submitted(record.work_id)
        return found.state != queue.SUBMITTED_STATE_QUEUED

    async def _anew(self, record: Record) -> bool:
        """Whether any of it was made a second time."""
        if not record.background or record.work_id.startswith(_SESSION):
            return False
        if _is_driven(record):
            return any([found.runs > 1 async for _, found in self.driven.rounds(record)])
        return (await self.answerers.models.submitted(record.work_id)).runs > 1

    def _response(self, record: Record) -> Response:
        return response_of(record, read(record)[1] if _is_driven(record) else None)

    async def _before(self, previous: str) -> Sequence[Object]:
        """The items of what a response goes on from, oldest first. Raises InvalidArgument."""
        chain = await self.store.chain(current().tenant_id, previous)
        if not chain:
            message = f"Previous response with id '{previous}' not found."
            raise PreviousUnknown(message, field="previous_response_id")
        found: list[Object] = []
        for record in chain:
            body = await self._now(record)
            if body["status"] in openai_responses.UNDONE:
                raise InvalidArgument(
                    f"Response '{record.id}' is still {body['status']}.", field="previous_response_id"
                )
            found.extend((*json.loads(record.asked)["items"], *body["output"]))
        return found


def _is_driven(record: Record) -> bool:
    return record.work_id.startswith(ROUNDS)


def response_of(record: Record, tools: Within | None = None) -> Response:
    """It, before anything was said."""
    made = partial(Response, record.id, _repeated(record), int(record.created_at.timestamp()), record.background)
    return made(tools.labels, tools.asks) if tools else made()


def _repeated(record: Record) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(record.asked)["repeated"]
    return found


def _formal(record: Record) -> bool:
    """Whether the answer must fit a form."""
    form: Mapping[str, Any] = _repeated(record)["text"].get("format") or {}
    return bool(form.get("type", "text") != "text")


def _answer(record: Record) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(record.answer or b"{}")
    return found


def _unknown(response_id: str) -> ResponseUnknown:
    return ResponseUnknown(f"Response with id '{response_id}' not found.")
