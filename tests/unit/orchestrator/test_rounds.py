"""Whole sessions on memory stores: rounds, prompts, memory and convergence, as their logs tell them."""

from __future__ import annotations

import pytest

from agentnet.orchestrator.v1 import agent_pb2, session_pb2
from services.orchestrator.prompts import Known
from shared.paging import Page
from tests.support.orchestrator import TENANT, World


@pytest.fixture
def world() -> World:
    return World()


async def test_every_agent_speaks_once_a_round_in_order(world: World) -> None:
    session_id = await world.start(max_rounds=2)

    await world.drive()

    turns = await world.store.turns(TENANT, session_id, agent="", round_number=0, page=Page())
    assert [(turn.round, turn.agent) for turn in turns] == [
        (1, "Athena@1.0.0"),
        (1, "Apollo@1.0.0"),
        (2, "Athena@1.0.0"),
        (2, "Apollo@1.0.0"),
    ]


async def test_the_log_is_the_story_and_its_sequences_have_no_gap(world: World) -> None:
    session_id = await world.start(max_rounds=1)

    await world.drive()

    events = await world.log(session_id)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert await world.kinds(session_id) == [
        "session_started",
        "turn_started",
        "turn_finished",
        "turn_started",
        "turn_finished",
        "round_finished",
        "session_finished",
    ]


async def test_the_tokens_of_a_turn_are_its_content(world: World) -> None:
    session_id = await world.start(agents=["Athena"], mode="single", max_rounds=1)

    await world.drive()

    events = await world.log(session_id)
    text = "".join(event.tokens_produced.text for event in events)
    (turn,) = [event.turn_finished.turn for event in events if event.HasField("turn_finished")]
    assert text == turn.content == "Athena has one idea about it."


async def test_a_finished_session_records_topic_rounds_cost_and_end(world: World) -> None:
    session_id = await world.start(max_rounds=2)

    await world.drive()

    session = await world.find(session_id)
    assert (session.topic_start, session.topic_final) == ("Zero-loss failover", "Zero-loss failover")
    assert (session.rounds_executed, session.converged) == (2, False)
    assert (session.usage.input_tokens, session.usage.output_tokens, session.cost_micros_usd) == (40, 24, 28)
    assert session.HasField("end_time")
    assert session.stop_reason == session_pb2.STOP_REASON_MAX_ROUNDS
    assert session.last_sequence == (await world.log(session_id))[-1].sequence


async def test_agents_that_repeat_themselves_converge(world: World) -> None:
    session_id = await world.start(max_rounds=5, threshold=0.8)

    await world.drive()

    session = await world.find(session_id)
    assert (session.converged, session.rounds_executed) == (True, 2)
    assert session.stop_reason == session_pb2.STOP_REASON_CONVERGED
    assert list(session.round_similarities) == [0.0, 1.0]


async def test_without_a_policy_agreement_ends_nothing(world: World) -> None:
    session_id = await world.start(max_rounds=3)

    await world.drive()

    session = await world.find(session_id)
    assert (session.converged, session.rounds_executed) == (False, 3)
    assert list(session.round_similarities) == [0.0, 1.0, 1.0]


async def test_an_agent_reads_what_was_said_before_it(world: World) -> None:
    await world.start(max_rounds=1)

    await world.drive()

    last = world.inference.started[1].lines[-1].text
    assert "Athena: Athena has one idea about it." in last
    assert "Zero-loss failover" in last


async def test_a_turn_is_given_what_memory_found(world: World) -> None:
    world.memory.known = (Known("mem_1", "Chain replication keeps order.", 0.83),)
    session_id = await world.start(agents=["Athena"], mode="single", max_rounds=1)

    await world.drive()

    (turn,) = await world.store.turns(TENANT, session_id, agent="", round_number=0, page=Page())
    assert "Chain replication keeps order." in world.inference.started[0].lines[0].text
    assert [(found.id, round(found.score, 2)) for found in turn.context.semantic_refs] == [("mem_1", 0.83)]


async def test_without_memory_the_turn_goes_on(world: World) -> None:
    world.memory.away = True
    session_id = await world.start(agents=["Athena"], mode="single", max_rounds=1)

    await world.drive()

    assert (await world.find(session_id)).status == session_pb2.SESSION_STATUS_COMPLETED


async def test_an_agents_own_model_and_limits_are_asked_for(world: World) -> None:
    sampling = agent_pb2.SamplingConfig(max_output_tokens=12)
    changes = agent_pb2.Agent(model="other", sampling=sampling)
    await world.agents.update(TENANT, "Athena", changes, request_id=None)
    await world.start(agents=["Athena", "Apollo"], max_rounds=1)

    await world.drive()

    asked = [(utterance.model, utterance.max_output_tokens) for utterance in world.inference.started]
    assert asked == [("other", 12), ("", 96)]
