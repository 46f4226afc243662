"""Responses in rounds that go on without their caller: any replica drives one on, and every reader is told the same.

What the model says in a round is a submitted generation of inference's, what a call of a tool brought is noted once.
So a response is told anew from these whenever it is read, and whoever drives it on after a death repeats nothing.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

from grpc import StatusCode
from mcp import types

from agentnet.inference.v1 import queue_service_pb2 as queue
from services.gateway.facades import openai_input
from services.gateway.facades.agents import PREFIX as AGENT_MODEL
from services.gateway.facades.ask import Ask, Pieces, Unsupported
from services.gateway.facades.mcp_server import Offer, failed, names_agent
from services.gateway.facades.openai_input import ResponseRequest
from services.gateway.facades.openai_rounds import Rounds, Within, round_id
from services.gateway.facades.reading import Object
from services.gateway.facades.router import Answerers
from services.gateway.facades.submitted import Submitted, whole
from services.gateway.responses.store import Record, ResponseStore
from shared.errors import Aborted, Cancelled, MeshError, NotFound, Reason, ResourceExhausted, from_failure
from shared.identity import CredentialKind, Grant, Principal, current

PREFIX: Final = "rounds_"
# What a replica asks before each round for a caller who is not there: as if they asked again.
METHOD: Final = "/agentnet.gateway.v1.OpenaiService/CreateResponse"
_SESSION: Final = "-session"
_PAUSES: Final = (0.05, 0.1, 0.2, 0.5)
_TRIED_AGAIN: Final = (0.5, 1.0, 2.0, 4.0)
_LONGEST_WAIT: Final = 60.0
_ENDED: Final = (queue.SUBMITTED_STATE_SUCCEEDED, queue.SUBMITTED_STATE_FAILED)
Allow = Callable[[str], Awaitable[None]]
T = TypeVar("T")


class CalledOff(Cancelled):
    """The response was called off, or forgotten."""

    reason = Reason.ERROR_REASON_GENERATION_CANCELLED


class EventsGone(NotFound):
    """What was said piece by piece is forgotten; what came of it is not."""

    reason = Reason.ERROR_REASON_GENERATION_NOT_FOUND


@dataclass(frozen=True, slots=True)
class Driven:
    """All such responses. `allow` judges the caller anew."""

    store: ResponseStore
    answerers: Answerers
    offer: Offer
    allow: Allow

    async def submit(self, request: ResponseRequest, tools: Within, before: Sequence[Object]) -> Mapping[str, Any]:
        """Begins the first round, and returns what must be written down for the others. Raises MeshError."""
        if request.ask.model.startswith(AGENT_MODEL):
            raise Unsupported("tools", "are an agent's own; give them to the agent")
        if not request.approved:
            await self.answerers.models.submit(Rounds(request, tools, self.offer, self._said).first)
        shown = [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in tools.tools]
        return {"before": list(before), "tools": shown, "caller": _written(current())}

    def pieces(self, record: Record) -> Pieces:
        """Drives it on, as the caller of the current task. Raises MeshError."""
        request, tools = read(record)
        return Rounds(request, tools, _Calls(self, record), self._said).pieces()

    def follow(self, record: Record, *, shown: bool) -> Pieces:
        """Its pieces while somebody drives it on, and after. Raises what it ended with, and AnswerUndone."""
        request, tools = read(record)
        return Rounds(request, tools, _Noted(self, record), partial(self._told, record, shown)).pieces()

    async def call_off(self, record: Record) -> None:
        """Cancels what of an ended one is still under way."""
        async for name, _found in self.rounds(record):
            await self.answerers.models.call_off(name)
        for name, noted in (await self.store.noted(current().tenant_id, record.id)).items():
            if name.endswith(_SESSION):
                await self.answerers.agents.end(noted.decode())

    async def rounds(self, record: Record) -> AsyncIterator[tuple[str, queue.GetSubmittedGenerationResponse]]:
        """Those that were begun, by the generation's id."""
        for number in itertools.count():
            name = round_id(generation(record), number)
            if (found := await self._submitted(name)) is None:
                return
            yield name, found

    async def check(self, record: Record) -> None:
        """Raises for a response that has ended: there is nothing more to wait for."""
        chain = await self.store.chain(current().tenant_id, record.id)
        if chain and chain[-1].answer is None:
            return
        answer: Object = json.loads(chain[-1].answer or b"{}") if chain else {"status": "cancelled"}
        if answer["status"] == "cancelled":
            raise CalledOff("the response was called off")
        if error := answer["error"]:
            raise (ResourceExhausted if error["code"] == "rate_limit_exceeded" else Aborted)(error["message"])
        raise EventsGone("its events are no longer kept; read it without stream")

    async def _submitted(self, name: str) -> queue.GetSubmittedGenerationResponse | None:
        try:
            return await patiently(partial(self.answerers.models.submitted, name))
        except MeshError as error:
            if error.code is not StatusCode.NOT_FOUND:
                raise
            return None

    async def _said(self, ask: Ask) -> Pieces:
        """One round, begun unless it was."""
        if await self._submitted(ask.generation_id) is None:
            await patiently(partial(self.allow, METHOD))
            await patiently(partial(self.answerers.models.submit, ask))
        pauses = iter(_PAUSES)
        while True:
            found = await patiently(partial(self.answerers.models.submitted, ask.generation_id))
            if found.state in _ENDED:
                break
            await asyncio.sleep(next(pauses, _PAUSES[-1]))
        if found.state == queue.SUBMITTED_STATE_FAILED:
            raise from_failure(found.failure)
        for piece in whole(found):
            yield piece

    async def _told(self, record: Record, shown: bool, ask: Ask) -> Pieces:
        pauses = iter(_PAUSES)
        while await self._submitted(ask.generation_id) is None:
            await self.check(record)
            await asyncio.sleep(next(pauses, _PAUSES[-1]))
        async for piece in Submitted(
            self.answerers.models, ask.generation_id, ask.schema is not None, said=shown
        ).pieces():
            yield piece


