"""What runs when: the ready set, tries, fallbacks, conditions."""

from __future__ import annotations

import pytest

from agentnet.common.v1 import failure_pb2
from agentnet.orchestrator.v1 import event_pb2, session_pb2, task_event_pb2, task_graph_pb2
from services.orchestrator.graphs import asking, outcome, schedule
from shared.errors import Reason
from tests.support.graphs import Event, Play, failure, node

AGGREGATOR = task_graph_pb2.TASK_KIND_AGGREGATOR


VALIDATOR = task_graph_pb2.TASK_KIND_VALIDATOR


PLANNER = task_graph_pb2.TASK_KIND_PLANNER


def failing(*lost: str) -> object:
    return lambda name, agent: failure() if name in lost else f"{name} by {agent}"


def test_a_node_starts_as_soon_as_its_own_dependencies_have_ended() -> None:
    play = Play([node("slow"), node("quick"), node("after", "quick"), node("both", "slow", "quick")])
    for _ in range(2):
        play.step()
    play.answer("quick")
    assert isinstance(step := play.decide(), schedule.Begin)
    assert step.node_id == "after"
    play.run()
    assert play.ended == "COMPLETED"
    assert play.state.session.stop_reason == session_pb2.STOP_REASON_GRAPH_ENDED
    assert play.begun.index("both:Athena") > play.begun.index("after:Athena")


def test_no_more_run_at_once_than_allowed() -> None:
    play = Play([node(f"n{place}") for place in range(20)], parallel=4)
    play.run()
    assert play.most == 4
    assert len(play.state.results) == 20
    assert (play.state.output_tokens, play.state.cost_micros_usd) == (60, 140)


def test_a_node_reads_what_it_depends_on_and_a_result_says_who_and_how_long() -> None:
    play = Play([node("a"), node("b", "a", agent="Apollo")])
    play.run()
    prompts = {
        event.task_started.node_id: event.task_started.prompt for event in play.log if event.HasField("task_started")
    }
    assert prompts["b"] == "Results so far:\n## a\na by Athena\n\nDo b."
    result = play.state.results["b"]
    assert (result.agent, result.output, result.retries, result.elapsed.ToSeconds()) == ("Apollo", "b by Apollo", 0, 1)


def test_a_failed_try_is_tried_again_up_to_the_limit_then_the_node_fails() -> None:
    play = Play([node("a"), node("b", "a"), node("c")], script=failing("a"))
    play.run()
    assert play.begun.count("a:Athena") == 3
    assert [play.status(name) for name in "abc"] == ["FAILED", "SKIPPED", "COMPLETED"]
    assert play.state.results["a"].retries == 2
    assert play.state.results["b"].failure.metadata["dependency"] == "a"
    assert play.ended == "FAILED"


def test_the_fallback_agent_tries_when_every_try_has_failed() -> None:
    script = lambda name, agent: failure() if agent == "Athena" else "rescued"
    play = Play([node("a", fallback_agent="Apollo", max_attempts=2)], script=script)
    play.run()
    assert play.begun == ["a:Athena", "a:Athena", "a:Apollo"]
    assert (play.state.results["a"].output, play.state.results["a"].retries) == ("rescued", 2)
    assert play.ended == "COMPLETED"


def test_what_is_not_worth_another_try_goes_to_the_fallback_at_once_and_no_further() -> None:
    script = lambda name, agent: failure(retryable=False)
    play = Play([node("a", fallback_agent="Apollo")], script=script)
    play.run()
    assert play.begun == ["a:Athena", "a:Apollo"]
    assert play.status("a") == "FAILED"


@pytest.mark.parametrize(
    ("reason", "stopped"),
    [
        (Reason.ERROR_REASON_BUDGET_EXHAUSTED, session_pb2.STOP_REASON_BUDGET_EXHAUSTED),
        (Reason.ERROR_REASON_POLICY_BLOCKED, session_pb2.STOP_REASON_POLICY_BLOCKED),
        (Reason.ERROR_REASON_CALL_APPROVAL_REQUIRED, session_pb2.STOP_REASON_POLICY_BLOCKED),
    ],
)
def test_an_empty_purse_and_a_policy_are_final(reason: Reason.ValueType, stopped: int) -> None:
    play = Play([node("a", fallback_agent="Apollo")], script=lambda name, agent: failure(reason))
    play.run()
    assert play.begun == ["a:Athena"]
    assert play.state.session.stop_reason == stopped


def test_a_condition_chooses_the_branch_and_the_join_takes_what_ran() -> None:
    play = Play(
        [
            node("judge"),
            node("good", "judge", condition="results.judge.json.score > 0.5"),
            node("bad", "judge", condition="results.judge.json.score <= 0.5"),
            node("join", "good", "bad"),
        ],
        script=lambda name, agent: 'It is {"score": 0.9}.' if name == "judge" else name,
    )
    play.run()
    assert [play.status(name) for name in ("good", "bad", "join")] == ["COMPLETED", "SKIPPED", "COMPLETED"]
    assert play.ended == "COMPLETED"


