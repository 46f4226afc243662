"""What is a valid graph, and what is said about one that is not."""

from __future__ import annotations

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from agentnet.orchestrator.v1 import task_graph_pb2
from services.orchestrator.errors import GraphInvalid
from services.orchestrator.graphs import shapes, validate
from tests.support.graphs import node


def refused(*nodes: task_graph_pb2.TaskNode) -> GraphInvalid:
    with pytest.raises(GraphInvalid) as raised:
        validate.check(nodes)
    return raised.value


def test_a_cycle_is_named_with_its_path() -> None:
    error = refused(node("a", "c"), node("b", "a"), node("c", "b"), node("d"))
    assert error.facts["fault"] == "cycle"
    path = error.facts["path"].split(" > ")
    assert (path[0], path[-1], len(path)) == (path[0], path[0], 4)
    wanted = {"a": "c", "b": "a", "c": "b"}
    assert all(wanted[name] == after for name, after in zip(path, path[1:], strict=False))


def test_a_node_that_depends_on_itself_is_a_cycle() -> None:
    assert refused(node("a", "a")).facts == {"fault": "cycle", "path": "a > a", "faults": "1"}


def test_a_missing_dependency_is_named() -> None:
    assert refused(node("a", "ghost")).facts == {"fault": "missing dependency", "path": "a > ghost", "faults": "1"}


def test_nodes_that_could_never_start_are_named_with_the_way_to_what_stops_them() -> None:
    found = list(validate.faults([node("a", "b"), node("b", "a"), node("c", "b"), node("d", "c")]))
    assert next(fault.kind for fault in found) == "cycle"
    assert "d > c > b" in [fault.path for fault in found if fault.kind == "unreachable"]


def test_all_faults_are_counted_and_five_are_told() -> None:
    error = refused(*(node(f"n{place}", "ghost") for place in range(8)))
    assert error.facts["faults"] == "8"
    assert error.message.endswith("and 3 more")


@pytest.mark.parametrize(
    ("nodes", "fault"),
    [
        ([], "empty"),
        ([node(f"n{place}") for place in range(1001)], "too large"),
        ([node("a"), node("a")], "duplicate"),
        ([node("a", agent="")], "agent"),
        ([task_graph_pb2.TaskNode(id="a", agent="Athena", prompt=" ")], "prompt"),
        ([node("a", kind=task_graph_pb2.TASK_KIND_AGGREGATOR)], "dependencies"),
        ([node("a", kind=task_graph_pb2.TASK_KIND_VALIDATOR)], "dependencies"),
        ([node("a", condition="1 +")], "condition"),
        ([node("a", condition="x" * 2_001)], "condition"),
        ([node("a"), node("b", edge_conditions={"a": "true"})], "missing dependency"),
    ],
)
def test_a_fault_has_a_kind(nodes: list[task_graph_pb2.TaskNode], fault: str) -> None:
    assert refused(*nodes).facts["fault"] == fault


def test_an_aggregator_that_needs_no_agent_may_have_none() -> None:
    vote = node(
        "v", "a", agent="", kind=task_graph_pb2.TASK_KIND_AGGREGATOR, aggregation=task_graph_pb2.AGGREGATION_VOTE
    )
    validate.check([node("a"), vote])


def test_levels_group_what_may_run_at_once() -> None:
    wanted = {"d": ["b", "c"], "b": ["a"], "c": ["a"], "a": [], "e": []}
    assert validate.levels(wanted) == [["a", "e"], ["b", "c"], ["d"]]


def test_levels_of_a_cycle_name_it() -> None:
    with pytest.raises(GraphInvalid) as raised:
        validate.levels({"a": ["b"], "b": ["a"]})
    assert raised.value.facts["fault"] == "cycle"


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=60))
def test_a_graph_is_valid_exactly_when_it_has_levels(pairs: list[tuple[int, int]]) -> None:
    names = {place for pair in pairs for place in pair} | {0}
    nodes = [node(f"n{name}", *(f"n{before}" for after, before in pairs if after == name)) for name in names]
    valid = not list(validate.faults(nodes))
    try:
        ranks = validate.levels({entry.id: list(entry.depends_on) for entry in nodes})
    except GraphInvalid:
        assert not valid
    else:
        assert valid
        place = {name: rank for rank, level in enumerate(ranks) for name in level}
        assert all(place[f"n{before}"] < place[f"n{after}"] for after, before in pairs)


SEED = {
    "nodes": [
        {"id": "root", "prompt": "Plan high availability design", "agent": "Planner", "deps": []},
        {"id": "analysis", "prompt": "Analyze failure modes", "agent": "Athena", "deps": ["root"]},
    ]
}
FR7 = {
    "nodes": [
        {"task_id": "root", "prompt": "Plan high availability design", "dependencies": [], "assigned_agent": "Planner"},
        {
            "task_id": "analysis",
            "prompt": "Analyze failure modes",
            "dependencies": ["root"],
            "assigned_agent": "Athena",
        },
    ]
}
AGENT_TASK = {
    "nodes": [
        {"id": "root", "agent_name": "Planner", "prompt": "Plan high availability design"},
        {
            "id": "analysis", "agent_name": "Athena", "prompt": "Analyze failure modes", "dependencies": ["root"],
            "max_retries": 2, "retry_on_failure": True,
        },
    ]
}  # fmt: skip


def read(data: dict[str, object]) -> task_graph_pb2.TaskGraph:
    """A graph as REST takes it, by its first names."""
    return shapes.graph(json_format.ParseDict(data, task_graph_pb2.TaskGraph()))


@pytest.mark.parametrize("data", [SEED, FR7, AGENT_TASK])
def test_every_shape_of_the_seeds_is_the_same_graph(data: dict[str, object]) -> None:
    made = read(data)
    assert [(found.id, found.agent, list(found.depends_on), found.max_attempts) for found in made.nodes] == [
        ("root", "Planner", [], 3),
        ("analysis", "Athena", ["root"], 3),
    ]
    assert made.max_parallel_tasks == 5
    assert {found.timeout.ToSeconds() for found in made.nodes} == {300}
    assert not any(found.HasField("max_retries") or found.task_id or found.deps for found in made.nodes)


@pytest.mark.parametrize(
    ("given", "attempts"),
    [
        ({}, 3),
        ({"max_retries": 0}, 1),
        ({"max_retries": 4}, 5),
        ({"retry_on_failure": False}, 1),
        ({"max_attempts": 7, "max_retries": 1}, 7),
    ],
)
def test_retries_are_tries_beyond_the_first(given: dict[str, object], attempts: int) -> None:
    (made,) = read({"nodes": [{"id": "a", "agent": "A", "prompt": "p", **given}]}).nodes
    assert made.max_attempts == attempts


def test_a_timeout_in_seconds_and_a_policy_are_kept() -> None:
    data = {
        "nodes": [{"id": "a", "agent": "A", "prompt": "p", "timeout_seconds": 1.5}],
        "checkpoint_policy": {"frequency": "CHECKPOINT_FREQUENCY_STEP"},
    }
    made = read(data)
    assert made.nodes[0].timeout.ToMilliseconds() == 1500
    assert made.checkpoint_policy.frequency == task_graph_pb2.CHECKPOINT_FREQUENCY_STEP


def test_a_condition_for_what_a_node_depends_on_is_as_it_should_be() -> None:
    validate.check([node("a"), node("b", "a", edge_conditions={"a": "results.a.success"})])
