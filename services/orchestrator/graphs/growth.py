"""What had grown grows again: a plan's nodes, or an aggregator's reducers, join the graph as it was first given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

from agentnet.orchestrator.v1 import task_graph_pb2
from services.orchestrator.graphs import planning

TaskGraph = task_graph_pb2.TaskGraph
TaskNode = task_graph_pb2.TaskNode


def again(graph: TaskGraph, before: Mapping[str, TaskNode], held: AbstractSet[str]) -> TaskGraph | None:
    """The graph with what one of its nodes had grown before; None when there is nothing left to take over.

    A plan is taken over when its planner's result is `held`; reducers when all that their aggregator depends on is, and
    is what they had reduced.
    """
    there = {node.id: node for node in graph.nodes}
    for name in dict.fromkeys(node.grown_by for node in before.values() if node.grown_by):
        made = [node for node in before.values() if node.grown_by == name]
        if name in there and not any(node.id in there for node in made) and _holds(there[name], made, held):
            return _with(graph, before[name], made)
    return None


def _holds(grower: TaskNode, made: Sequence[TaskNode], held: AbstractSet[str]) -> bool:
    if planning.plans(grower):
        return grower.id in held
    reduced = {name for node in made for name in node.depends_on} - {node.id for node in made}
    return reduced == set(grower.depends_on) and reduced <= held


def _with(graph: TaskGraph, grower: TaskNode, made: Sequence[TaskNode]) -> TaskGraph:
    grown = TaskGraph()
    grown.CopyFrom(graph)
    own = {node.id for node in made}
    last = own - {name for node in made for name in node.depends_on}
    for node in grown.nodes:
        if node.id == grower.id:
            _depend(node, grower.depends_on)
        elif planning.plans(grower) and grower.id in node.depends_on:
            _depend(node, [*node.depends_on, *(one.id for one in made if one.id in last)])
    known = own | {node.id for node in graph.nodes}
    for node in made:
        copy = grown.nodes.add()
        copy.CopyFrom(node)
        _depend(copy, [name for name in node.depends_on if name in known])  # what grew later joins later
    return grown


def _depend(node: TaskNode, wanted: Sequence[str]) -> None:
    names = list(wanted)
    del node.depends_on[:]
    node.depends_on.extend(names)
