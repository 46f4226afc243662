"""Whole sessions on memory stores: rounds, convergence, signals and failures, as their logs tell them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest

from agentnet.inference.v1 import generation_pb2
from agentnet.orchestrator.v1 import agent_pb2, session_pb2
from services.orchestrator.errors import SessionEnded, SessionStateInvalid
from services.orchestrator.prompts import Known
from services.orchestrator.store import Entry, Lease, Signal
from services.orchestrator.store_memory import MemorySessionStore
from shared.errors import FailedPrecondition, MeshError, NotFound, Reason, ResourceExhausted, Unavailable
from shared.paging import Page
from tests.support.orchestrator import ADA, TENANT, TTL, Watching, World, driving


@pytest.fixture
def world() -> World:
    return World()


SHOWN = ("tokens_produced", "monitor_verdict")


class SignalledLate(MemorySessionStore):
    """A store where a caller advances the session between the driver's decision to wait and its commit."""

    async def append(self, lease: Lease, entries: Sequence[Entry], *, release: bool = False, **given: Any) -> None:
        if release:
            late = Signal("sig_late", "advance", "ada")
            await self.signal(lease.tenant, lease.session_id, late, request_id="late")
        await super().append(lease, entries, release=release, **given)


def blocked() -> MeshError:
    return FailedPrecondition("a rule blocks it", reason=Reason.ERROR_REASON_POLICY_BLOCKED, rule="secrets")


def out_of_money() -> MeshError:
    return ResourceExhausted("no room", reason=Reason.ERROR_REASON_BUDGET_EXHAUSTED, budget_id="bud_1")


def unapproved() -> MeshError:
    reason = Reason.ERROR_REASON_BUDGET_APPROVAL_REQUIRED
    return FailedPrecondition(
        "the budget's soft limit is passed; approve it to go on", reason=reason, budget_id="bud_1"
    )


def away() -> MeshError:
    return Unavailable("the provider does not answer", reason=Reason.ERROR_REASON_PROVIDER_UNAVAILABLE)


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


async def test_a_turn_is_given_what_memory_found_and_hands_itself_over(world: World) -> None:
    world.memory.known = (Known("mem_1", "Chain replication keeps order.", 0.83),)
    session_id = await world.start(agents=["Athena"], mode="single", max_rounds=1)

    await world.drive()

    (turn,) = await world.store.turns(TENANT, session_id, agent="", round_number=0, page=Page())
    assert "Chain replication keeps order." in world.inference.started[0].lines[0].text
    assert [(found.id, round(found.score, 2)) for found in turn.context.semantic_refs] == [("mem_1", 0.83)]
    assert world.memory.kept == [turn.id]


async def test_without_memory_the_turn_goes_on(world: World) -> None:
    world.memory.away = True
    session_id = await world.start(agents=["Athena"], mode="single", max_rounds=1)

    await world.drive()

    assert (await world.find(session_id)).status == session_pb2.SESSION_STATUS_COMPLETED


async def test_a_session_advances_by_hand(world: World) -> None:
    session_id = await world.start(max_rounds=2, manual_advance=True)

    await world.drive()
    waiting = await world.find(session_id)
    await world.signal(session_id, "advance")
    await world.drive()

    assert (waiting.status, waiting.rounds_executed) == (session_pb2.SESSION_STATUS_WAITING, 1)
    assert (await world.find(session_id)).rounds_executed == 2
    assert "session_waiting" in await world.kinds(session_id)


async def test_a_waiting_session_is_nobodys_to_claim(world: World) -> None:
    await world.start(max_rounds=2, manual_advance=True)

    await world.drive()

    assert await world.leases.claim("two", ttl=TTL, limit=9) == []


