"""What breaks a turn: policy, budget, models that are away, connections, failovers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from agentnet.inference.v1 import generation_pb2
from agentnet.orchestrator.v1 import session_pb2
from shared.errors import FailedPrecondition, MeshError, NotFound, Reason, ResourceExhausted, Unavailable
from shared.paging import Page
from tests.support.orchestrator import TENANT, Watching, World, driving


@pytest.fixture
def world() -> World:
    return World()


SHOWN = ("tokens_produced", "monitor_verdict")


def blocked() -> MeshError:
    return FailedPrecondition("a rule blocks it", reason=Reason.ERROR_REASON_POLICY_BLOCKED, rule="secrets")


def out_of_money() -> MeshError:
    return ResourceExhausted("no room", reason=Reason.ERROR_REASON_BUDGET_EXHAUSTED, budget_id="bud_1")


def away() -> MeshError:
    return Unavailable("the provider does not answer", reason=Reason.ERROR_REASON_PROVIDER_UNAVAILABLE)


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
