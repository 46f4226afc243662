"""InputService and TurnService over the wire, beside the sessions they belong to."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from google.protobuf import json_format
from grpc import StatusCode

from agentnet.inference.v1 import message_pb2
from agentnet.orchestrator.v1 import agent_pb2, input_service_pb2, session_pb2, turn_service_pb2
from agentnet.orchestrator.v1 import session_service_pb2 as pb
from services.orchestrator.peers import Utterance
from tests.service.orchestrator.conftest import Mesh
from tests.support.orchestrator import TENANT

SCHEMA = json.loads((Path(__file__).parents[3] / "docs/schemas/turn.schema.json").read_text())


async def waiting(mesh: Mesh) -> tuple[str, Any]:
    """A session of an agent that asks a person, and what it asks."""
    clio = agent_pb2.Agent(
        name="Clio", version="1.0.0", system_prompt="x", state=agent_pb2.AGENT_STATE_ACTIVE, functions=["ask_human"]
    )
    await mesh.world.agents.create(TENANT, clio)
    ask = message_pb2.ToolCall(id="1", name="ask_human", arguments='{"question": "Which city?"}')

    def reply(utterance: Utterance) -> str | list[message_pb2.ToolCall]:
        return "So be it." if utterance.exchanges else [ask]

    mesh.world.inference.reply = reply
    request = pb.StartSessionRequest(topic="Where?", agents=["Clio"])
    session_id = (await mesh.ask(mesh.sessions.StartSession, request)).session.id
    await reached(mesh, session_id, session_pb2.SESSION_STATUS_AWAITING_INPUT)
    (wanted,) = (await mesh.ask(mesh.inputs.ListInputs, listed(session_id))).inputs
    return session_id, wanted


def listed(session_id: str) -> input_service_pb2.ListInputsRequest:
    return input_service_pb2.ListInputsRequest(session_id=session_id)


async def reached(mesh: Mesh, session_id: str, status: int) -> Any:
    async with asyncio.timeout(5):
        while True:
            session = (await mesh.ask(mesh.sessions.GetSession, pb.GetSessionRequest(session_id=session_id))).session
            if session.status == status:
                return session
            await asyncio.sleep(0.01)


async def test_one_inbox_holds_what_all_sessions_of_a_tenant_ask(mesh: Mesh) -> None:
    first, asked = await waiting(mesh)
    request = pb.StartSessionRequest(topic="Where else?", agents=["Clio"])
    second = (await mesh.ask(mesh.sessions.StartSession, request)).session.id
    await reached(mesh, second, session_pb2.SESSION_STATUS_AWAITING_INPUT)

    page = await mesh.ask(mesh.inputs.ListOpenInputs, input_service_pb2.ListOpenInputsRequest(page_size=1))
    rest = await mesh.ask(
        mesh.inputs.ListOpenInputs,
        input_service_pb2.ListOpenInputsRequest(page_size=1, page_token=page.next_page_token),
    )
    pages = [[one.session_id for one in found.inputs] for found in (page, rest)]
    assert sorted(pages) == sorted([[first], [second]])
    assert asked in (*page.inputs, *rest.inputs)
    assert rest.next_page_token == ""
    found = await mesh.ask(mesh.inputs.ListOpenInputs, input_service_pb2.ListOpenInputsRequest(agent="Clio"))
    assert {one.session_id for one in found.inputs} == {first, second}
    nobody = await mesh.ask(mesh.inputs.ListOpenInputs, input_service_pb2.ListOpenInputsRequest(agent="Athena"))
    assert not nobody.inputs
    other = await mesh.ask(mesh.inputs.ListOpenInputs, input_service_pb2.ListOpenInputsRequest(), tenant="other")
    assert not other.inputs

    given = input_service_pb2.GiveInputRequest(session_id=first, input_id=asked.id, answer="Rome")
    await mesh.ask(mesh.inputs.GiveInput, given)
    await reached(mesh, first, session_pb2.SESSION_STATUS_COMPLETED)
    left = await mesh.ask(mesh.inputs.ListOpenInputs, input_service_pb2.ListOpenInputsRequest())
    assert [one.session_id for one in left.inputs] == [second]


async def test_a_person_answers_and_the_session_goes_on(mesh: Mesh) -> None:
    session_id, wanted = await waiting(mesh)
    assert (wanted.question, wanted.session_id) == ("Which city?", session_id)

    request = input_service_pb2.GiveInputRequest(session_id=session_id, input_id=wanted.id, answer="Rome")
    given = await mesh.ask(mesh.inputs.GiveInput, request)

    assert given.input == wanted
    session = await reached(mesh, session_id, session_pb2.SESSION_STATUS_COMPLETED)
    assert session.result.endswith("So be it.")
    assert (await mesh.refused(mesh.inputs.GiveInput, request)).reason_name == "SESSION_ENDED"


@pytest.mark.parametrize(
    ("changes", "code", "reason"),
    [
        ({"session_id": "ses_none"}, StatusCode.NOT_FOUND, "SESSION_NOT_FOUND"),
        ({"input_id": "inp_none"}, StatusCode.NOT_FOUND, "INPUT_NOT_FOUND"),
        ({"input_id": ""}, StatusCode.INVALID_ARGUMENT, "FIELD_REQUIRED"),
        ({"answer": ""}, StatusCode.INVALID_ARGUMENT, "FIELD_REQUIRED"),
        ({"answer": "a\x00b"}, StatusCode.INVALID_ARGUMENT, "FIELD_INVALID"),
        ({"answer": "x" * 32_769}, StatusCode.INVALID_ARGUMENT, "FIELD_TOO_LONG"),
    ],
)
async def test_a_bad_answer_is_refused(mesh: Mesh, changes: dict[str, str], code: StatusCode, reason: str) -> None:
    session_id, wanted = await waiting(mesh)
    given = {"session_id": session_id, "input_id": wanted.id, "answer": "Rome", **changes}

    error = await mesh.refused(mesh.inputs.GiveInput, input_service_pb2.GiveInputRequest(**given))

    assert (error.code, error.reason_name) == (code, reason)


async def test_another_tenant_neither_sees_nor_answers(mesh: Mesh) -> None:
    session_id, wanted = await waiting(mesh)
    request = input_service_pb2.GiveInputRequest(session_id=session_id, input_id=wanted.id, answer="Oslo")

    seen = await mesh.refused(mesh.inputs.ListInputs, listed(session_id), tenant="other")
    given = await mesh.refused(mesh.inputs.GiveInput, request, tenant="other")

    assert seen.reason_name == given.reason_name == "SESSION_NOT_FOUND"


async def test_a_person_says_something_unasked(mesh: Mesh) -> None:
    request = pb.StartSessionRequest(topic="x", agents=["Athena", "Apollo"], max_rounds=2, manual_advance=True)
    session_id = (await mesh.ask(mesh.sessions.StartSession, request)).session.id
    await reached(mesh, session_id, session_pb2.SESSION_STATUS_WAITING)

    said = input_service_pb2.InjectMessageRequest(session_id=session_id, content="Mind the cost.")
    message_id = (await mesh.ask(mesh.inputs.InjectMessage, said)).message_id
    await mesh.ask(mesh.sessions.AdvanceSession, pb.AdvanceSessionRequest(session_id=session_id))
    await reached(mesh, session_id, session_pb2.SESSION_STATUS_COMPLETED)

    assert "user:ada: Mind the cost." in mesh.world.inference.started[2].lines[-1].text
    log = await mesh.world.log(session_id)
    assert [event.message_injected.message_id for event in log if event.HasField("message_injected")] == [message_id]
    assert (await mesh.refused(mesh.inputs.InjectMessage, said)).reason_name == "SESSION_ENDED"


async def test_turns_are_listed_as_records_of_the_published_schema(mesh: Mesh) -> None:
    request = pb.StartSessionRequest(topic="x", agents=["Athena", "Apollo"], max_rounds=2)
    session_id = (await mesh.ask(mesh.sessions.StartSession, request)).session.id
    await reached(mesh, session_id, session_pb2.SESSION_STATUS_COMPLETED)

    page = turn_service_pb2.ListTurnRecordsRequest(session_id=session_id, page_size=3)
    first = await mesh.ask(mesh.turns.ListTurnRecords, page)
    page.page_token = first.next_page_token
    second = await mesh.ask(mesh.turns.ListTurnRecords, page)

    records = [json_format.MessageToDict(record) for record in (*first.records, *second.records)]
    assert [record["agent"] for record in records] == ["Athena", "Apollo"] * 2
    assert (first.schema_version, second.next_page_token) == ("1.0.0", "")
    for record in records:
        jsonschema.Draft202012Validator(SCHEMA).validate(record)
