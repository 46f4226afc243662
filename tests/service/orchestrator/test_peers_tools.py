"""tools, and what of inference only a dialogue needs, as the orchestrator calls them over a real channel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import struct_pb2

from agentnet.inference.v1 import generation_pb2 as gen
from agentnet.inference.v1 import inference_service_pb2 as inference
from agentnet.inference.v1 import inference_service_pb2_grpc as inference_rpc
from agentnet.inference.v1 import message_pb2
from agentnet.orchestrator.v1 import agent_pb2
from agentnet.tools.v1 import artefact_pb2, tool_pb2
from agentnet.tools.v1 import tool_service_pb2 as tools
from agentnet.tools.v1 import tool_service_pb2_grpc as tools_rpc
from services.orchestrator import forms
from services.orchestrator.peers import Exchange, ToolAnswer, ToolShown, Utterance
from services.orchestrator.peers_grpc import SERVICES, GrpcInference
from services.orchestrator.peers_tools import GrpcTools
from services.orchestrator.prompts import Line
from services.orchestrator.speech import Call
from shared.errors import FailedPrecondition, MeshError, NotFound, Reason
from shared.rpc.channel import mesh_channel
from shared.rpc.server import serving
from shared.settings import MeshSettings
from tests.support.identity import make_keys
from tests.support.orchestrator import ADA

CALL = Call("eff_1", "model_1", "adder", '{"a": 1}', "digest", 1)
FORM = forms.of("vote", choice={"type": "string"})
SAID = Utterance(
    generation_id="trn_1-1",
    session_id="ses_1",
    agent=agent_pb2.Agent(name="Athena", version="1.0.0"),
    model="",
    lines=(Line("user", "Why?"),),
    max_output_tokens=96,
)


@dataclass(slots=True)
class Tools(tools_rpc.ToolServiceServicer):
    """Adds, and remembers what it was asked."""

    asked: list[tools.InvokeToolRequest] = field(default_factory=list)
    looked: int = 0
    there: set[str] = field(default_factory=lambda: {"adder"})
    answer: tools.InvokeToolResponse = field(default_factory=tools.InvokeToolResponse)
    events: list[tools.StreamToolResponse] = field(default_factory=list)
    held: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def GetTool(self, request: tools.GetToolRequest, context: Any) -> tools.GetToolResponse:
        self.looked += 1
        if request.name not in self.there:
            raise NotFound("no such tool", reason=Reason.ERROR_REASON_TOOL_NOT_FOUND)
        tool = tool_pb2.Tool(name=request.name, version="1.0.0", description="Adds.")
        tool.input_schema.update({"type": "object"})
        return tools.GetToolResponse(tool=tool)

    async def InvokeTool(self, request: tools.InvokeToolRequest, context: Any) -> tools.InvokeToolResponse:
        self.asked.append(request)
        return self.answer

    async def StreamTool(self, request: tools.StreamToolRequest, context: Any) -> Any:
        self.asked.append(request.invocation)
        try:
            for event in self.events:
                yield event
            await self.held.wait()
        finally:
            self.ended.set()


@dataclass(slots=True)
class Model(inference_rpc.InferenceServiceServicer):
    """Cannot be held to a schema unless `able`; shows what it was asked."""

    able: bool = True
    asked: list[inference.GenerateRequest] = field(default_factory=list)
    listed: int = 0

    async def Generate(self, request: inference.GenerateRequest, context: Any) -> Any:
        self.asked.append(request)
        if request.HasField("response_format") and not self.able:
            raise FailedPrecondition("no schema", reason=Reason.ERROR_REASON_MODEL_UNABLE)
        yield inference.GenerateResponse(event=gen.GenerationEvent(sequence=1, finished=gen.GenerationFinished()))

    async def Embed(self, request: inference.EmbedRequest, context: Any) -> inference.EmbedResponse:
        return inference.EmbedResponse(embeddings=[inference.Embedding(values=[1, 0]) for _ in request.texts])

    async def ListModels(self, request: inference.ListModelsRequest, context: Any) -> inference.ListModelsResponse:
        self.listed += 1
        small = inference.Model(name="small", context_tokens=2048, is_default=True)
        return inference.ListModelsResponse(models=[small, inference.Model(name="large", context_tokens=128_000)])


@dataclass(frozen=True, slots=True)
class Peers:
    served: Tools
    model: Model
    tools: GrpcTools
    inference: GrpcInference


@pytest.fixture
async def peers(tmp_path: Path) -> AsyncIterator[Peers]:
    keys, served, model = make_keys(tmp_path), Tools(), Model()
    given = {"listen": "127.0.0.1:0", "postgres_dsn": "postgres://nowhere", "identity_keys": keys.jwks}

    async def register(server: grpc.aio.Server, _stack: Any) -> None:
        tools_rpc.add_ToolServiceServicer_to_server(served, server)
        inference_rpc.add_InferenceServiceServicer_to_server(model, server)

    settings = MeshSettings.model_validate(given | {"drain_grace": 0})
    async with (
        serving(settings, register, service_names=SERVICES) as address,
        mesh_channel(address, services=SERVICES) as channel,
    ):
        yield Peers(served, model, GrpcTools(channel, keys.signer), GrpcInference(channel, keys.signer))


async def test_a_model_is_told_of_the_tools_there_are_and_they_are_looked_up_once(peers: Peers) -> None:
    for _ in range(2):
        (told,) = await peers.tools.describe(ADA, ["adder"])
    assert (told.name, told.description, dict(told.input_schema)) == ("adder", "Adds.", {"type": "object"})
    assert peers.served.looked == 1


async def test_a_function_that_is_registered_while_a_session_runs_is_there_for_its_next_turn(peers: Peers) -> None:
    assert [one.name for one in await peers.tools.describe(ADA, ["adder", "doubler"])] == ["adder"]
    peers.served.there.add("doubler")
    assert [one.name for one in await peers.tools.describe(ADA, ["adder", "doubler"])] == ["adder", "doubler"]


@pytest.mark.parametrize(
    ("result", "stdout", "shown"),
    [
        (struct_pb2.Value(string_value="three"), "", "three"),
        (struct_pb2.Value(number_value=3), "", "3"),
        (struct_pb2.Value(number_value=3.5), "", "3.5"),
        (None, "printed", "printed"),
    ],
)
async def test_a_call_carries_the_key_of_its_effect_and_comes_back_as_text(
    peers: Peers, result: struct_pb2.Value | None, stdout: str, shown: str
) -> None:
    finished = tools.ToolFinished(result=result)
    peers.served.answer = tools.InvokeToolResponse(
        invocation_id="inv_1", finished=finished, stdout=stdout, replayed=True
    )

    answer = await peers.tools.invoke(ADA, CALL, agent="Athena@1.0.0", session_id="ses_1", turn_id="trn_1")

    (asked,) = peers.served.asked
    assert (asked.request_id, asked.agent, asked.turn_id, dict(asked.arguments)) == (
        "eff_1",
        "Athena",
        "trn_1",
        {"a": 1},
    )
    assert (answer.result, answer.invocation_id, answer.replayed) == (shown, "inv_1", True)


async def test_a_function_that_failed_is_its_own_error(peers: Peers) -> None:
    failure = FailedPrecondition("it raised", reason=Reason.ERROR_REASON_FUNCTION_FAILED).failure()
    peers.served.answer = tools.InvokeToolResponse(finished=tools.ToolFinished(failure=failure))

    with pytest.raises(MeshError) as raised:
        await peers.tools.invoke(ADA, CALL, agent="Athena@1.0.0", session_id="ses_1", turn_id="trn_1")

    assert raised.value.reason_name == "FUNCTION_FAILED"


async def heard(peers: Peers, utterance: Utterance) -> int:
    async with aclosing(peers.inference.generate(ADA, utterance)) as events:
        return len([event async for event in events])


async def test_a_model_is_held_to_a_form_where_it_can_be(peers: Peers) -> None:
    assert await heard(peers, replace(SAID, form=FORM)) == 1
    (asked,) = peers.model.asked
    assert asked.response_format.name == "vote"
    assert asked.response_format.json_schema["required"][0] == "choice"


async def test_a_model_that_cannot_be_held_to_a_form_answers_all_the_same(peers: Peers) -> None:
    peers.model.able = False
    assert await heard(peers, replace(SAID, form=FORM)) == 1
    assert [asked.HasField("response_format") for asked in peers.model.asked] == [True, False]


async def test_what_was_said_between_the_model_and_its_tools_is_sent_again(peers: Peers) -> None:
    ended = replace(CALL, result="three", failed=True)
    await heard(peers, replace(SAID, exchanges=(Exchange("Let me see.", (ended,)),), may_call=False))

    (asked,) = peers.model.asked
    _, said, answered = asked.messages
    assert (said.role, [part.WhichOneof("part") for part in said.content]) == (
        message_pb2.ROLE_ASSISTANT,
        ["text", "tool_call"],
    )
    assert answered.content[0].tool_result == message_pb2.ToolResult(
        tool_call_id="model_1", content="three", is_error=True
    )
    assert asked.tool_choice.mode == message_pb2.TOOL_MODE_NONE


async def test_how_much_a_model_reads_is_asked_once(peers: Peers) -> None:
    found = [await peers.inference.context_tokens(ADA, name) for name in ("", "large", "unknown")]
    assert (found, peers.model.listed) == ([2048, 128_000, 0], 1)


async def test_each_text_has_its_vector(peers: Peers) -> None:
    assert [list(one) for one in await peers.inference.embed(ADA, ["a", "b"])] == [[1.0, 0.0], [1.0, 0.0]]


def streamed(**event: Any) -> tools.StreamToolResponse:
    return tools.StreamToolResponse(invocation_id="inv_1", **event)


async def test_a_call_tells_what_its_tool_shows_and_then_its_answer(peers: Peers) -> None:
    emitted = tools.ToolEmitted(kind="progress", data=struct_pb2.Value(number_value=3))
    peers.served.events = [
        streamed(started=tools.ToolStarted(tool="adder@1.0.0")),
        streamed(output=tools.ToolOutput(stream=tools.OUTPUT_STREAM_STDOUT, text="one")),
        streamed(output=tools.ToolOutput(stream=tools.OUTPUT_STREAM_STDERR, text="oh")),
        streamed(emitted=emitted),
        streamed(finished=tools.ToolFinished(replayed=True)),
    ]
    stream = peers.tools.stream(ADA, CALL, agent="Athena@1.0.0", session_id="ses_1", turn_id="trn_1")
    async with aclosing(stream) as parts:
        heard = [part async for part in parts]
    shown = [
        ToolShown("stdout", "one", "inv_1"),
        ToolShown("stderr", "oh", "inv_1"),
        ToolShown("progress", "3", "inv_1"),
    ]
    assert heard == [*shown, ToolAnswer("one", "inv_1", replayed=True)]
    (asked,) = peers.served.asked
    assert (asked.request_id, asked.agent) == ("eff_1", "Athena")


async def test_what_a_tool_left_in_the_object_store_is_told_by_reference(peers: Peers) -> None:
    left = artefact_pb2.ToolArtefact(name="plot.png", size=7, sha256="ab", invocation_id="inv_1")
    peers.served.events = [streamed(finished=tools.ToolFinished(artefacts=[left]))]
    stream = peers.tools.stream(ADA, CALL, agent="Athena@1.0.0", session_id="ses_1", turn_id="trn_1")
    async with aclosing(stream) as parts:
        (answer,) = [part async for part in parts]
    assert isinstance(answer, ToolAnswer)
    (told,) = answer.artefacts
    assert (told.invocation_id, told.name, told.size, told.sha256) == ("inv_1", "plot.png", 7, "ab")


async def test_a_call_that_is_left_early_stops_its_tool(peers: Peers) -> None:
    peers.served.events = [streamed(output=tools.ToolOutput(stream=tools.OUTPUT_STREAM_STDOUT, text="one"))]
    stream = peers.tools.stream(ADA, CALL, agent="Athena@1.0.0", session_id="ses_1", turn_id="trn_1")
    async with aclosing(stream) as parts:
        await anext(parts)
    await asyncio.wait_for(peers.served.ended.wait(), 5)