async def test_a_paused_session_goes_on_where_it_was(world: World) -> None:
    session_id = await world.start(max_rounds=1)
    await world.signal(session_id, "pause")

    await world.drive()
    paused = await world.find(session_id)
    await world.signal(session_id, "resume")
    await world.drive()

    assert paused.status == session_pb2.SESSION_STATUS_PAUSED
    assert len(world.inference.started) == 2
    assert (await world.find(session_id)).status == session_pb2.SESSION_STATUS_COMPLETED


async def test_a_budget_that_asks_pauses_the_session_until_it_is_resumed(world: World) -> None:
    world.inference.refusals = [unapproved(), unapproved()]
    session_id = await world.start(max_rounds=1)

    await world.drive()
    paused = await world.find(session_id)
    assert await world.leases.claim("two", ttl=TTL, limit=9) == []
    await world.signal(session_id, "resume")
    await world.drive()
    paused_again = await world.find(session_id)
    await world.signal(session_id, "resume")
    await world.drive()

    assert paused.status == paused_again.status == session_pb2.SESSION_STATUS_PAUSED
    assert (await world.find(session_id)).status == session_pb2.SESSION_STATUS_COMPLETED
    assert len(world.inference.started) == 2
    turns = await world.store.turns(TENANT, session_id, agent="", round_number=0, page=Page())
    assert [turn.attempt for turn in turns] == [3, 1]


async def test_who_waits_for_one_turn_is_told_that_the_budget_asks(world: World) -> None:
    world.inference.refusals = [unapproved()]
    asked = session_pb2.Session(
        topic_start="Zero-loss failover", agents=["Athena"], mode="single", strategy="round_robin", max_rounds=1
    )
    patience = timedelta(seconds=5)
    waiting = asyncio.create_task(world.sessions.run_single(ADA, asked, request_id=None, patience=patience))
    await asyncio.sleep(0.05)
    await world.drive()
    with pytest.raises(MeshError) as raised:
        await waiting
    assert raised.value.reason == Reason.ERROR_REASON_BUDGET_APPROVAL_REQUIRED
    assert raised.value.facts["budget_id"] == "bud_1"
    assert raised.value.facts["session_id"]


async def test_a_pause_that_has_not_taken_effect_can_be_taken_back(world: World) -> None:
    session_id = await world.start(max_rounds=1)

    await world.signal(session_id, "pause")
    await world.signal(session_id, "resume")
    await world.drive()

    assert (await world.find(session_id)).status == session_pb2.SESSION_STATUS_COMPLETED


async def test_a_session_that_is_not_paused_cannot_be_resumed(world: World) -> None:
    session_id = await world.start()

    with pytest.raises(SessionStateInvalid) as raised:
        await world.signal(session_id, "resume")

    assert raised.value.facts["status"] == "PENDING"


async def test_only_a_manual_session_can_be_advanced(world: World) -> None:
    session_id = await world.start()

    with pytest.raises(SessionStateInvalid):
        await world.signal(session_id, "advance")


async def test_a_cancelled_session_calls_its_generation_off_and_ends(world: World) -> None:
    world.inference.held_at = 3
    session_id = await world.start()
    signalled = asyncio.Event()
    task = asyncio.create_task(world.driver().drive(await world.claim(), signalled))
    watching = Watching(world, session_id)
    await watching.until(3)

    await world.signal(session_id, "cancel")
    signalled.set()
    await asyncio.wait_for(task, 5)

    session = await world.find(session_id)
    assert (session.status, session.stop_reason) == (
        session_pb2.SESSION_STATUS_CANCELLED,
        session_pb2.STOP_REASON_CANCELLED,
    )
    assert world.inference.cancelled == [f"{(await world.log(session_id))[1].turn_started.turn_id}-1"]
    assert await watching.end() == [event.SerializeToString() for event in await world.log(session_id)]


async def test_a_signal_of_one_request_acts_once(world: World) -> None:
    session_id = await world.start(max_rounds=3, manual_advance=True)
    await world.drive()

    for _ in range(2):
        await world.sessions.signal(ADA, session_id, "advance", request_id="req_1")
    await world.drive()

    assert (await world.find(session_id)).rounds_executed == 2


