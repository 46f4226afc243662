"""InputService and TurnService: convert in, one call of the domain, convert out."""

from __future__ import annotations

from datetime import UTC
from typing import Any, Final

from google.protobuf import json_format, struct_pb2

from agentnet.orchestrator.v1 import input_service_pb2 as inputs
from agentnet.orchestrator.v1 import input_service_pb2_grpc, turn_service_pb2_grpc
from agentnet.orchestrator.v1 import session_service_pb2 as sessions
from agentnet.orchestrator.v1 import turn_service_pb2 as turns
from services.orchestrator import convert, turn_records
from services.orchestrator.inputs import Inputs
from services.orchestrator.sessions import Sessions
from shared import fields
from shared.identity import current
from shared.paging import next_page_token, page, paged

INPUTS: Final = "agentnet.orchestrator.v1.InputService"
TURNS: Final = "agentnet.orchestrator.v1.TurnService"
_SAID: Final = 32_768
_NAME: Final = 64


class InputService(input_service_pb2_grpc.InputServiceServicer):
    """People in the loop."""

    def __init__(self, all_inputs: Inputs) -> None:
        self._inputs = all_inputs

    async def GiveInput(self, request: inputs.GiveInputRequest, context: Any) -> inputs.GiveInputResponse:
        session_id = fields.identifier(request.session_id, "session_id")
        input_id = fields.identifier(request.input_id, "input_id")
        asked = await self._inputs.give(
            current(),
            session_id,
            input_id,
            answer=fields.text(request.answer, "answer", limit=_SAID),
            approved=request.approved,
            request_id=fields.request_id(request.request_id),
        )
        return inputs.GiveInputResponse(input=asked)

    async def ListInputs(self, request: inputs.ListInputsRequest, context: Any) -> inputs.ListInputsResponse:
        session_id = fields.identifier(request.session_id, "session_id")
        found = await self._inputs.every(current().tenant_id, session_id)
        shown, token = paged(found, request, scope=f"inputs|{session_id}", name=lambda one: one.id)
        return inputs.ListInputsResponse(inputs=shown, next_page_token=token)

    async def ListOpenInputs(
        self, request: inputs.ListOpenInputsRequest, context: Any
    ) -> inputs.ListOpenInputsResponse:
        agent = fields.text(request.agent, "agent", limit=_NAME)
        scope = f"inbox|{agent}"
        asked = page(request.page_size, request.page_token, scope=scope)
        found = await self._inputs.inbox(current().tenant_id, page=asked)
        shown, more = found[: asked.size], len(found) > asked.size
        last = (shown[-1].start_time.ToDatetime(UTC).isoformat(), shown[-1].id) if more else None
        waiting = [one for session in shown for one in session.inputs]
        return inputs.ListOpenInputsResponse(
            inputs=[one for one in waiting if agent in ("", one.agent.partition("@")[0])],
            next_page_token=next_page_token(last, scope=scope),
        )

    async def InjectMessage(self, request: inputs.InjectMessageRequest, context: Any) -> inputs.InjectMessageResponse:
        session_id = fields.identifier(request.session_id, "session_id")
        content = fields.required(request.content, "content", limit=_SAID)
        request_id = fields.request_id(request.request_id)
        return inputs.InjectMessageResponse(
            message_id=await self._inputs.say(current(), session_id, content, request_id=request_id)
        )


class TurnService(turn_service_pb2_grpc.TurnServiceServicer):
    """Turns as records."""

    def __init__(self, all_sessions: Sessions) -> None:
        self._sessions = all_sessions

    async def ListTurnRecords(
        self, request: turns.ListTurnRecordsRequest, context: Any
    ) -> turns.ListTurnRecordsResponse:
        session_id = fields.identifier(request.session_id, "session_id")
        asked = convert.list_turns(
            sessions.ListTurnsRequest(
                session_id=session_id,
                page_size=request.page_size,
                page_token=request.page_token,
                agent=request.agent,
                round=request.round,
            )
        )
        found = await self._sessions.turns(
            current().tenant_id, session_id, agent=request.agent, round_number=request.round, page=asked.page
        )
        page = convert.turns_response(found, asked)
        return turns.ListTurnRecordsResponse(
            records=[json_format.ParseDict(turn_records.record(turn), struct_pb2.Struct()) for turn in page.turns],
            next_page_token=page.next_page_token,
            schema_version=turn_records.VERSION,
        )
