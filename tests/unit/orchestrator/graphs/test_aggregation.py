"""How many results become one, and who judges them."""

from __future__ import annotations

import pytest

from agentnet.orchestrator.v1 import task_graph_pb2
from shared.errors import Reason
from tests.support.graphs import Play, node

AGGREGATOR = task_graph_pb2.TASK_KIND_AGGREGATOR


VALIDATOR = task_graph_pb2.TASK_KIND_VALIDATOR


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
