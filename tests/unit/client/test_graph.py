"""A graph built in Python is the graph the mesh takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agentnet.client import (
    AgentTask,
    Cel,
    CheckpointManager,
    InvalidGraph,
    TaskGraph,
    TaskResult,
    ToolTask,
    create_task_graph_from_dict,
)
from agentnet.common.v1 import failure_pb2
from agentnet.orchestrator.v1 import event_pb2, task_graph_pb2
from services.orchestrator.graphs import shapes, validate


def diamond() -> TaskGraph:
    graph = TaskGraph(goal="Ship it", max_parallel_tasks=3, checkpoint_frequency="step")
    for name in ("a", "b", "c", "d"):
        graph.add_task(AgentTask(name, "Athena", f"Do {name}."))
    for after, before in (("b", "a"), ("c", "a"), ("d", "b"), ("d", "c"), ("d", "c")):
        graph.add_dependency(after, before)
    return graph


def test_levels_are_what_may_run_at_once() -> None:
    assert diamond().topological_sort() == [["a"], ["b", "c"], ["d"]]
    assert diamond().edges == {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]}
    assert diamond().validate()


def test_a_dict_says_kinds_patterns_and_checkpoints_in_the_words_of_the_client() -> None:
    tasks = {
        "a": {"agent": "Athena", "prompt": "Go."},
        "all": {"kind": "aggregator", "aggregation": "concat", "deps": ["a"]},
    }
    for said in ({"checkpoint_frequency": "tool_call"}, {"checkpoint_policy": {"frequency": "tool_call"}}):
        graph = TaskGraph.from_dict({**said, "tasks": tasks})
        joined = graph.tasks["all"]
        assert isinstance(joined, AgentTask)
        assert (joined.kind, joined.aggregation, graph.checkpoint_frequency) == ("aggregator", "concat", "tool_call")
        assert TaskGraph.from_proto(graph.to_proto()).tasks == graph.tasks


def test_a_call_of_a_tool_is_the_node_the_mesh_takes_and_comes_back_as_it_was() -> None:
    book = ToolTask(
        "book",
        "book@1.0.0",
        {"who": "Ada", "seats": 2, "flight": Cel("results.find.json.id")},
        dependencies=["find"],
        condition="results.find.success",
        timeout_seconds=30.0,
        agent_name="Clerk",
    )
    graph = TaskGraph()
    graph.add_task(ToolTask("find", "search"))
    graph.add_task(book)
    node = graph.to_proto().nodes[1]
    validate.check([shapes.node(one) for one in graph.to_proto().nodes])
    assert dict(node.argument_expressions) == {"flight": "results.find.json.id"}
    assert dict(node.arguments) == {"who": "Ada", "seats": 2}
    assert (node.tool, node.max_attempts, book.prompt) == ("book@1.0.0", 3, "book@1.0.0(who, seats, flight)")
    assert TaskGraph.from_proto(graph.to_proto()).tasks == graph.tasks


def test_a_result_tells_what_is_known_of_a_call() -> None:
    found = task_graph_pb2.TaskResult(node_id="a")
    assert TaskResult.from_proto(found).effect == ""
    found.effect.outcome = task_graph_pb2.EFFECT_OUTCOME_UNKNOWN
    assert TaskResult.from_proto(found).effect == "unknown"


def test_a_cycle_a_gap_and_a_double_are_named() -> None:
    looped = diamond()
    looped.add_dependency("a", "d")
    with pytest.raises(InvalidGraph, match="there is a cycle") as raised:
        looped.validate()
    path = raised.value.path.split(" > ")
    assert path[0] == path[-1]
    assert all(before in looped.edges[after] for after, before in zip(path, path[1:], strict=False))
    gap = TaskGraph()
    gap.add_task(AgentTask("a", "Athena", "p", dependencies=["ghost"]))
    with pytest.raises(InvalidGraph) as raised:
        gap.topological_sort()
    assert raised.value.path == "a > ghost"
    with pytest.raises(InvalidGraph):
        diamond().add_task(AgentTask("a"))
    with pytest.raises(InvalidGraph) as raised:
        diamond().add_dependency("a", "ghost")
    assert raised.value.path == "a > ghost"


def test_the_mesh_takes_it_as_it_was_meant() -> None:
    graph = diamond()
    graph.tasks["b"].timeout_seconds = 1.5
    graph.tasks["c"].retry_on_failure = False
    graph.tasks["d"].kind, graph.tasks["d"].aggregation = "aggregator", "map_reduce"
    taken = shapes.graph(graph.to_proto())
    validate.check(taken.nodes)
    nodes = {node.id: node for node in taken.nodes}
    assert [nodes[name].max_attempts for name in "abcd"] == [4, 4, 1, 4]
    assert nodes["b"].timeout.ToMilliseconds() == 1500
    assert nodes["d"].aggregation == task_graph_pb2.AGGREGATION_MAP_REDUCE
    assert taken.checkpoint_policy.frequency == task_graph_pb2.CHECKPOINT_FREQUENCY_STEP
    assert (taken.goal, taken.max_parallel_tasks) == ("Ship it", 3)


def test_what_the_mesh_answers_is_the_same_graph_again() -> None:
    graph = diamond()
    graph.tasks["b"].condition = "results.a.success"
    graph.tasks["c"].edge_conditions = {"a": "true"}
    graph.tasks["d"].kind, graph.tasks["d"].aggregation, graph.tasks["d"].timeout_seconds = "aggregator", "vote", 5.0
    again = TaskGraph.from_proto(graph.to_proto())
    assert again.tasks == graph.tasks
    assert (again.goal, again.max_parallel_tasks, again.checkpoint_frequency) == ("Ship it", 3, "step")


SHAPES: list[dict[str, Any]] = [
    {"nodes": [{"id": "a", "prompt": "p", "agent": "Athena"}, {"id": "b", "prompt": "q", "agent": "Apollo", "deps": ["a"]}]},
    {"nodes": [{"task_id": "a", "prompt": "p", "assigned_agent": "Athena"}, {"task_id": "b", "prompt": "q", "assigned_agent": "Apollo", "dependencies": ["a"]}]},
    {"tasks": {"a": {"prompt": "p", "agent_name": "Athena"}, "b": {"prompt": "q", "agent_name": "Apollo", "dependencies": ["a"]}}},
]  # fmt: skip


@pytest.mark.parametrize("data", SHAPES)
def test_a_dict_of_any_shape_is_read(data: dict[str, Any]) -> None:
    graph = create_task_graph_from_dict(data)
    assert graph.topological_sort() == [["a"], ["b"]]
    assert [task.agent_name for task in graph.tasks.values()] == ["Athena", "Apollo"]


def test_a_file_is_read_by_its_suffix(tmp_path: Path) -> None:
    (tmp_path / "graph.json").write_text(json.dumps(SHAPES[0]))
    (tmp_path / "graph.yaml").write_text("goal: Win\nnodes:\n  - {id: a, prompt: p, agent: Athena}\n")
    assert len(TaskGraph.from_file(tmp_path / "graph.json").tasks) == 2
    assert TaskGraph.from_file(tmp_path / "graph.yaml").goal == "Win"


@pytest.mark.parametrize(("name", "text"), [("g.json", "{"), ("g.yaml", "a: [")])
def test_a_file_that_does_not_parse_is_named(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InvalidGraph, match=name):
        TaskGraph.from_file(tmp_path / name)


@pytest.mark.parametrize("text", ["[]", '{"nodes": [{"nonsense": 1}]}'])
def test_a_file_that_holds_no_graph_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "g.json").write_text(text)
    with pytest.raises(InvalidGraph):
        TaskGraph.from_file(tmp_path / "g.json")


def test_a_result_has_the_fields_of_the_seeds() -> None:
    found = task_graph_pb2.TaskResult(
        node_id="a", agent="Athena@1.0.0", status=task_graph_pb2.TASK_STATUS_FAILED, output="half", retries=2,
        failure=failure_pb2.Failure(message="it broke"), cost_micros_usd=7,
    )  # fmt: skip
    found.elapsed.FromMilliseconds(1500)
    assert TaskResult.from_proto(found) == TaskResult(
        "a", "Athena@1.0.0", False, "half", "it broke", 1.5, 2, "failed", 7
    )


def test_a_manager_says_when_a_checkpoint_is_due_and_keeps_the_last() -> None:
    mesh: Any = None
    assert [CheckpointManager(mesh, "step").should_checkpoint(kind) for kind in ("step", "iteration", "tool_call")] == [
        True,
        False,
        False,
    ]
    assert CheckpointManager(mesh, "tool_call").should_checkpoint("step")
    assert CheckpointManager(mesh).should_checkpoint("iteration")
    assert not CheckpointManager(mesh, auto_save=False).should_checkpoint("iteration")
    manager = CheckpointManager(mesh)
    manager.see(event_pb2.SessionEvent())
    manager.see(event_pb2.SessionEvent(checkpoint_saved=event_pb2.CheckpointSaved(checkpoint_id="chk_1")))
    assert manager.last_checkpoint_id == "chk_1"
