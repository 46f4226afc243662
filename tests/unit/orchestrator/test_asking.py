"""People in the loop: asked by an agent, asked to allow a call, heard in between."""

from __future__ import annotations

from typing import Any

import pytest

from agentnet.orchestrator.v1 import agent_pb2, input_pb2, session_pb2
from services.orchestrator.errors import InputNotFound, SessionEnded
from services.orchestrator.state import SessionState, fold
from shared.errors import FieldRequired
from shared.paging import Page
from tests.support.orchestrator import ADA, TENANT, TTL, World
from tests.support.toolwork import TWO, asked, call, events


async def test_an_agent_asks_a_person_nobody_runs_meanwhile_and_the_answer_is_its_result() -> None:
    world, session_id = await asked([call("ask_human", question="Which city?"), call("search", q="x")], "Rome it is.")

    await world.drive()

    waiting = await world.find(session_id)
    assert waiting.status == session_pb2.SESSION_STATUS_AWAITING_INPUT
    assert await world.leases.claim("two", ttl=TTL, limit=9) == []
    (wanted,) = await world.inputs.every(TENANT, session_id)
    assert (wanted.question, wanted.agent, wanted.kind) == ("Which city?", "Clio@1.0.0", input_pb2.INPUT_KIND_QUESTION)
    assert world.tools.done == ['search {"q": "x"}']

    await give(world, session_id, wanted.id, answer="Rome")
    await world.drive("two")

    results = [one.result for one in world.inference.started[1].exchanges[0].calls]
    assert results == ["Rome", "search found it."]
    assert (await world.find(session_id)).status == session_pb2.SESSION_STATUS_COMPLETED
    assert list((await world.find(session_id)).inputs) == []


async def give(world: World, session_id: str, input_id: str, **parts: Any) -> Any:
    given = {"answer": "", "approved": False, "request_id": None, **parts}
    return await world.inputs.give(ADA, session_id, input_id, **given)


@pytest.mark.parametrize(("approved", "done"), [(True, ['book {"seat": 1}']), (False, [])])
async def test_a_call_that_needs_approval_waits_for_it(approved: bool, done: list[str]) -> None:
    world, session_id = await asked([call("book", seat=1)], "So be it.", require_approval=["book"])
    await world.drive()
    (wanted,) = await world.inputs.every(TENANT, session_id)
    assert (wanted.kind, wanted.tool, wanted.arguments) == (input_pb2.INPUT_KIND_APPROVAL, "book", '{"seat": 1}')
    assert world.tools.done == []

    await give(world, session_id, wanted.id, approved=approved, answer="Too dear.")
    await world.drive("two")

    assert world.tools.done == done
    result = world.inference.started[1].exchanges[0].calls[0].result or ""
    assert result == ("book found it." if approved else "TOOL_NOT_ALLOWED: a person refused the call: Too dear.")


async def test_every_tool_may_need_approval() -> None:
    world, session_id = await asked([call("search", q="x"), call("book", seat=1)], "Done.", require_approval=["*"])
    await world.drive()

    assert [one.tool for one in await world.inputs.every(TENANT, session_id)] == ["search", "book"]


async def test_an_answer_counts_once_and_only_for_what_is_asked() -> None:
    world, session_id = await asked([call("ask_human", question="Which?")], "Done.")
    await world.drive()
    (wanted,) = await world.inputs.every(TENANT, session_id)

    with pytest.raises(InputNotFound):
        await give(world, session_id, "inp_other", answer="x")
    with pytest.raises(FieldRequired):
        await give(world, session_id, wanted.id)
    await give(world, session_id, wanted.id, answer="first", request_id="r1")
    await give(world, session_id, wanted.id, answer="second", request_id="r2")
    await world.drive("two")

    assert world.inference.started[1].exchanges[0].calls[0].result == "first"
    with pytest.raises(SessionEnded):
        await give(world, session_id, wanted.id, answer="late")


async def test_a_session_that_waits_for_a_person_can_be_cancelled() -> None:
    world, session_id = await asked([call("ask_human", question="Which?")], "Done.")
    await world.drive()
    await world.signal(session_id, "cancel")

    await world.drive("two")

    assert (await world.find(session_id)).status == session_pb2.SESSION_STATUS_CANCELLED


async def test_others_speak_on_while_one_waits_for_a_person() -> None:
    world = World()
    clio = agent_pb2.Agent(
        name="Clio", version="1.0.0", system_prompt="x", state=agent_pb2.AGENT_STATE_ACTIVE, functions=["ask_human"]
    )
    await world.agents.create(TENANT, clio)
    world.inference.reply = lambda utterance: (
        [call("ask_human", question="Which?")]
        if utterance.agent.name == "Clio" and not utterance.exchanges
        else "Done."
    )
    session_id = await world.start(agents=["Clio", "Athena"], strategy="parallel", max_rounds=1)
    await world.drive()
    turns_done = await world.store.turns(TENANT, session_id, agent="", round_number=0, page=Page())
    assert [turn.agent for turn in turns_done] == ["Athena@1.0.0"]

    (wanted,) = await world.inputs.every(TENANT, session_id)
    await give(world, session_id, wanted.id, answer="This.")
    await world.drive("two")

    assert (await world.find(session_id)).status == session_pb2.SESSION_STATUS_COMPLETED


async def test_what_a_person_says_is_read_from_the_next_turn_on() -> None:
    world = World()
    session_id = await world.start(max_rounds=2, manual_advance=True)
    await world.drive()
    await world.inputs.say(ADA, session_id, "Mind the cost.", request_id=None)
    await world.signal(session_id, "advance")

    await world.drive("two")

    assert "user:ada: Mind the cost." in world.inference.started[2].lines[-1].text
    (said,) = await events(world, session_id, "message_injected")
    assert (said.sender, said.content) == ("ada", "Mind the cost.")


async def test_a_message_does_not_end_a_wait() -> None:
    world = World()
    session_id = await world.start(max_rounds=2, manual_advance=True)
    await world.drive()
    await world.inputs.say(ADA, session_id, "Mind the cost.", request_id=None)

    await world.drive("two")

    assert (await world.find(session_id)).status == session_pb2.SESSION_STATUS_WAITING


async def test_every_prefix_of_a_turn_with_tools_folds_to_the_state_at_its_end() -> None:
    world, session_id = await asked(TWO, [call("ask_human", question="Which?")], "Done.")
    await world.drive()
    (wanted,) = await world.inputs.every(TENANT, session_id)
    await give(world, session_id, wanted.id, answer="This.")
    await world.drive("two")
    log = await world.log(session_id)

    stepwise = SessionState()
    for end, event in enumerate(log, start=1):
        stepwise = fold(stepwise, [event])
        assert stepwise == fold(SessionState(), log[:end])
    assert stepwise.finished
