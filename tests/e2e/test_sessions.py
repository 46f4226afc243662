"""Sessions through Envoy: streamed, watched again, and finished whatever dies."""

from __future__ import annotations

import os
import signal
from typing import Any

import grpc
import pytest

from agentnet.client import AgentNet
from agentnet.orchestrator.v1 import agent_pb2, event_pb2, session_pb2
from agentnet.orchestrator.v1 import session_service_pb2 as pb
from tests.e2e.conftest import Mesh, wait_until

Event = event_pb2.SessionEvent


async def events_of(client: AgentNet, session_id: str, after: int = 0) -> list[Event]:
    return [event async for event in client.sessions.watch(session_id, after=after)]


async def synthetic(client: AgentNet, name: str, *, model: str = "synthetic-paced", tokens: int = 100) -> str:
    sampling = agent_pb2.SamplingConfig(max_output_tokens=tokens)
    made = agent_pb2.Agent(name=name, system_prompt=f"You are {name}.", model=model, sampling=sampling)
    await client.agents.create(made)
    return name


def assert_whole(events: list[Event], *, first: int = 1) -> None:
    assert [event.sequence for event in events] == list(range(first, first + len(events)))
    assert events[-1].HasField("session_finished")


async def raw_watch(client: AgentNet, session_id: str, after: int) -> list[bytes]:
    transport = client._transport
    call = transport.channel.unary_stream("/agentnet.orchestrator.v1.SessionService/WatchSession")
    request = pb.WatchSessionRequest(session_id=session_id, after_sequence=after).SerializeToString()
    return [data async for data in call(request, metadata=transport.target.metadata())]


async def test_the_main_job_streams_the_real_models_tokens(client: AgentNet) -> None:
    session = await client.sessions.start(
        "Designing resilient edge network", agents=["Athena", "Apollo"], mode="brainstorm", max_rounds=1
    )
    events = await events_of(client, session.id)
    assert_whole(events)
    turns = [event.turn_finished.turn for event in events if event.HasField("turn_finished")]
    assert [turn.agent for turn in turns] == ["Athena@1.0.0", "Apollo@1.0.0"]
    for turn in turns:
        said = "".join(event.tokens_produced.text for event in events if event.tokens_produced.turn_id == turn.id)
        assert said == turn.content != ""
        assert turn.cost.model == "smollm2-135m"
        assert turn.cost.micros_usd > 0
        assert turn.usage.output_tokens > 0
        assert {monitor.name: monitor.status for monitor in turn.monitors}["no_pii"] == "pass"