def test_an_edge_with_a_condition_can_deal_with_a_failure() -> None:
    play = Play(
        [node("risky", max_attempts=1), node("rescue", "risky", edge_conditions={"risky": "!results.risky.success"})],
        script=failing("risky"),
    )
    play.run()
    assert [play.status(name) for name in ("risky", "rescue")] == ["FAILED", "COMPLETED"]
    assert play.ended == "COMPLETED"


def test_a_node_none_of_whose_edges_is_taken_is_skipped_and_so_is_what_only_it_leads_to() -> None:
    play = Play([node("a"), node("b", "a", edge_conditions={"a": "false"}), node("c", "b")])
    play.run()
    assert [play.status(name) for name in "abc"] == ["COMPLETED", "SKIPPED", "SKIPPED"]
    assert not play.state.results["c"].HasField("failure")


@pytest.mark.parametrize("condition", ["results.ghost.success", "1 + 1", "results.a.json.score > 1"])
def test_a_condition_that_cannot_be_computed_fails_the_node_with_the_reason(condition: str) -> None:
    play = Play([node("a"), node("b", "a", condition=condition)])
    play.run()
    assert play.state.results["b"].failure.reason == Reason.ERROR_REASON_CONDITION_FAILED


def test_a_graph_of_a_checkpoint_runs_only_what_is_missing() -> None:
    done = task_graph_pb2.TaskResult(node_id="a", status=task_graph_pb2.TASK_STATUS_COMPLETED, output="known")
    play = Play([node("a"), node("b", "a")], results=[done])
    play.run()
    assert play.begun == ["b:Athena"]
    assert "known" in next(event.task_started.prompt for event in play.log if event.HasField("task_started"))


def test_the_last_checkpoint_is_named_on_a_failure() -> None:
    play = Play([node("a", max_attempts=1)], script=failing("a"))
    play.write(Event(checkpoint_saved=event_pb2.CheckpointSaved(checkpoint_id="chk_1")))
    play.run()
    assert play.state.results["a"].failure.metadata["last_checkpoint_id"] == "chk_1"


def test_tokens_verdicts_and_failovers_belong_to_the_try_they_name() -> None:
    play = Play([node("a"), node("b")])
    play.step(), play.step()
    turn = play.state.trying["a"].turn_id
    play.write(Event(tokens_produced=event_pb2.TokensProduced(turn_id=turn, text="half", generation_sequence=3)))
    play.write(Event(monitor_verdict=event_pb2.MonitorVerdict(turn_id=turn, generation_sequence=4)))
    play.write(Event(tokens_produced=event_pb2.TokensProduced(turn_id="tsk_other", text="lost", generation_sequence=9)))
    assert (play.state.trying["a"].text, play.state.trying["a"].heard, play.state.trying["b"].text) == ("half", 4, "")
    running = outcome.running("a", play.state.trying["a"], play.clock.now())
    assert (running.output, running.status) == ("half", task_graph_pb2.TASK_STATUS_RUNNING)
    play.write(Event(failed_over=event_pb2.FailedOver(turn_id=turn, restarted=False)))
    assert play.state.trying["a"].text == "half"
    play.write(Event(failed_over=event_pb2.FailedOver(turn_id=turn, restarted=True)))
    assert play.state.trying["a"].text == ""
    assert play.state.progress == task_graph_pb2.GraphProgress(total=2, running=2)


def test_an_interruption_of_a_try_that_is_over_changes_nothing() -> None:
    play = Play([node("a")])
    before = play.state
    play.write(Event(task_interrupted=task_event_pb2.TaskInterrupted(node_id="a", failure=failure_pb2.Failure())))
    assert (play.state.broken, play.state.ready) == (before.broken, before.ready)


def test_the_key_of_an_effect_depends_on_run_call_and_arguments_and_on_nothing_else() -> None:
    def key(
        run: str = "r", call: str = "n", agent: str = "A", attempt: int = 1, fallback: bool = False, asked: str = "q"
    ) -> str:
        return asking.effect_key(run, call, agent=agent, attempt=attempt, fallback=fallback, asked=asked)

    others = [key(run="s"), key(call="m"), key(agent="B"), key(attempt=2), key(fallback=True), key(asked="p")]
    assert key() == key()
    assert len({key(), *others}) == 7
    assert len(key()) <= 64


def test_an_agent_is_told_who_it_is_its_part_and_the_goal() -> None:
    judge = node("v", "a", kind=VALIDATOR)
    system, user = asking.lines(judge, goal="Peace", system_prompt="You are Athena.", asked="Well?")
    assert (system.role, user.role, user.text) == ("system", "user", "Well?")
    assert system.text.startswith("You are Athena.\n\nYou work on a part of this goal: Peace\n\nJudge")
    (only,) = asking.lines(node("a"), goal="", system_prompt="", asked="Well?")
    assert only.text == "Well?"
