"""What runs when: the ready set, tries, fallbacks, conditions, aggregation, growth, cancellation."""

from __future__ import annotations

import json
import sys
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentnet.common.v1 import failure_pb2
from agentnet.orchestrator.v1 import event_pb2, session_pb2, task_event_pb2, task_graph_pb2
from services.orchestrator.errors import GraphInvalid
from services.orchestrator.graphs import asking, outcome, planning, schedule
from services.orchestrator.graphs.state import GraphState, descendants, fold
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


def aggregated(pattern: int, outputs: list[str], **parts: object) -> task_graph_pb2.TaskResult:
    workers = [node(f"w{place}") for place in range(len(outputs))]
    joined = node("sum", *(worker.id for worker in workers), kind=AGGREGATOR, aggregation=pattern, **parts)
    play = Play([*workers, joined], script=lambda name, agent: outputs[int(name[1:])] if name[0] == "w" else "agent")
    return play.run().results["sum"]


def test_concat_keeps_every_output_under_its_name() -> None:
    assert aggregated(task_graph_pb2.AGGREGATION_CONCAT, ["one", "two"]).output == "## w0\none\n\n## w1\ntwo"


def test_a_vote_takes_what_most_agree_on_whatever_the_case() -> None:
    assert aggregated(task_graph_pb2.AGGREGATION_VOTE, ["no", "Yes.", "yes"]).output == "Yes."
    assert aggregated(task_graph_pb2.AGGREGATION_VOTE, ["b", "a"]).output == "b"


def test_best_of_takes_the_highest_score() -> None:
    assert aggregated(task_graph_pb2.AGGREGATION_BEST_OF, ['{"score": 1}', '{"score": 3}']).output == '{"score": 3}'
    result = aggregated(task_graph_pb2.AGGREGATION_BEST_OF, ["a", "aaa", "aa"], score="size(result.output)")
    assert (result.output, result.agent) == ("aaa", "")


@pytest.mark.parametrize("score", ["", "result.output", "true"])
def test_a_score_that_is_no_number_fails_the_node(score: str) -> None:
    result = aggregated(task_graph_pb2.AGGREGATION_BEST_OF, ["a"], score=score)
    assert result.failure.reason == Reason.ERROR_REASON_CONDITION_FAILED


def test_a_custom_agent_aggregates_by_reading_all() -> None:
    assert aggregated(task_graph_pb2.AGGREGATION_AGENT, ["a", "b"]).output == "agent"


def test_a_pure_aggregator_of_nothing_is_skipped() -> None:
    nodes = [
        node("a"),
        node("b", "a", condition="false"),
        node("c", "b", condition="true", kind=AGGREGATOR, aggregation=task_graph_pb2.AGGREGATION_VOTE),
    ]
    play = Play(nodes)
    play.run()
    assert play.status("c") == "SKIPPED"


def test_map_reduce_reduces_eight_at_a_time_until_one_is_left() -> None:
    workers = [node(f"w{place}") for place in range(70)]
    joined = node(
        "sum", *(worker.id for worker in workers), kind=AGGREGATOR, aggregation=task_graph_pb2.AGGREGATION_MAP_REDUCE
    )
    play = Play([*workers, joined], parallel=100)
    play.run()
    assert play.ended == "COMPLETED"
    assert len(play.begun) == 70 + 9 + 2 + 1
    assert all(len(wanted) <= 8 for name, wanted in play.state.depends_on.items() if name.startswith("sum"))


def test_map_reduce_without_room_to_grow_reads_all_at_once() -> None:
    joined = node(
        "sum", *(f"w{place}" for place in range(9)), kind=AGGREGATOR, aggregation=task_graph_pb2.AGGREGATION_MAP_REDUCE
    )
    play = Play([*(node(f"w{place}") for place in range(9)), node("sum--9-0"), joined])
    play.run()
    assert play.begun.count("sum:Athena") == 1
    assert len(play.begun) == 11


@pytest.mark.parametrize("answer", ["PASS: fine", "**Pass**", '{"valid": true}'])
def test_a_validator_that_passes_lets_the_rest_run(answer: str) -> None:
    play = Play([node("a"), node("v", "a", kind=VALIDATOR), node("c", "v")], script=lambda name, agent: answer)
    play.run()
    assert play.ended == "COMPLETED"


@pytest.mark.parametrize("answer", ["FAIL: no", "It may pass.", '{"valid": false}', '{"valid": "yes"}'])
def test_a_validator_that_rejects_fails_and_skips_the_rest(answer: str) -> None:
    play = Play([node("a"), node("v", "a", kind=VALIDATOR), node("c", "v")], script=lambda name, agent: answer)
    play.run()
    assert play.state.results["v"].failure.reason == Reason.ERROR_REASON_TASK_REJECTED
    assert [play.status(name) for name in "vc"] == ["FAILED", "SKIPPED"]
    assert play.begun.count("v:Athena") == 1