async def test_a_repeated_cancel_is_answered_after_the_end_too(world: World) -> None:
    session_id = await world.start()
    await world.sessions.signal(ADA, session_id, "cancel", request_id="req_1")
    await world.drive()

    again = await world.sessions.signal(ADA, session_id, "cancel", request_id="req_1")

    assert again.status == session_pb2.SESSION_STATUS_CANCELLED


async def test_an_ended_session_takes_no_signal(world: World) -> None:
    session_id = await world.start(max_rounds=1)
    await world.drive()

    with pytest.raises(SessionEnded):
        await world.signal(session_id, "pause")


async def test_a_signal_that_came_while_the_session_went_to_wait_is_not_missed(world: World) -> None:
    world.store = SignalledLate(world.leases)
    session_id = await world.start(max_rounds=2, manual_advance=True)

    await world.drive()
    await world.drive()

    assert (await world.find(session_id)).rounds_executed == 2


@pytest.mark.parametrize("stage", ["prompt", "output"])
@pytest.mark.parametrize(
    ("error", "stop"),
    [(blocked, session_pb2.STOP_REASON_POLICY_BLOCKED), (out_of_money, session_pb2.STOP_REASON_BUDGET_EXHAUSTED)],
)
async def test_what_policy_or_the_budget_ends_is_not_tried_again(
    world: World, stage: str, error: Callable[[], MeshError], stop: int
) -> None:
    (world.inference.refusals if stage == "prompt" else world.inference.failures).append(error())
    session_id = await world.start()

    await world.drive()

    session = await world.find(session_id)
    assert (session.status, session.stop_reason) == (session_pb2.SESSION_STATUS_FAILED, stop)
    assert (await world.kinds(session_id)).count("turn_interrupted") == 1
    assert session.failure.reason == error().reason
    started = next(event.turn_started for event in await world.log(session_id) if event.HasField("turn_started"))
    assert session.failure.metadata["agent"] == started.agent
    assert session.failure.metadata["turn_id"] == started.turn_id


async def test_a_turn_is_tried_three_times_with_growing_pauses(world: World) -> None:
    world.inference.failures = [away(), away(), away()]
    session_id = await world.start()

    with world.tail.woken(TENANT, session_id):  # nothing is gathered
        await world.drive()

    session = await world.find(session_id)
    attempts = [event.turn_started.attempt for event in await world.log(session_id) if event.HasField("turn_started")]
    assert attempts == [1, 2, 3]
    assert [nap for nap in world.naps if nap > 0.3] == [0.5, 1.0]
    assert (session.stop_reason, session.failure.reason) == (
        session_pb2.STOP_REASON_TURN_FAILED,
        Reason.ERROR_REASON_PROVIDER_UNAVAILABLE,
    )


async def test_a_turn_that_works_at_the_second_try_keeps_nothing_of_the_first(world: World) -> None:
    world.inference.failures = [away()]
    session_id = await world.start(agents=["Athena"], mode="single", max_rounds=1)

    await world.drive()

    (turn,) = await world.store.turns(TENANT, session_id, agent="", round_number=0, page=Page())
    assert (turn.content, turn.attempt) == ("Athena has one idea about it.", 2)


async def test_a_service_that_refuses_to_start_is_named_in_the_failure(world: World) -> None:
    world.inference.refusals = [away(), away(), away()]
    session_id = await world.start()

    await world.drive()

    assert (await world.find(session_id)).failure.reason == Reason.ERROR_REASON_PROVIDER_UNAVAILABLE