@dataclass(frozen=True, slots=True)
class _Calls:
    """Tools as a driver calls them."""

    driven: Driven
    record: Record

    async def tools(self) -> list[types.Tool]:
        return list(read(self.record)[1].tools)

    async def call(self, name: str, arguments: Mapping[str, Any], *, key: str) -> types.CallToolResult:
        tenant = current().tenant_id
        if known := (await self.driven.store.noted(tenant, self.record.id)).get(key):
            return types.CallToolResult.model_validate_json(known)
        try:
            result = await patiently(partial(self._once, name, arguments, key))
        except CalledOff:
            raise
        except MeshError as error:
            result = failed(error)
        told = await self._note(key, result.model_dump_json(by_alias=True, exclude_none=True).encode())
        return types.CallToolResult.model_validate_json(told)

    async def _once(self, name: str, arguments: Mapping[str, Any], key: str) -> types.CallToolResult:
        if not names_agent(name):
            return await self.driven.offer.invoke(name, arguments, key=key)
        session = await self.driven.offer.begin(name, arguments, key=key)
        try:
            await self._note(key + _SESSION, session.encode())
        except CalledOff:
            await self.driven.answerers.agents.end(session)
            raise
        return await self.driven.offer.finished(session)

    async def _note(self, key: str, outcome: bytes) -> bytes:
        noted = await self.driven.store.note(current().tenant_id, self.record.id, key, outcome)
        if noted is None:
            raise CalledOff("the response was called off")
        return noted


@dataclass(frozen=True, slots=True)
class _Noted(_Calls):
    """Tools as a reader sees them: somebody else calls them."""

    async def call(self, name: str, arguments: Mapping[str, Any], *, key: str) -> types.CallToolResult:
        pauses = iter(_PAUSES)
        while (known := (await self.driven.store.noted(current().tenant_id, self.record.id)).get(key)) is None:
            await self.driven.check(self.record)
            await asyncio.sleep(next(pauses, _PAUSES[-1]))
        return types.CallToolResult.model_validate_json(known)


async def patiently(act: Callable[[], Awaitable[T]]) -> T:
    """What fails in passing is tried again, what another has under way is waited for; nothing here happens twice."""
    for pause in _TRIED_AGAIN:
        try:
            return await act()
        except MeshError as error:
            if error.retry_after is None and error.code not in {StatusCode.UNAVAILABLE, StatusCode.ABORTED}:
                raise
            wait = error.retry_after.total_seconds() if error.retry_after else pause
        await asyncio.sleep(min(wait, _LONGEST_WAIT))
    return await act()


def generation(record: Record) -> str:
    """The generation that its first round is."""
    return record.work_id.removeprefix(PREFIX)


def caller(tenant: str, record: Record) -> Principal:
    """In whose name it is driven on."""
    found = json.loads(record.asked)["caller"]
    grant = Grant.from_claim(found["grant"]) if found["grant"] is not None else None
    return Principal(tenant, found["subject"], frozenset(found["roles"]), CredentialKind(found["kind"]), grant=grant)


def read(record: Record) -> tuple[ResponseRequest, Within]:
    """What was asked, and which tools were there."""
    asked = json.loads(record.asked)
    data = {**asked["repeated"], "input": asked["items"], "background": True}
    request = openai_input.read(data, generation(record), asked["before"])
    if request.mesh is None:
        raise ValueError(f"{record.id} has no tools of the mesh")
    return request, Within(request.mesh, tuple(types.Tool.model_validate(tool) for tool in asked["tools"]))


def _written(principal: Principal) -> Mapping[str, Any]:
    grant = principal.grant.claim() if principal.grant else None
    roles = sorted(principal.roles)
    return {"subject": principal.subject, "roles": roles, "kind": principal.kind.value, "grant": grant}
