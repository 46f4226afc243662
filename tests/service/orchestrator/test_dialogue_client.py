"""The Python client in the middle of sessions: six kinds of events over anything that runs, answers, messages, records."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC

import pytest

from agentnet.client import (
    AgentNet,
    AgentTask,
    StreamEvent,
    StreamEventType,
    TaskGraph,
    run_stream,
    stream_text,
    stream_tool_calls,
)
from agentnet.client.transport import Transport
from agentnet.inference.v1 import message_pb2
from agentnet.orchestrator.v1 import agent_pb2, session_pb2
from services.orchestrator.peers import Utterance
from shared.errors import FailedPrecondition, Reason, Unavailable
from tests.service.orchestrator.conftest import Mesh
from tests.service.orchestrator.test_graph_client import Admitted
from tests.support.orchestrator import TENANT

SEARCH = message_pb2.ToolCall(id="1", name="search", arguments='{"q": "raft"}')
ASK = message_pb2.ToolCall(id="2", name="ask_human", arguments='{"question": "Which?"}')


@pytest.fixture
async def client(mesh: Mesh) -> AsyncIterator[AgentNet]:
    async with AgentNet(Transport(Admitted(mesh.address, mesh.me()[0][1]))) as connected:
        yield connected


async def with_tools(mesh: Mesh, *calls: message_pb2.ToolCall) -> None:
    clio = agent_pb2.Agent(
        name="Clio", version="1.0.0", system_prompt="x", state=agent_pb2.AGENT_STATE_ACTIVE,
        tools=["search"], functions=["ask_human"],
    )  # fmt: skip
    await mesh.world.agents.create(TENANT, clio)

    def reply(utterance: Utterance) -> str | list[message_pb2.ToolCall]:
        return "It is Raft." if utterance.exchanges else list(calls)

    mesh.world.inference.reply = reply


async def heard(events: AsyncIterator[StreamEvent]) -> list[StreamEvent]:
    return [event async for event in events]


def kinds(events: list[StreamEvent]) -> list[str]:
    """Kinds in order, chunks once."""
    names = [event.event_type.value for event in events]
    return [name for place, name in enumerate(names) if name != "llm_chunk" or names[place - 1 : place] != [name]]


async def test_an_agent_is_run_as_a_stream_of_its_six_kinds(mesh: Mesh, client: AgentNet) -> None:
    await with_tools(mesh, SEARCH)

    events = await heard(run_stream(client, "Clio", "What is it?"))

    assert kinds(events) == ["llm_chunk", "progress", "tool_start", "tool_end", "llm_chunk", "partial_result"]
    progress, started, ended = (
        next(event.data for event in events if event.event_type is kind)
        for kind in (StreamEventType.PROGRESS, StreamEventType.TOOL_START, StreamEventType.TOOL_END)
    )
    assert (progress["iteration"], progress["max_iterations"], progress["output_tokens"]) == (1, 8, 3)
    assert (started["tool_name"], started["arguments"]) == ("search", '{"q": "raft"}')
    assert (ended["result"], ended["error"], ended["request_id"]) == ("search found it.", None, started["request_id"])
    assert all(event.timestamp.tzinfo is UTC for event in events)
    assert [event.sequence for event in events] == sorted(event.sequence for event in events)


async def test_text_alone_and_calls_alone(mesh: Mesh, client: AgentNet) -> None:
    await with_tools(mesh, SEARCH)

    said = "".join([text async for text in stream_text(client, "Clio", "What is it?")])
    calls = [call async for call in stream_tool_calls(client, "Clio", "What is it?")]

    assert said == "Looking it up.It is Raft."
    assert [(call.name, call.arguments, call.result, call.failed) for call in calls] == [
        ("search", '{"q": "raft"}', "search found it.", False)
    ]


async def test_a_session_is_started_for_a_team(client: AgentNet) -> None:
    started = await client.sessions.start("x", agents=["Athena"], team="edge")
    assert (started.team, (await client.sessions.get(started.id)).team) == ("edge", "edge")


async def test_a_session_and_a_graph_are_streamed_alike(client: AgentNet) -> None:
    session = await client.sessions.start("x", agents=["Athena", "Apollo"], max_rounds=2, convergence=False)
    graph = TaskGraph(goal="Ship it")
    graph.add_task(AgentTask("a", "Athena", "Do it."))

    of_session = await heard(run_stream(client, session.id))
    of_graph = await heard(run_stream(client, graph))

    assert kinds(of_session) == [
        "llm_chunk", "partial_result", "llm_chunk", "partial_result", "progress", "partial_result",
        "llm_chunk", "partial_result", "llm_chunk", "partial_result",
    ]  # fmt: skip
    assert kinds(of_graph) == ["llm_chunk", "partial_result"]
    assert of_graph[-1].data["content"] == "Athena has one idea about it."


async def test_what_breaks_off_is_an_error_and_says_whether_it_goes_on(mesh: Mesh, client: AgentNet) -> None:
    mesh.world.inference.failures = [
        Unavailable("cut", reason=Reason.ERROR_REASON_STREAM_BROKEN),
        FailedPrecondition("no", reason=Reason.ERROR_REASON_POLICY_BLOCKED),
    ]

    events = await heard(run_stream(client, "Athena", "Why?"))

    errors = [event.data for event in events if event.event_type is StreamEventType.ERROR]
    assert [(data["reason"], data["recoverable"]) for data in errors] == [
        ("STREAM_BROKEN", True),
        ("POLICY_BLOCKED", True),
        ("POLICY_BLOCKED", False),
    ]


async def test_questions_are_answered_and_things_said_by_the_client(mesh: Mesh, client: AgentNet) -> None:
    await with_tools(mesh, ASK)
    session = await client.sessions.start("x", agents=["Clio"])
    async for event in client.sessions.watch(session.id):
        if event.HasField("session_waiting"):
            assert event.session_waiting.status == session_pb2.SESSION_STATUS_AWAITING_INPUT
            break
    (wanted,) = await client.sessions.inputs(session.id)
    await client.sessions.inject(session.id, "Soon, please.")
    given = await client.sessions.answer(session.id, wanted.id, "This one.")
    assert given.question == "Which?"
    async for event in client.sessions.watch(session.id):
        if event.HasField("input_given"):
            assert event.input_given.answer == "This one."

    ended = await client.sessions.get(session.id)
    (record,) = [found async for found in client.sessions.turn_records(session.id)]
    assert ended.status == session_pb2.SESSION_STATUS_COMPLETED
    assert record["output"]["content"].endswith("It is Raft.")


async def test_modes_and_their_options_are_the_clients_to_choose(client: AgentNet) -> None:
    session = await client.sessions.start(
        "x",
        agents=["Athena", "Apollo", "Hermes"],
        mode="ensemble",
        options=session_pb2.SessionOptions(aggregate="vote"),
        limits=session_pb2.SessionLimits(max_turns=9),
        measures=[session_pb2.MeasureRule(measure="stagnation")],
        require_approval=["*"],
    )
    assert (session.mode, session.options.aggregate, session.limits.max_turns) == ("ensemble", "vote", 9)
    assert [rule.measure for rule in session.convergence_policy.measures] == ["stagnation"]
    async for _ in client.sessions.watch(session.id):
        pass
    assert (await client.sessions.get(session.id)).decision.kind == "aggregate"
