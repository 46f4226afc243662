"""Every mode as whole sessions on memory stores: who speaks when, what is decided, what the log says."""

from __future__ import annotations

import json

import pytest

from agentnet.orchestrator.v1 import session_pb2
from services.orchestrator.modes.debate import contested
from services.orchestrator.modes.rivals import normalised
from services.orchestrator.state import Spoken
from shared.errors import Reason
from tests.support.modes import PLAN, THREE, VERDICT, Answers, asked, ballot, decision, events, order, points, scripted
from tests.support.orchestrator import World


async def test_a_debate_opens_rebuts_contested_points_alone_and_ends_with_a_verdict() -> None:
    listed = iter([points("Is Raft enough?"), points("Is Raft enough?")])
    world = scripted(World(), contested_points=lambda _: next(listed), verdict=VERDICT)
    session_id = await world.start(agents=THREE, mode="debate", max_rounds=2)

    await world.drive()

    assert await order(world, session_id) == [
        ("Athena", "opening"), ("Apollo", "opening"), ("Hermes", "points"),
        ("Athena", "rebuttal"), ("Apollo", "rebuttal"), ("Hermes", "points"),
        ("Hermes", "verdict"),
    ]  # fmt: skip
    rebuttal = asked(world, 3)
    assert "alone are still contested:\n- Is Raft enough?" in rebuttal
    session = await world.find(session_id)
    assert (session.decision.kind, session.decision.winner) == ("verdict", "Apollo@1.0.0")
    assert session.result == "Failover must be rehearsed."
    assert [view.agent for view in session.decision.minority] == ["Athena@1.0.0"]
    assert (session.stop_reason, session.stop_measure) == (session_pb2.STOP_REASON_MAX_ROUNDS, "max_rounds")


async def test_a_debate_without_contested_points_is_over() -> None:
    world = scripted(World(), contested_points=points(), verdict=VERDICT)
    session_id = await world.start(agents=THREE, mode="debate", max_rounds=5)

    await world.drive()

    session = await world.find(session_id)
    assert (session.rounds_executed, session.converged, session.stop_measure) == (1, True, "contested_points")
    assert (await order(world, session_id))[-1] == ("Hermes", "verdict")


async def test_a_debate_of_two_finds_its_points_in_their_words_and_has_no_verdict() -> None:
    world = scripted(
        World(), plain_Athena="Raft is enough. Logs must be fenced.", plain_Apollo="Raft is never enough for money."
    )
    session_id = await world.start(mode="debate", max_rounds=2)

    await world.drive()

    (first, *_) = await events(world, session_id, "points_contested")
    assert list(first.points) == ["Raft is enough.", "Raft is never enough for money.", "Logs must be fenced."]
    assert not (await world.find(session_id)).HasField("decision")


def test_what_both_sides_say_is_not_contested() -> None:
    said = [
        Spoken("1", 1, "Athena@1.0.0", "Leases need fences. Raft is slow.", "opening"),
        Spoken("2", 1, "Apollo@1.0.0", "Leases need good fences. Raft is simple and fast.", "opening"),
    ]
    assert contested(said) == ["Raft is slow.", "Raft is simple and fast."]


async def test_a_consensus_is_reached_by_votes_and_keeps_the_minority_view() -> None:
    world = scripted(World(), vote=ballot("A"), vote_Hermes=ballot("C", "It costs less."))
    session_id = await world.start(agents=THREE, mode="consensus", max_rounds=3)

    await world.drive()

    found = await decision(world, session_id)
    assert (found.agreed, found.winner) == (True, "Athena@1.0.0")
    assert [(one.agent, one.score) for one in found.standings][:2] == [("Athena@1.0.0", 2), ("Hermes@1.0.0", 1)]
    assert [(one.agent, one.position, one.reason) for one in found.minority] == [
        ("Hermes@1.0.0", "Hermes has one idea about it.", "It costs less.")
    ]
    session = await world.find(session_id)
    assert (session.stop_measure, session.converged, session.rounds_executed) == ("votes", True, 1)
    assert session.decision == found


