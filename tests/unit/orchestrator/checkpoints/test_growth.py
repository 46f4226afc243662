"""Going on from a checkpoint with the graph as it was first given, after it had grown."""

from __future__ import annotations

import json
from collections.abc import Sequence

from agentnet.orchestrator.v1 import checkpoint_pb2, task_graph_pb2
from services.orchestrator.checkpoints import form
from services.orchestrator.graphs import shapes, validate
from tests.support.graphs import Answer, Play, failure, node

PLANNER = task_graph_pb2.TASK_KIND_PLANNER
AGGREGATOR = task_graph_pb2.TASK_KIND_AGGREGATOR
MAP_REDUCE = task_graph_pb2.AGGREGATION_MAP_REDUCE
PLANS = {
    "p": [("a", "planner", ()), ("b", "worker", ("a",)), ("c", "worker", ())],
    "p-a": [("deep", "worker", ())],
}
ENDLESS = node("end", "next", max_attempts=1)


def plan(name: str) -> str:
    nodes = [
        {"id": one, "prompt": f"Do {one}.", "agent": "Athena", "kind": kind, "depends_on": list(wanted)}
        for one, kind, wanted in PLANS[name]
    ]
    return json.dumps({"nodes": nodes})


def script(name: str, _agent: str) -> Answer:
    if name == "end":
        return failure(retryable=False)
    return plan(name) if name in PLANS else name


def failed(nodes: Sequence[task_graph_pb2.TaskNode]) -> tuple[checkpoint_pb2.Checkpoint, Play]:
    play = Play(nodes, script=script)
    play.run()
    return form.read(form.of_graph(play.state, "chk_1", now=play.clock.now())), play


def gone_on(checkpoint: checkpoint_pb2.Checkpoint, nodes: Sequence[task_graph_pb2.TaskNode]) -> Play:
    """A run of these nodes from there, whatever fails before going well now."""
    begun = form.resumption(checkpoint, shapes.graph(task_graph_pb2.TaskGraph(nodes=nodes)))
    validate.check(begun.graph.nodes)
    play = Play(begun.graph.nodes, results=begun.results, script=lambda name, _: plan(name) if name in PLANS else name)
    play.run()
    return play


PLANNED = [node("p", kind=PLANNER), node("next", "p"), ENDLESS]


def test_a_plan_is_kept_with_all_that_grew_of_it_and_nothing_of_it_is_done_again() -> None:
    checkpoint, before = failed(PLANNED)
    play = gone_on(checkpoint, PLANNED)
    assert play.begun == ["end:Athena"]
    assert play.state.depends_on == before.state.depends_on
    assert {name: one.grown_by for name, one in play.state.nodes.items() if one.grown_by} == {
        "p-a": "p", "p-b": "p", "p-c": "p", "p-a-deep": "p-a",
    }  # fmt: skip
    assert set(play.state.depends_on["next"]) == {"p", "p-b", "p-c"}
    assert set(play.state.depends_on["p-b"]) == {"p-a", "p-a-deep"}


def test_a_run_that_went_on_with_a_plan_can_be_gone_on_from_again() -> None:
    checkpoint, _ = failed(PLANNED)
    begun = form.resumption(checkpoint, shapes.graph(task_graph_pb2.TaskGraph(nodes=PLANNED)))
    again = Play(begun.graph.nodes, results=begun.results, script=script)
    again.run()
    second = form.read(form.of_graph(again.state, "chk_2", now=again.clock.now()))
    assert gone_on(second, PLANNED).begun == ["end:Athena"]


def test_a_planner_that_is_asked_something_else_plans_anew() -> None:
    checkpoint, _ = failed(PLANNED)
    asked = node("p", kind=PLANNER)
    asked.prompt = "Another goal."
    play = gone_on(checkpoint, [asked, *PLANNED[1:]])
    assert play.begun[0] == "p:Athena"
    assert len(play.begun) == len(play.state.nodes)


def test_a_node_that_is_new_waits_for_the_plan_it_depends_on() -> None:
    checkpoint, _ = failed(PLANNED)
    play = gone_on(checkpoint, [*PLANNED, node("more", "p")])
    assert set(play.state.depends_on["more"]) == {"p", "p-b", "p-c"}
    assert sorted(play.begun) == ["end:Athena", "more:Athena"]


def test_a_graph_that_already_has_what_grew_is_taken_as_it_is() -> None:
    checkpoint, before = failed(PLANNED)
    whole = [task_graph_pb2.TaskNode.FromString(one.SerializeToString()) for one in before.state.nodes.values()]
    for one in whole:
        del one.depends_on[:]
        one.depends_on.extend(before.state.depends_on[one.id])
    assert gone_on(checkpoint, whole).begun == ["end:Athena"]


WIDE = [node(f"w{place}") for place in range(70)]
NAMES = [one.id for one in WIDE]
REDUCED = [*WIDE, node("next", *NAMES, kind=AGGREGATOR, aggregation=MAP_REDUCE), ENDLESS]


def test_what_was_reduced_stays_reduced() -> None:
    checkpoint, before = failed(REDUCED)
    play = gone_on(checkpoint, REDUCED)
    assert play.begun == ["end:Athena"]
    assert play.state.depends_on == before.state.depends_on
    assert len(play.state.nodes) == len(REDUCED) + 9 + 2


def test_what_an_aggregator_did_not_reduce_before_has_it_reduce_anew() -> None:
    checkpoint, _ = failed(REDUCED)
    wider = node("next", *NAMES, "more", kind=AGGREGATOR, aggregation=MAP_REDUCE)
    play = gone_on(checkpoint, [*WIDE, node("more"), wider, ENDLESS])
    assert len(play.begun) == 1 + 9 + 2 + 2
    assert play.ended == "COMPLETED"


def test_another_pattern_makes_another_result() -> None:
    checkpoint, _ = failed([*WIDE[:3], node("next", *NAMES[:3], kind=AGGREGATOR), ENDLESS])
    vote = node("next", *NAMES[:3], kind=AGGREGATOR, aggregation=task_graph_pb2.AGGREGATION_VOTE)
    play = gone_on(checkpoint, [*WIDE[:3], vote, ENDLESS])
    assert play.state.results["next"].output == "w0"
    assert play.begun == ["end:Athena"]