async def test_a_session_is_watched_again_byte_for_byte_from_any_sequence(client: AgentNet) -> None:
    name = await synthetic(client, "Echo", model="synthetic", tokens=20)
    session = await client.sessions.start("again", agents=[name])
    events = await events_of(client, session.id)
    whole = await raw_watch(client, session.id, 0)
    assert len(whole) == len(events)
    for after in (1, len(whole) // 2, len(whole) - 1):
        assert await raw_watch(client, session.id, after) == whole[after:]


async def test_the_summary_and_the_turns_are_recorded(client: AgentNet) -> None:
    name = await synthetic(client, "Recorder", model="synthetic", tokens=10)
    session = await client.sessions.start("what was it", agents=[name, "Hermes"], max_rounds=1, metadata={"a": 1})
    await events_of(client, session.id)
    ended = await client.sessions.get(session.id)
    turns = [turn async for turn in client.sessions.turns(session.id)]
    assert ended.status == session_pb2.SESSION_STATUS_COMPLETED
    assert (ended.topic_start, ended.topic_final, ended.rounds_executed) == ("what was it", "what was it", 1)
    assert ended.stop_reason == session_pb2.STOP_REASON_MAX_ROUNDS
    assert ended.HasField("end_time")
    assert [turn.round for turn in turns] == [1, 1]
    assert ended.cost_micros_usd == sum(turn.cost.micros_usd for turn in turns)


async def test_two_equal_rounds_converge(client: AgentNet) -> None:
    scripted = agent_pb2.Agent(name="Parrot", system_prompt="p", model="synthetic")
    scripted.sampling.max_output_tokens = 400
    await client.agents.create(scripted)
    session = await client.sessions.start(
        "the same words every time", agents=["Parrot"], mode="brainstorm", max_rounds=9, convergence=True
    )
    events = await events_of(client, session.id)
    ended = events[-1].session_finished.session
    assert ended.stop_reason == session_pb2.STOP_REASON_CONVERGED
    assert ended.converged
    assert ended.rounds_executed < 9


@pytest.mark.parametrize("victim", ["orchestrator", "inference"])
async def test_a_session_survives_kill_nine_without_gap_duplicate_or_repeated_turn(
    mesh: Mesh, client: AgentNet, victim: str
) -> None:
    name = await synthetic(client, f"Survivor{victim}", tokens=100)
    session = await client.sessions.start("survive", agents=[name], mode="brainstorm", max_rounds=3, convergence=False)
    seen: list[Event] = []
    killed = False
    async for event in client.sessions.watch(session.id):
        seen.append(event)
        in_second_turn = event.HasField("tokens_produced") and any(old.HasField("turn_finished") for old in seen)
        if in_second_turn and not killed:
            os.kill(mesh.process(victim)["pid"], signal.SIGKILL)
            killed = True
    assert_whole(seen)
    turns = [event.turn_finished.turn for event in seen if event.HasField("turn_finished")]
    assert [turn.round for turn in turns] == [1, 2, 3]
    assert len({turn.id for turn in turns}) == 3
    assert seen[-1].session_finished.session.status == session_pb2.SESSION_STATUS_COMPLETED
    assert await events_of(client, session.id) == seen
    if victim == "orchestrator":
        assert any(event.HasField("session_taken_over") for event in seen)
        assert not any(event.HasField("turn_interrupted") for event in seen)


async def test_a_manual_session_waits_for_advance_and_a_cancel_ends_it(client: AgentNet) -> None:
    name = await synthetic(client, "Patient", model="synthetic", tokens=5)
    session = await client.sessions.start(
        "wait", agents=[name], mode="brainstorm", max_rounds=5, manual_advance=True, convergence=False
    )
    waits = 0
    async for event in client.sessions.watch(session.id):
        if event.HasField("session_waiting"):
            waits += 1
            if waits == 1:
                await client.sessions.advance(session.id)
            else:
                await client.sessions.cancel(session.id)
        last = event
    assert waits == 2
    assert last.session_finished.session.status == session_pb2.SESSION_STATUS_CANCELLED
    assert last.session_finished.session.rounds_executed == 2


async def test_a_pause_holds_until_resume(client: AgentNet) -> None:
    name = await synthetic(client, "Pausing", tokens=20)
    session = await client.sessions.start("pause", agents=[name], mode="brainstorm", max_rounds=2, convergence=False)
    paused = False
    async for event in client.sessions.watch(session.id):
        if event.HasField("turn_started") and not paused:
            paused = True
            await client.sessions.pause(session.id)
        if event.HasField("session_waiting"):
            assert event.session_waiting.status == session_pb2.SESSION_STATUS_PAUSED
            await client.sessions.resume(session.id)
        last = event
    signals = [e.signal_received.signal for e in await events_of(client, session.id) if e.HasField("signal_received")]
    assert signals == ["pause", "resume"]
    assert last.session_finished.session.rounds_executed == 2


async def test_a_cancel_ends_a_turn_in_flight(client: AgentNet) -> None:
    name = await synthetic(client, "Endless", tokens=4000)
    session = await client.sessions.start("long", agents=[name])
    cancelled = False
    async for event in client.sessions.watch(session.id):
        if event.HasField("tokens_produced") and not cancelled:
            cancelled = True
            await client.sessions.cancel(session.id)
        last: Any = event
    assert last.session_finished.session.stop_reason == session_pb2.STOP_REASON_CANCELLED


async def test_the_same_request_id_starts_one_session(client: AgentNet) -> None:
    first = await client.sessions.start("once", agents=["Athena"], request_id="only-once")
    again = await client.sessions.start("once", agents=["Athena"], request_id="only-once")
    assert first.id == again.id


# The others come back in the same way, half a minute longer.
SERVICES = [
    *("gateway", "orchestrator", "inference"),
    *(pytest.param(name, marks=pytest.mark.heavy) for name in ("tools", "policy", "memory", "cost")),
]


@pytest.mark.parametrize("service", SERVICES)
async def test_a_killed_service_comes_back_and_nothing_is_lost(mesh: Mesh, client: AgentNet, service: str) -> None:
    before = {f"{agent.name}@{agent.version}" async for agent in client.agents.list()}
    old = mesh.process(service)
    os.kill(old["pid"], signal.SIGKILL)
    wait_until(
        lambda: mesh.process(service)["health"] == "serving" and mesh.process(service)["pid"] != old["pid"], seconds=20
    )

    def listed() -> bool:
        done = mesh.cli("agent", "list", check=False)
        return done.returncode == 0

    wait_until(listed, seconds=15)
    assert mesh.process(service)["restarts"] == old["restarts"] + 1
    assert {f"{agent.name}@{agent.version}" async for agent in client.agents.list()} == before


async def test_an_unknown_session_is_not_found(client: AgentNet) -> None:
    with pytest.raises(Exception) as raised:
        await client.sessions.get("ses_nothing")
    assert raised.value.code is grpc.StatusCode.NOT_FOUND  # type: ignore[attr-defined]