async def test_without_a_majority_proposals_are_revised_in_the_light_of_what_was_said_against_them() -> None:
    world = scripted(
        World(), vote_Athena=ballot("A"), vote_Apollo=ballot("B", "Too dear."), vote_Hermes=ballot("C", "Too slow.")
    )
    session_id = await world.start(agents=THREE, mode="consensus", max_rounds=2)

    await world.drive()

    session = await world.find(session_id)
    assert (session.converged, session.decision.agreed, session.rounds_executed) == (False, False, 2)
    assert "Apollo: Too dear." in asked(world, 6)
    assert "Hermes: Too slow." in asked(world, 6)


async def test_a_quorum_is_a_share_of_the_votes() -> None:
    world = scripted(World(), vote=ballot("A"), vote_Hermes=ballot("C"))
    options = session_pb2.SessionOptions(quorum=0.9)
    session_id = await world.start(agents=THREE, mode="consensus", max_rounds=1, options=options)

    await world.drive()

    assert not (await decision(world, session_id)).agreed


async def test_a_workflow_hands_each_output_to_the_next_and_says_so() -> None:
    world = scripted(World(), plain_Athena="A draft.", plain_Apollo="A better draft.", plain_Hermes="The final text.")
    session_id = await world.start(agents=THREE, mode="workflow", max_rounds=1)

    await world.drive()

    assert "Athena hands over:\nA draft." in asked(world, 1)
    assert "A draft." not in asked(world, 2)
    assert "Apollo hands over:\nA better draft." in asked(world, 2)
    handed = [(one.source, one.target) for one in await events(world, session_id, "handed_off")]
    assert handed == [("Athena@1.0.0", "Apollo@1.0.0"), ("Apollo@1.0.0", "Hermes@1.0.0")]
    assert (await world.find(session_id)).result == "The final text."


async def test_a_competition_is_answered_at_once_and_ranked_blind() -> None:
    world = scripted(
        World(), plain_Athena="Fence it.", plain_Apollo="Hope.", ranking=json.dumps({"A": 9, "B": 2, "reason": "Safe."})
    )
    session_id = await world.start(agents=THREE, mode="competition", max_rounds=1)

    await world.drive()

    assert await order(world, session_id) == [("Athena", "answer"), ("Apollo", "answer"), ("Hermes", "judgement")]
    kinds = await world.kinds(session_id)
    assert kinds[1:3] == ["turn_started", "turn_started"]
    assert "A. Fence it.\n\nB. Hope." in asked(world, 2)
    assert "Apollo" not in asked(world, 2)
    assert "Fence it." not in asked(world, 1)
    found = await decision(world, session_id)
    assert [(one.agent, one.score) for one in found.standings] == [("Athena@1.0.0", 9), ("Apollo@1.0.0", 2)]
    assert (await world.find(session_id)).result == "Fence it."


@pytest.mark.parametrize(
    ("aggregate", "answers", "expected", "winner"),
    [
        (
            "vote",
            {"plain_Athena": "42", "plain_Apollo": "It is 7.", "plain_Hermes": "The answer is 42."},
            "42",
            "Athena",
        ),
        (
            "median",
            {
                f"estimate_{name}": json.dumps({"value": value, "reason": "x"})
                for name, value in zip(THREE, (3, 900, 5), strict=True)
            },
            "5",
            "",
        ),
        ("judge", {"plain_Apollo": "Best.", "choice": json.dumps({"choice": "B", "reason": "x"})}, "Best.", "Apollo"),
    ],
)
async def test_an_ensemble_makes_one_answer(aggregate: str, answers: Answers, expected: str, winner: str) -> None:
    world = scripted(World(), **answers)
    options = session_pb2.SessionOptions(aggregate=aggregate)
    session_id = await world.start(agents=THREE, mode="ensemble", max_rounds=1, options=options)

    await world.drive()

    found = await decision(world, session_id)
    assert (found.content, found.winner.partition("@")[0]) == (expected, winner)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("It is 42!", "42.0"), ("1,000", "1000.0"), ("Yes, do it.", "yes do it"), ("3 of 4", "3 of 4")],
)
def test_votes_compare_what_was_meant(text: str, expected: str) -> None:
    assert normalised(text) == expected