async def test_a_broken_connection_is_attached_to_again_without_a_second_call(world: World) -> None:
    world.inference.breaks = {3: away(), 5: away(), 6: None}
    session_id = await world.start(agents=["Athena"], mode="single", max_rounds=1)

    await world.drive()

    assert len(world.inference.started) == 1
    assert "turn_interrupted" not in await world.kinds(session_id)
    (turn,) = await world.store.turns(TENANT, session_id, agent="", round_number=0, page=Page())
    assert turn.content == "Athena has one idea about it."


async def test_the_turn_in_flight_survives_a_connection_that_breaks_while_held(world: World) -> None:
    world.inference.held_at = 4
    session_id = await world.start(agents=["Athena"], mode="single", max_rounds=1)

    async with driving(world, "one") as task:
        watching = Watching(world, session_id)
        await watching.until(3)
        world.inference.forget()
        await asyncio.wait_for(task, 5)

    kinds = await world.kinds(session_id)
    assert kinds.count("turn_interrupted") == 1
    assert await watching.end() == [event.SerializeToString() for event in await world.log(session_id)]


async def test_what_policy_does_to_a_stream_stands_in_the_log_in_its_place(world: World) -> None:
    verdict = generation_pb2.PolicyVerdict(
        rule="email",
        bundle="default@1.0.0",
        action="redact",
        severity="major",
        span_start=6,
        span_end=20,
        target="output",
    )
    world.inference.interludes = [generation_pb2.GenerationEvent(verdict=verdict)]
    session_id = await world.start(agents=["Athena"], mode="single", max_rounds=1)

    await world.drive()

    shown = [event for event in await world.log(session_id) if event.WhichOneof("payload") in SHOWN]
    assert [event.WhichOneof("payload") for event in shown][:2] == ["tokens_produced", "monitor_verdict"]
    found = shown[1].monitor_verdict
    assert (found.rule, found.bundle, found.action, found.severity) == ("email", "default@1.0.0", "redact", "major")
    assert (found.span_start, found.span_end, found.target, found.generation_sequence) == (6, 20, "output", 3)


async def test_a_failover_that_starts_anew_voids_the_text_before_it(world: World) -> None:
    failover = generation_pb2.Failover(from_model="a", to_model="b", restarted=True)
    world.inference.interludes = [generation_pb2.GenerationEvent(failover=failover)]
    session_id = await world.start(agents=["Athena"], mode="single", max_rounds=1)

    await world.drive()

    (turn,) = await world.store.turns(TENANT, session_id, agent="", round_number=0, page=Page())
    assert turn.content == " has one idea about it."
    assert "failed_over" in await world.kinds(session_id)


async def test_a_character_postgres_cannot_keep_is_replaced(world: World) -> None:
    world.inference.reply = lambda _: "a\x00b"
    session_id = await world.start(agents=["Athena"], mode="single", max_rounds=1)

    await world.drive()

    (turn,) = await world.store.turns(TENANT, session_id, agent="", round_number=0, page=Page())
    assert turn.content == "a\N{REPLACEMENT CHARACTER}b"


async def test_a_model_that_is_gone_for_good_fails_the_turn_with_its_reason(world: World) -> None:
    world.inference.refusals = [NotFound("no such model", reason=Reason.ERROR_REASON_MODEL_NOT_FOUND)]
    session_id = await world.start()

    await world.drive()

    session = await world.find(session_id)
    assert session.failure.reason == Reason.ERROR_REASON_MODEL_NOT_FOUND
    assert [nap for nap in world.naps if 0.3 < nap < 1] == []  # text is gathered for a second


async def test_an_agents_own_model_and_limits_are_asked_for(world: World) -> None:
    sampling = agent_pb2.SamplingConfig(max_output_tokens=12)
    changes = agent_pb2.Agent(model="other", sampling=sampling)
    await world.agents.update(TENANT, "Athena", changes, request_id=None)
    await world.start(agents=["Athena", "Apollo"], max_rounds=1)

    await world.drive()

    asked = [(utterance.model, utterance.max_output_tokens) for utterance in world.inference.started]
    assert asked == [("other", 12), ("", 96)]
