"""Responses as they are kept: begun with what was said before, read again, gone on without their caller, called off."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Final

from agentnet.inference.v1 import queue_service_pb2 as queue
from services.gateway.facades import openai_input, openai_responses
from services.gateway.facades.agents import PREFIX as AGENT
from services.gateway.facades.ask import AnswerUndone, Ask, Pieces, Unsupported
from services.gateway.facades.models import pieces
from services.gateway.facades.openai_input import ResponseRequest
from services.gateway.facades.openai_responses import PREFIX, Response
from services.gateway.facades.openai_rounds import Offer, Rounds, Within, within
from services.gateway.facades.reading import Object
from services.gateway.facades.router import Answerers
from services.gateway.facades.submitted import Submitted
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
    offer: Offer
    clock: Clock
    ids: Ids

    async def begin(self, data: Object) -> Begun:
        """Asks; what is to go on without its caller is on its way when this returns. Raises MeshError."""
        generation = self.ids.new(_GENERATION.removesuffix("_"))
        name = PREFIX + generation.removeprefix(_GENERATION)
        previous = openai_input.previous(data)
        request = openai_input.read(data, generation, await self._before(previous) if previous else ())
        tools = await within(self.offer, request)
        asked = json.dumps({"items": request.items, "repeated": request.repeated}).encode()
        work = await self._submitted(request.ask, tools) if request.background else generation
        record = Record(name, previous, work, request.background, self.clock.now(), asked)
        response = _response(record, tools)
        return Begun(request, response, self._asked(request, tools, record), record)

    async def began(self, begun: Begun) -> None:
        """Keeps it from now on."""
        if begun.request.store:
            await self.store.begin(current().tenant_id, begun.record)

    async def keep(self, response: Response) -> bool:
        """Keeps what came of it, once it ended; False when it has not, and goes on without who reads it."""
        if response.status in openai_responses.UNDONE or (response.error and not await self._over(response)):
            return False
        answer = json.dumps(response.body()).encode()
        kept = await self.store.finish(current().tenant_id, response.id, answer)
        if kept and response.background and response.spent:
            await self.answerers.models.count(response.spent)
        return True

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
        queued = record.background and not record.work_id.startswith(_SESSION)
        if queued and after > _BEGINS and (await self.answerers.models.submitted(record.work_id)).runs > 1:
            raise AnswerUndone("the answer was begun anew; read it again from its start, without starting_after")
        if any(tool.get("type") == "mcp" for tool in _repeated(record)["tools"]):
            raise NotSo("Responses that called tools of the mesh cannot be streamed again.", field="stream")
        return _response(record), self._followed(record, shown=after > _BEGINS)

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
        elif not await self.answerers.models.call_off(record.work_id):
            return await self._now(record)
        response = _response(record)
        response.status = "cancelled"
        await self.keep(response)
        return _answer(await self._find(response_id))

    async def forget(self, response_id: str) -> None:
        """Raises ResponseUnknown."""
        if not await self.store.forget(current().tenant_id, response_id):
            raise _unknown(response_id)

    async def _submitted(self, ask: Ask, tools: Within | None) -> str:
        """The id of what now goes on by itself: a session of the agent, or a generation in inference's queue."""
        if tools is not None:
            raise Unsupported("tools", "of the mesh are not for the background on this mesh; an agent has its own")
        if ask.model.startswith(AGENT):
            return (await self.answerers.agents.start(ask)).id
        await self.answerers.models.submit(ask)
        return ask.generation_id

    def _asked(self, request: ResponseRequest, tools: Within | None, record: Record) -> Pieces:
        if record.background:
            return self._followed(record)
        if tools is None:
            return self.answerers.answer(request.ask)
        return Rounds(request, tools, self.offer, self.answerers.answer).pieces()

    def _followed(self, record: Record, *, shown: bool = False) -> Pieces:
        if record.work_id.startswith(_SESSION):
            return self.answerers.agents.follow(record.work_id)
        if record.background:
            return Submitted(self.answerers.models, record.work_id, said=shown).pieces()
        return pieces(self.answerers.models.attach(record.work_id))

    async def _find(self, response_id: str) -> Record:
        chain = await self.store.chain(current().tenant_id, response_id)
        if not chain:
            raise _unknown(response_id)
        return chain[-1]

    async def _now(self, record: Record) -> Mapping[str, Any]:
        if record.answer is not None:
            return _answer(record)
        response = _response(record)
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
        return (await self.answerers.models.submitted(record.work_id)).state == queue.SUBMITTED_STATE_FAILED

    async def _begun(self, record: Record) -> bool:
        if record.work_id.startswith(_SESSION):
            return True
        found = await self.answerers.models.submitted(record.work_id)
        return found.state != queue.SUBMITTED_STATE_QUEUED

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


def _response(record: Record, tools: Within | None = None) -> Response:
    made = partial(Response, record.id, _repeated(record), int(record.created_at.timestamp()), record.background)
    return made(tools.labels, tools.asks) if tools else made()


def _repeated(record: Record) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(record.asked)["repeated"]
    return found


def _answer(record: Record) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(record.answer or b"{}")
    return found


def _unknown(response_id: str) -> ResponseUnknown:
    return ResponseUnknown(f"Response with id '{response_id}' not found.")
