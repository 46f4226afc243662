"""A fork goes on from any place of a log, otherwise where it is told to, and the two are compared."""

from __future__ import annotations

import pytest

from agentnet.orchestrator.v1 import agent_pb2, session_pb2
from services.orchestrator.agents import ACTIVE
from services.orchestrator.errors import ForkUnsupported, SequenceOutOfRange, SessionNotFound
from services.orchestrator.forks.fork import Fork
from shared.errors import InvalidArgument
from tests.support.graphs import node
from tests.support.orchestrator import ADA, TENANT, World


def fork(sequence: int = 0, *, side_effects: bool = False, **overrides: object) -> Fork:
    return Fork(sequence, session_pb2.SessionOverrides(**overrides), side_effects)  # type: ignore[arg-type]


async def forked(world: World, session_id: str, how: Fork) -> str:
    return (await world.histories.fork(ADA, session_id, how, request_id=None)).id


async def ended(world: World, *, max_rounds: int = 2) -> str:
    session_id = await world.start(max_rounds=max_rounds)
    await world.drive()
    return session_id


async def said(world: World, session_id: str) -> list[str]:
    return [
        event.turn_finished.turn.content for event in await world.log(session_id) if event.HasField("turn_finished")
    ]


async def test_a_fork_at_any_place_ends_as_its_source_did_and_never_asks_for_a_kept_turn_again() -> None:
    world = World()
    source = await ended(world)
    log = await world.log(source)
    for event in log[:-1]:
        asked = len(world.inference.started)
        made = await forked(world, source, fork(event.sequence))
        await world.drive()

        assert await said(world, made) == await said(world, source), event.sequence
        kept = sum(one.HasField("turn_finished") for one in log[: event.sequence])
        assert len(world.inference.started) - asked == 4 - kept
        session = await world.find(made)
        assert session.status == session_pb2.SESSION_STATUS_COMPLETED
        assert (session.origin.session_id, session.origin.sequence, session.origin.kind) == (
            source,
            event.sequence,
            "fork",
        )
        sequences = [one.sequence for one in await world.log(made)]
        assert sequences == list(range(1, len(sequences) + 1))
        assert (await world.histories.replay(TENANT, made)).identical
    assert await world.log(source) == log


async def test_overrides_change_model_prompt_and_policy_of_what_comes_after() -> None:
    world = World()
    source = await ended(world)
    first = next(one.sequence for one in await world.log(source) if one.HasField("turn_finished"))
    before = len(world.inference.started)

    how = fork(first, model="other", bundles=["strict@1.0.0"], system_prompts={"Athena": "Be brief.", "*": "Be long."})
    made = await forked(world, source, how)
    await world.drive()

    after = world.inference.started[before:]
    assert {one.model for one in after} == {"other"}
    assert {tuple(one.agent.monitors) for one in after} == {("strict@1.0.0",)}
    prompts = {one.agent.name: one.agent.system_prompt for one in after}
    assert prompts == {"Athena": "Be brief.", "Apollo": "Be long."}
    assert (await world.find(made)).effects_off


async def test_another_agent_takes_anothers_place() -> None:
    world = World()
    await world.agents.create(
        TENANT, agent_pb2.Agent(name="Zeus", version="2.0.0", system_prompt="Rule.", state=ACTIVE)
    )
    source = await ended(world)
    rounds = [one.sequence for one in await world.log(source) if one.HasField("round_finished")]

    made = await forked(world, source, fork(rounds[0], agents={"Apollo": "Zeus"}, max_rounds=3))
    await world.drive()

    agents = [one.turn_finished.turn.agent for one in await world.log(made) if one.HasField("turn_finished")]
    assert agents == ["Athena@1.0.0", "Apollo@1.0.0", "Athena@1.0.0", "Zeus@2.0.0", "Athena@1.0.0", "Zeus@2.0.0"]


async def test_copied_turns_have_ids_of_their_own_and_say_whose_copies_they_are() -> None:
    world = World()
    source = await ended(world)
    made = await forked(world, source, fork())
    await world.drive()

    before = {one.turn_finished.turn.id for one in await world.log(source) if one.HasField("turn_finished")}
    turns = [one.turn_finished.turn for one in await world.log(made) if one.HasField("turn_finished")]
    assert {turn.copied_from for turn in turns} == before
    assert not before & {turn.id for turn in turns}
    assert {turn.session_id for turn in turns} == {made}


async def test_a_fork_of_a_running_session_takes_signals() -> None:
    world = World()
    source = await world.start(manual_advance=True)
    await world.drive()
    await world.signal(source, "advance")
    await world.drive()
    made = await forked(world, source, fork(max_rounds=3))
    await world.drive()
    assert (await world.find(made)).status == session_pb2.SESSION_STATUS_WAITING

    await world.signal(made, "advance")
    await world.drive()

    assert (await world.find(made)).status == session_pb2.SESSION_STATUS_COMPLETED
    assert (await world.histories.replay(TENANT, made)).identical


async def test_bad_forks_are_refused() -> None:
    world = World()
    source = await ended(world)
    last = len(await world.log(source))
    with pytest.raises(SequenceOutOfRange):
        await forked(world, source, fork(last))
    with pytest.raises(SessionNotFound):
        await forked(world, "ses_none", fork())
    with pytest.raises(InvalidArgument, match="Hermes takes no part"):
        await forked(world, source, fork(agents={"Hermes": "Athena"}))
    with pytest.raises(InvalidArgument, match="Hermes takes no part"):
        await forked(world, source, fork(system_prompts={"Hermes": "You are brief."}))
    with pytest.raises(InvalidArgument, match="each agent takes part once"):
        await forked(world, source, fork(agents={"Apollo": "Athena"}))
    graph = await world.execute(node("a"))
    with pytest.raises(ForkUnsupported):
        await forked(world, graph.session.id, fork())


async def test_two_tails_are_compared_turn_by_turn() -> None:
    world = World()
    source = await ended(world)
    rounds = [one.sequence for one in await world.log(source) if one.HasField("round_finished")]
    world.inference.reply = lambda utterance: f"{utterance.agent.name} changed its mind."
    made = await forked(world, source, fork(rounds[0], max_rounds=3))
    await world.drive()

    found = await world.histories.diff(TENANT, source, made)

    assert found.common_turns == 2
    assert [turn.place for turn in found.turns] == [3, 4, 5, 6]
    assert found.turns[0].diff.splitlines()[-2:] == ["-Athena has one idea about it.", "+Athena changed its mind."]
    assert 0 < found.turns[0].similarity < 1
    assert not found.turns[3].HasField("left")
    assert (found.left.turns, found.right.turns) == (4, 6)
    assert (found.left.session_id, found.right.session_id) == (source, made)
    assert found.right.cost_micros_usd > found.left.cost_micros_usd > 0


async def test_a_session_compared_with_itself_has_no_tail() -> None:
    world = World()
    source = await ended(world)
    found = await world.histories.diff(TENANT, source, source)
    assert (found.common_turns, len(found.turns)) == (4, 0)