PLAN = {"nodes": [
    {"id": "left", "prompt": "l", "agent": "Athena", "depends_on": []},
    {"id": "right", "prompt": "r", "agent": "Apollo", "depends_on": []},
    {"id": "join", "prompt": "j", "agent": "Athena", "depends_on": ["left", "right"]},
]}  # fmt: skip


def test_a_planners_answer_grows_the_graph_before_what_depends_on_it() -> None:
    answer = f"Here it is:\n```json\n{json.dumps(PLAN)}\n```"
    play = Play(
        [node("plan", kind=PLANNER), node("end", "plan")], script=lambda name, agent: answer if name == "plan" else name
    )
    play.run()
    assert play.begun == ["plan:Athena", "plan-left:Athena", "plan-right:Apollo", "plan-join:Athena", "end:Athena"]
    assert play.state.depends_on["end"] == ("plan", "plan-join")
    assert play.state.results["end"].status == task_graph_pb2.TASK_STATUS_COMPLETED


@pytest.mark.parametrize(
    "answer",
    ["no plan", "{}", '[{"id": "a", "prompt": "p", "agent": "Zeus", "depends_on": []}]',
     '[{"id": "a", "prompt": "p", "agent": "Athena", "depends_on": ["end"]}]', '{"nodes": [', "[" * 100_000],
)  # fmt: skip
def test_a_planner_that_answers_no_valid_plan_is_asked_again_and_then_fails(answer: str) -> None:
    play = Play([node("plan", kind=PLANNER), node("end", "plan")], script=lambda name, agent: answer)
    play.run()
    assert play.begun == ["plan:Athena"] * 3
    assert play.state.results["plan"].failure.reason == Reason.ERROR_REASON_TASK_OUTPUT_INVALID
    assert play.status("end") == "SKIPPED"


def test_a_plan_may_lean_on_what_is_there() -> None:
    plan = [
        {"id": "more", "prompt": "p", "agent": "Athena", "depends_on": ["base"], "kind": "worker", "condition": "true"}
    ]
    play = Play([node("base"), node("plan", "base", kind=PLANNER)], script=lambda name, agent: json.dumps(plan))
    play.run()
    assert play.state.depends_on["plan-more"] == ("base",)
    assert play.ended == "COMPLETED"


def test_the_plans_schema_and_instructions_name_the_agents_and_the_limit() -> None:
    from agentnet.orchestrator.v1 import agent_pb2

    told = planning.instructions(
        "Win",
        [
            agent_pb2.Agent(name="Athena", description="Thinks."),
            agent_pb2.Agent(name="Apollo", capabilities=["ideas"]),
            agent_pb2.Agent(name="Pan"),
        ],
        max_nodes=4,
    )
    assert all(
        part in told
        for part in (
            "Goal: Win",
            "- Athena: Thinks.",
            "- Apollo: ideas",
            "- Pan: no description",
            '"maxItems":4',
            '"enum":["Athena","Apollo","Pan"]',
        )
    )
    assert len(planning.read(json.dumps(PLAN), ["Athena", "Apollo"], max_nodes=3)) == 3
    with pytest.raises(GraphInvalid) as raised:
        planning.read(json.dumps(PLAN), ["Athena", "Apollo"], max_nodes=2)
    assert raised.value.facts["path"] == "$.nodes"
    assert raised.value.message in planning.repair("x", raised.value)


def test_a_cancelled_node_takes_what_depends_on_it_along_and_nothing_else() -> None:
    play = Play([node("a"), node("b", "a"), node("c", "b"), node("d"), node("e", "d")])
    play.step(), play.step()
    play.signal("cancel_task", "a")
    play.run()
    assert [play.status(name) for name in "abcde"] == ["CANCELLED", "CANCELLED", "CANCELLED", "COMPLETED", "COMPLETED"]
    assert play.ended == "COMPLETED"


def test_a_cancelled_dependency_skips_a_node_that_grew_later() -> None:
    play = Play([node("a"), node("b", "a")])
    play.step()
    play.write(
        outcome.settled(play.state, schedule.Settle("a", task_graph_pb2.TASK_STATUS_CANCELLED), now=play.clock.now())
    )
    play.run()
    assert play.status("b") == "SKIPPED"
    assert "was cancelled" in play.state.results["b"].failure.message


def test_a_signal_for_a_node_that_is_not_there_changes_nothing() -> None:
    play = Play([node("a")])
    play.signal("cancel_task", "ghost")
    play.signal("advance")
    play.run()
    assert play.ended == "COMPLETED"


def test_a_cancel_ends_every_node_and_the_graph() -> None:
    play = Play([node("a"), node("b", "a"), node("c")])
    play.step(), play.step()
    play.answer("c")
    play.signal("cancel")
    play.run()
    assert [play.status(name) for name in "abc"] == ["CANCELLED", "CANCELLED", "COMPLETED"]
    assert play.ended == "CANCELLED"