async def test_a_planner_cuts_the_topic_agents_do_the_tasks_and_the_planner_sums_up() -> None:
    world = scripted(World(), plan=PLAN, plain_Athena="All of it.")
    session_id = await world.start(agents=THREE, mode="planning", max_rounds=1)

    await world.drive()

    assert await order(world, session_id) == [
        ("Athena", "plan"), ("Hermes", "task:costs"), ("Apollo", "task:risks"), ("Apollo", "task:choice"),
        ("Athena", "summary"),
    ]  # fmt: skip
    (made,) = await events(world, session_id, "plan_made")
    assert [node.agent for node in made.nodes] == ["Apollo@1.0.0", "Hermes@1.0.0", "Apollo@1.0.0"]
    assert "## risks\nApollo has one idea about it." in asked(world, 3)
    assert asked(world, 3).endswith("Choose.")
    assert (await world.find(session_id)).result == "All of it."


async def test_a_plan_with_a_cycle_is_repaired_once() -> None:
    bad = json.dumps({"nodes": [{"id": "a", "prompt": "x", "agent": "Apollo", "depends_on": ["a"]}]})
    answers = iter([bad, PLAN])
    world = scripted(World(), plan=lambda _: next(answers))
    session_id = await world.start(agents=THREE, mode="planning", max_rounds=1)

    await world.drive()

    (broken,) = await events(world, session_id, "turn_interrupted")
    assert broken.failure.reason == Reason.ERROR_REASON_TURN_OUTPUT_INVALID
    assert "cycle" in broken.failure.message
    assert (await world.find(session_id)).status == session_pb2.SESSION_STATUS_COMPLETED


async def test_an_answer_not_of_its_form_is_asked_for_once_more_with_the_fault_and_both_are_paid() -> None:
    answers = iter(['{"choice": "Z"}', ballot("A")])
    world = scripted(World(), vote=ballot("A"), vote_Hermes=lambda _: next(answers))
    session_id = await world.start(agents=THREE, mode="consensus", max_rounds=1)

    await world.drive()

    (repair,) = [one for one in world.inference.started if one.generation_id.endswith("-2")]
    assert 'Your answer was:\n{"choice": "Z"}' in repair.lines[-1].text
    session = await world.find(session_id)
    assert (session.status, session.cost_micros_usd) == (session_pb2.SESSION_STATUS_COMPLETED, 7 * 7)


async def test_a_second_answer_not_of_its_form_is_a_typed_failure() -> None:
    world = scripted(World(), vote=ballot("A"), vote_Hermes="I abstain.")
    session_id = await world.start(agents=THREE, mode="consensus", max_rounds=1)

    await world.drive()

    session = await world.find(session_id)
    assert (session.status, session.stop_reason) == (
        session_pb2.SESSION_STATUS_FAILED,
        session_pb2.STOP_REASON_TURN_FAILED,
    )
    assert session.failure.reason == Reason.ERROR_REASON_TURN_OUTPUT_INVALID
    failed = dict(session.failure.metadata)
    assert failed.pop("turn_id")
    assert failed == {"form": "vote", "path": "$", "agent": "Hermes@1.0.0"}
    voted = [one for one in world.inference.started if one.agent.name == "Hermes" and one.form]
    assert len(voted) == 2


@pytest.mark.parametrize(
    ("mode", "agents"),
    [("single", ["Athena"]), ("workflow", ["Athena", "Apollo"]), ("ensemble", ["Athena", "Apollo"])],
)
async def test_a_mode_with_one_round_is_completed_by_it_and_not_out_of_rounds(mode: str, agents: list[str]) -> None:
    world = World()
    session_id = await world.start(agents=agents, mode=mode, max_rounds=1)

    await world.drive()

    session = await world.find(session_id)
    assert (session.stop_reason, session.stop_measure) == (session_pb2.STOP_REASON_COMPLETED, "")
    assert (session.rounds_executed, session.converged) == (1, False)
