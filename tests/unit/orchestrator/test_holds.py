"""What rules of policy hold in a session until a person gives leave: calls of tools, and what agents say."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from agentnet.orchestrator.v1 import input_pb2, session_pb2
from services.orchestrator.errors import InputNotFound
from services.orchestrator.holds import WAIT
from services.orchestrator.replays.replay import replay
from services.orchestrator.state import SessionState, fold
from shared.errors import FailedPrecondition, PermissionDenied, Reason, Unavailable
from shared.identity import Principal
from tests.support.mortal import Killed
from tests.support.orchestrator import ADA, TENANT, TTL, World
from tests.support.toolwork import asked, call, events

OLGA = Principal(TENANT, "olga", frozenset({"operator"}))
CARD = "4111111111111111"
HELD = FailedPrecondition(
    "the output waits for approval", reason=Reason.ERROR_REASON_CALL_APPROVAL_REQUIRED,
    rule="deals", rules="deals", bundle="sales@2.0.0", bundles="sales@2.0.0",
)  # fmt: skip


async def holding(*steps: Any, **parts: Any) -> tuple[World, str, input_pb2.HumanInput]:
    """A session that waits: the rule big_payments holds every booking."""
    world, session_id = await asked(*(steps or ([call("book", seat=1)], "So be it.")), **parts)
    world.tools.rules = {"book": "big_payments"}
    await world.drive()
    (wanted,) = await world.inputs.every(TENANT, session_id)
    return world, session_id, wanted


async def give(world: World, wanted: input_pb2.HumanInput, who: Principal = OLGA, **parts: Any) -> None:
    given = {"answer": "", "approved": True, "request_id": None, **parts}
    await world.inputs.give(who, wanted.session_id, wanted.id, **given)


def result(world: World, place: int = 0) -> str:
    """What the agent read of its call."""
    return world.inference.started[-1].exchanges[0].calls[place].result or ""


async def replays(world: World, session_id: str) -> None:
    found = await replay(await world.log(session_id), ADA, world.agents, max_takeovers=5)
    assert found.identical, found.difference


async def test_a_call_that_a_rule_holds_is_asked_about_and_nobody_runs_meanwhile() -> None:
    world, session_id, wanted = await holding()

    assert (await world.find(session_id)).status == session_pb2.SESSION_STATUS_AWAITING_INPUT
    assert await world.leases.claim("two", ttl=TTL, limit=9) == []
    assert world.tools.done == []
    assert (list(wanted.rules), list(wanted.bundles)) == (["big_payments"], ["default@1.0.0"])
    assert (wanted.kind, wanted.tool, wanted.arguments) == (input_pb2.INPUT_KIND_APPROVAL, "book", '{"seat": 1}')
    assert wanted.question == 'big_payments of default@1.0.0 holds a call. May Clio@1.0.0 call book with {"seat": 1}?'
    assert wanted.expire_time.ToDatetime() - wanted.request_time.ToDatetime() == WAIT


async def test_who_may_gives_leave_and_the_call_is_made_under_the_override_that_makes() -> None:
    world, session_id, wanted = await holding()

    await give(world, wanted, answer="The rent.")
    await world.drive("two")

    assert world.leave.decided == [("olga", "big_payments", True, "The rent.")]
    assert world.tools.tokens == ["token of ovr_1"]
    assert (world.tools.done, result(world)) == (['book {"seat": 1}'], "book found it.")
    (given,) = await events(world, session_id, "input_given")
    assert (given.approved, given.override_id, given.expired) == (True, "ovr_1", False)
    assert b"token of" not in b"".join([event.SerializeToString() for event in await world.log(session_id)])
    assert (await world.find(session_id)).status == session_pb2.SESSION_STATUS_COMPLETED
    await replays(world, session_id)


@pytest.mark.parametrize("approved", [True, False])
async def test_who_started_the_session_decides_nothing_without_the_role(approved: bool) -> None:
    world, session_id, wanted = await holding()

    with pytest.raises(PermissionDenied) as refused:
        await give(world, wanted, ADA, approved=approved)

    assert refused.value.reason == Reason.ERROR_REASON_ROLE_INSUFFICIENT
    assert world.leave.decided == []
    assert [one.id for one in await world.inputs.every(TENANT, session_id)] == [wanted.id]
    assert await world.leases.claim("two", ttl=TTL, limit=9) == []


async def test_a_no_is_a_result_the_agent_reads() -> None:
    world, session_id, wanted = await holding()

    await give(world, wanted, approved=False, answer="Too dear.")
    await world.drive("two")

    assert world.tools.done == []
    assert result(world) == "APPROVAL_REFUSED: a person refused the call: Too dear."
    (ended,) = await events(world, session_id, "tool_finished")
    assert ended.failure.reason == Reason.ERROR_REASON_APPROVAL_REFUSED
    assert dict(ended.failure.metadata) == {"rules": "big_payments", "expired": "false"}
    await replays(world, session_id)


async def test_nobody_answers_in_time() -> None:
    world, session_id, wanted = await holding()
    assert await world.expiry.look() == 0
    world.clock.advance(WAIT)

    with pytest.raises(InputNotFound):
        await give(world, wanted)
    assert [await world.expiry.look(), await world.expiry.look()] == [1, 1]
    await world.drive("two")

    assert world.leave.decided == []
    assert (world.tools.done, result(world)) == ([], "APPROVAL_REFUSED: nobody gave leave in time")
    told = [event.actor for event in await world.log(session_id) if event.HasField("input_given")]
    assert told == ["mesh"]
    assert await world.expiry.look() == 0
    await replays(world, session_id)


async def test_an_override_that_holds_no_longer_is_asked_for_again() -> None:
    world, session_id, wanted = await holding()
    await give(world, wanted)
    world.leave.overrides.clear()
    await world.drive("two")

    (again,) = await world.inputs.every(TENANT, session_id)
    assert (again.id, again.request_id) == (f"{wanted.id}_2", wanted.request_id)
    await give(world, again)
    await world.drive("three")

    assert world.tools.done == ['book {"seat": 1}']
    await replays(world, session_id)


async def test_whoever_takes_over_after_the_yes_makes_the_call_once() -> None:
    world, session_id, wanted = await holding()
    await give(world, wanted)
    world.tools.crashes = {"book"}
    with pytest.raises(Killed):
        await world.drive("two")
    world.clock.advance(TTL + timedelta(seconds=1))

    await world.drive("three")

    assert world.tools.done == ['book {"seat": 1}']
    assert len(world.leave.decided) == 1
    assert (await world.find(session_id)).status == session_pb2.SESSION_STATUS_COMPLETED
    await replays(world, session_id)


async def test_people_see_arguments_as_policy_masks_them() -> None:
    world, session_id = await asked([call("book", card=CARD)], "Done.")
    world.tools.rules = {"book": "big_payments"}
    world.leave.mask = lambda arguments: arguments.replace(CARD, "[card]")
    await world.drive()

    (wanted,) = await world.inputs.every(TENANT, session_id)
    assert wanted.arguments == '{"card": "[card]"}'
    assert CARD not in wanted.question
    await give(world, wanted)
    await world.drive("two")
    assert world.tools.done == [f'book {{"card": "{CARD}"}}']


async def test_while_policy_is_away_nothing_is_shown_and_nothing_is_decided() -> None:
    world, session_id = await asked([call("book", card=CARD)], "Done.")
    world.tools.rules, world.leave.away = {"book": "big_payments"}, True
    await world.drive()

    (wanted,) = await world.inputs.every(TENANT, session_id)
    assert (wanted.arguments, CARD in wanted.question) == ("", False)
    with pytest.raises(Unavailable):
        await give(world, wanted)
    world.leave.away = False
    await give(world, wanted)
    await world.drive("two")
    assert world.tools.done == [f'book {{"card": "{CARD}"}}']


async def test_leave_of_the_session_and_leave_of_policy_are_two_questions() -> None:
    world, session_id, first = await holding(require_approval=["book"])
    assert not first.rules
    await give(world, first, ADA)
    await world.drive("two")

    (second,) = await world.inputs.every(TENANT, session_id)
    assert (list(second.rules), second.id) == (["big_payments"], f"{first.id}_2")
    assert world.tools.done == []
    await give(world, second)
    await world.drive("three")
    assert world.tools.done == ['book {"seat": 1}']
    await replays(world, session_id)


async def test_other_calls_of_the_turn_are_made_meanwhile() -> None:
    world, session_id, wanted = await holding([call("book", seat=1), call("search", q="x")], "Done.")
    assert world.tools.done == ['search {"q": "x"}']
    await give(world, wanted)
    await world.drive("two")
    assert [result(world), result(world, 1)] == ["book found it.", "search found it."]
    await replays(world, session_id)


async def test_an_answer_with_a_request_id_decides_once() -> None:
    world, _, wanted = await holding()
    await give(world, wanted, request_id="r1")
    await give(world, wanted, request_id="r1")
    assert len(world.leave.decided) == 1


async def saying(**parts: Any) -> tuple[World, str, input_pb2.HumanInput]:
    """A session that waits: the rule deals holds what Clio says."""
    world, session_id = await asked("It is a deal.", **parts)
    world.inference.failures = [HELD]
    await world.drive()
    (wanted,) = await world.inputs.every(TENANT, session_id)
    return world, session_id, wanted


async def test_what_an_agent_says_is_asked_about_and_said_again_without_the_rule() -> None:
    world, session_id, wanted = await saying()
    assert (await world.find(session_id)).status == session_pb2.SESSION_STATUS_AWAITING_INPUT
    assert (wanted.tool, wanted.arguments, list(wanted.rules)) == ("", "", ["deals"])
    assert wanted.question == "deals of sales@2.0.0 holds what Clio@1.0.0 says. May the turn go on without that rule?"

    await give(world, wanted)
    await world.drive("two")

    assert [one.override_token for one in world.inference.started] == ["", "token of ovr_1"]
    assert [one.generation_id[-2:] for one in world.inference.started] == ["-1", "-2"]
    assert (await world.find(session_id)).result == "It is a deal."
    await replays(world, session_id)


async def test_a_turn_that_is_not_let_go_on_ends_the_session() -> None:
    world, session_id, wanted = await saying()

    await give(world, wanted, approved=False, answer="Ask legal first.")
    await world.drive("two")

    ended = await world.find(session_id)
    assert (ended.status, ended.stop_reason) == (
        session_pb2.SESSION_STATUS_FAILED, session_pb2.STOP_REASON_POLICY_BLOCKED,
    )  # fmt: skip
    assert ended.failure.reason == Reason.ERROR_REASON_APPROVAL_REFUSED
    assert ended.failure.message == (
        "deals of sales@2.0.0 holds what Clio@1.0.0 says, and a person refused: Ask legal first."
    )
    assert (ended.failure.metadata["agent"], ended.failure.metadata["rules"]) == ("Clio@1.0.0", "deals")
    await replays(world, session_id)


async def test_nobody_lets_a_turn_go_on_in_time() -> None:
    world, session_id, _ = await saying()
    world.clock.advance(WAIT)
    await world.expiry.look()
    await world.drive("two")

    failure = (await world.find(session_id)).failure
    assert (failure.reason, failure.metadata["expired"]) == (Reason.ERROR_REASON_APPROVAL_REFUSED, "true")
    await replays(world, session_id)


async def test_the_next_try_of_a_turn_that_may_go_on_has_its_override_too() -> None:
    world, session_id, wanted = await saying()
    await give(world, wanted)
    world.inference.failures = [Unavailable("the provider hangs")]
    await world.drive("two")

    assert [one.override_token for one in world.inference.started] == ["", "token of ovr_1", "token of ovr_1"]
    assert (await world.find(session_id)).status == session_pb2.SESSION_STATUS_COMPLETED
    await replays(world, session_id)


async def test_a_turn_whose_override_holds_no_longer_is_asked_about_again() -> None:
    world, session_id, wanted = await saying()
    await give(world, wanted)
    world.leave.overrides.clear()
    world.inference.failures = [HELD]
    await world.drive("two")

    (again,) = await world.inputs.every(TENANT, session_id)
    assert again.id != wanted.id
    await give(world, again)
    await world.drive("three")
    assert (await world.find(session_id)).status == session_pb2.SESSION_STATUS_COMPLETED
    await replays(world, session_id)


async def test_a_round_that_speaks_at_once_ends_when_the_held_turn_did() -> None:
    world = World()
    world.inference.failures = [HELD]
    session_id = await world.start(agents=["Athena", "Apollo"], strategy="parallel", max_rounds=1)
    await world.drive()
    (turn,) = await events(world, session_id, "turn_finished")
    (wanted,) = await world.inputs.every(TENANT, session_id)
    assert turn.turn.agent != wanted.agent

    await give(world, wanted)
    await world.drive("two")

    assert len(await events(world, session_id, "turn_finished")) == 2
    assert (await world.find(session_id)).status == session_pb2.SESSION_STATUS_COMPLETED
    await replays(world, session_id)


@pytest.mark.parametrize("signal", ["cancel", "pause"])
async def test_a_session_that_waits_for_leave_can_be_stopped(signal: str) -> None:
    world, session_id, wanted = await saying()
    await world.signal(session_id, signal)
    await world.drive("two")
    if signal == "pause":
        assert (await world.find(session_id)).status == session_pb2.SESSION_STATUS_PAUSED
        await give(world, wanted)
        await world.drive("three")
        await world.signal(session_id, "resume")
        await world.drive("four")
    ends = {"cancel": session_pb2.SESSION_STATUS_CANCELLED, "pause": session_pb2.SESSION_STATUS_COMPLETED}
    assert (await world.find(session_id)).status == ends[signal]


@pytest.mark.parametrize("story", [holding, saying])
async def test_every_prefix_folds_to_the_state_at_its_end(story: Any) -> None:
    world, session_id, wanted = await story()
    await give(world, wanted)
    await world.drive("two")
    log = await world.log(session_id)

    stepwise = SessionState()
    for end, event in enumerate(log, start=1):
        stepwise = fold(stepwise, [event])
        assert stepwise == fold(SessionState(), log[:end])
    assert stepwise.finished