def test_a_paused_graph_starts_nothing_lets_what_runs_end_and_goes_on_when_resumed() -> None:
    play = Play([node("a"), node("b", "a")])
    play.step()
    play.signal("pause")
    assert isinstance(play.decide(), schedule.Await)
    play.run()
    assert isinstance(play.decide(), schedule.Wait)
    play.write(Event(session_waiting=event_pb2.SessionWaiting(status=session_pb2.SESSION_STATUS_PAUSED)))
    assert play.state.waiting
    play.signal("resume")
    play.run()
    assert play.ended == "COMPLETED"


def test_a_paused_graph_with_something_at_work_waits_for_it() -> None:
    play = Play([node("a"), node("b")], parallel=5)
    play.step()
    play.signal("pause")
    assert isinstance(play.decide(), schedule.Await)


def test_a_graph_taken_over_too_often_is_set_aside() -> None:
    play = Play([node("a")])
    for takeovers in range(1, 7):
        play.write(Event(session_taken_over=event_pb2.SessionTakenOver(takeovers=takeovers)))
    play.run()
    assert play.state.session.stop_reason == session_pb2.STOP_REASON_POISONED


def test_a_graph_that_gets_on_may_outlive_any_number_of_owners() -> None:
    play = Play([node(f"n{place}", *[f"n{place - 1}"] if place else []) for place in range(20)])
    while not play.state.finished:
        play.write(Event(session_taken_over=event_pb2.SessionTakenOver(takeovers=play.state.takeovers + 1)))
        play.step(), play.step()
    assert play.ended == "COMPLETED"
    assert play.state.takeovers >= 20


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


def random_graph(seed: list[list[int]]) -> list[task_graph_pb2.TaskNode]:
    return [
        node(f"n{place}", *(f"n{before % place}" for before in wanted if place)) for place, wanted in enumerate(seed)
    ]


GRAPHS = st.lists(st.lists(st.integers(0, 50), max_size=4), min_size=1, max_size=25).map(random_graph)


@given(GRAPHS, st.sets(st.integers(0, 24), max_size=4), st.integers(1, 6))
def test_every_graph_ends_and_runs_each_node_once_after_what_it_depends_on(
    nodes: list[task_graph_pb2.TaskNode], lost: set[int], parallel: int
) -> None:
    bad = {f"n{place}" for place in lost}
    play = Play(nodes, script=lambda name, agent: failure(retryable=False) if name in bad else name, parallel=parallel)
    play.run()
    begun = [name.partition(":")[0] for name in play.begun]
    assert len(begun) == len(set(begun))
    assert len(play.state.results) == len(nodes)
    assert play.most <= parallel
    for place, name in enumerate(begun):
        assert set(play.state.depends_on[name]) <= set(begun[:place])
    doomed = {after for name in bad for after in descendants(play.state, name) if name in play.state.nodes} - bad
    assert {name for name in play.state.results if play.status(name) == "SKIPPED"} >= doomed - set(begun)


@given(GRAPHS, st.integers(0, 200))
def test_any_prefix_of_a_log_folds_to_the_state_that_was_there(nodes: list[task_graph_pb2.TaskNode], cut: int) -> None:
    play = Play(nodes)
    play.run()
    place = cut % len(play.log)
    first = fold(GraphState(), play.log[:place])
    assert fold(first, play.log[place:]) == play.state


def _lines(play: Play) -> int:
    """How many lines of code a whole run executes: work that no other load on the machine can change."""
    executed = 0

    def count(_frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal executed
        executed += event == "line"
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        play.run()
    finally:
        sys.settrace(before)
    return executed


@pytest.mark.parametrize("every", [1, 10, 1_000], ids=["side by side", "chains of ten", "one chain"])
def test_a_thousand_nodes_are_scheduled_in_linear_time(every: int) -> None:
    def chains(count: int) -> Play:
        return Play([node(f"n{place}", *([f"n{place - 1}"] if place % every else [])) for place in range(count)])

    assert _lines(chains(1_000)) < _lines(chains(100)) * 11


def test_cancelling_a_thousand_nodes_is_linear_too() -> None:
    def cancelled(count: int) -> Play:
        play = Play([node(f"n{place}") for place in range(count)])
        play.signal("cancel")
        return play

    assert _lines(cancelled(1_000)) < _lines(cancelled(100)) * 11


def test_a_step_copies_nothing_that_grows_with_the_graph() -> None:
    play = Play([node(f"n{place}", *([f"n{place - 1}"] if place else [])) for place in range(10)])
    maps = ("nodes", "depends_on", "dependents", "blocked", "ready", "trying", "broken", "results", "started")
    before = [getattr(play.state, name) for name in maps]
    play.run()
    assert all(getattr(play.state, name) is same for name, same in zip(maps, before, strict=True))
