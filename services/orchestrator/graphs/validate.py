"""What is a valid graph: every fault by name, with the path that shows it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import networkx as nx

from agentnet.orchestrator.v1 import task_graph_pb2
from services.orchestrator.errors import GraphInvalid
from services.orchestrator.graphs import conditions

MAX_NODES: Final = 1_000
_SHOWN: Final = 5
# Patterns that need no agent.
AGENTLESS: Final = (
    task_graph_pb2.AGGREGATION_CONCAT,
    task_graph_pb2.AGGREGATION_VOTE,
    task_graph_pb2.AGGREGATION_BEST_OF,
)

Nodes = Sequence[task_graph_pb2.TaskNode]


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong: which kind, where, and a sentence about it."""

    kind: str
    path: str
    message: str


def check(nodes: Nodes) -> None:
    """Raises GraphInvalid with the first fault's kind and path as facts, and all of them in its message."""
    found = list(faults(nodes))
    if not found:
        return
    told = "; ".join(fault.message for fault in found[:_SHOWN])
    more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    raise GraphInvalid(f"{told}{more}"[:1000], fault=found[0].kind, path=found[0].path[:1000], faults=str(len(found)))


def faults(nodes: Nodes) -> Iterator[Fault]:
    """Everything wrong with the nodes, the most telling first."""
    if not nodes:
        yield Fault("empty", "nodes", "a graph has at least one node")
        return
    if len(nodes) > MAX_NODES:
        yield Fault("too large", "nodes", f"a graph has at most {MAX_NODES} nodes, this one {len(nodes)}")
        return
    yield from _doubles(nodes)
    if not _in_order(nodes):
        yield from _cycles_and_gaps(nodes)
    yield from _agents(nodes)
    yield from _tools(nodes)
    yield from _conditions(nodes)


def levels(depends_on: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """The nodes by level: each level needs only those before it. Raises GraphInvalid for a cycle."""
    graph = _digraph(depends_on)
    try:
        return [sorted(level) for level in nx.topological_generations(graph)]
    except nx.NetworkXUnfeasible:
        cycle = _cycle(graph)
        raise GraphInvalid(f"there is a cycle: {cycle}", fault="cycle", path=cycle) from None


def _doubles(nodes: Nodes) -> Iterator[Fault]:
    for name, count in Counter(node.id for node in nodes).items():
        if count > 1:
            yield Fault("duplicate", name, f"{count} nodes are called {name}")


def _in_order(nodes: Nodes) -> bool:
    """Whether each node comes after all it depends on, as most graphs are written: then nothing is amiss with them."""
    before: set[str] = set()
    for node in nodes:
        if not before.issuperset(node.depends_on):
            return False
        before.add(node.id)
    return True


def _cycles_and_gaps(nodes: Nodes) -> Iterator[Fault]:
    known = {node.id for node in nodes}
    stuck: set[str] = set()
    for node in nodes:
        for missing in (name for name in node.depends_on if name not in known):
            stuck.add(node.id)
            yield Fault(
                "missing dependency", f"{node.id} > {missing}", f"{node.id} depends on {missing}, which is not there"
            )
    graph = _digraph({node.id: [name for name in node.depends_on if name in known] for node in nodes})
    for knot in nx.strongly_connected_components(graph):
        if len(knot) > 1 or any(graph.has_edge(name, name) for name in knot):
            stuck |= knot
            path = _cycle(graph.subgraph(knot))
            yield Fault("cycle", path, f"there is a cycle: {path}")
    yield from _unreachable(graph, stuck)


def _unreachable(graph: nx.DiGraph[str], stuck: set[str]) -> Iterator[Fault]:
    """Nodes that could never start, since they wait for one that cannot."""
    for name in sorted(stuck):
        for lost, path in sorted(nx.single_source_shortest_path(graph, name).items()):
            if lost not in stuck:
                told = " > ".join(reversed(path))
                yield Fault("unreachable", told, f"{lost} can never start, since {name} cannot: {told}")


def _agents(nodes: Nodes) -> Iterator[Fault]:
    for node in nodes:
        agentless = node.kind == task_graph_pb2.TASK_KIND_AGGREGATOR and node.aggregation in AGENTLESS
        if node.tool:
            continue
        if not node.agent and not agentless:
            yield Fault("agent", node.id, f"{node.id} names no agent")
        if not node.prompt.strip() and not agentless:
            yield Fault("prompt", node.id, f"{node.id} has no prompt")
        if (
            node.kind in (task_graph_pb2.TASK_KIND_AGGREGATOR, task_graph_pb2.TASK_KIND_VALIDATOR)
            and not node.depends_on
        ):
            yield Fault("dependencies", node.id, f"{node.id} has nothing to work on: it depends on no node")


def _tools(nodes: Nodes) -> Iterator[Fault]:
    for node in nodes:
        given = [*node.arguments, *node.argument_expressions]
        if not node.tool:
            if given:
                yield Fault("tool", node.id, f"{node.id} has arguments and names no tool")
            continue
        if node.kind not in (task_graph_pb2.TASK_KIND_UNSPECIFIED, task_graph_pb2.TASK_KIND_WORKER):
            yield Fault("tool", f"{node.id}.kind", f"{node.id} calls a tool and can only be a worker")
        if node.fallback_agent:
            path = f"{node.id}.fallback_agent"
            yield Fault("tool", path, f"{node.id} calls a tool, whose effect no agent can have in its place")
        for name in (name for name, count in Counter(given).items() if count > 1):
            yield Fault("arguments", f"{node.id}.{name}", f"the argument {name} of {node.id} is given twice")


def _conditions(nodes: Nodes) -> Iterator[Fault]:
    for node in nodes:
        for where, expression in _expressions(node):
            if expression and (trouble := conditions.trouble(expression)):
                yield Fault(
                    "condition", f"{node.id}.{where}", f"the condition {where} of {node.id} does not compile: {trouble}"
                )
        for name in node.edge_conditions:
            if name not in node.depends_on:
                path = f"{node.id} > {name}"
                yield Fault(
                    "missing dependency", path, f"{node.id} has a condition for {name}, on which it does not depend"
                )


def _expressions(node: task_graph_pb2.TaskNode) -> Iterator[tuple[str, str]]:
    """Everything in CEL, by where it stands."""
    yield from (("condition", node.condition), ("score", node.score))
    yield from (*node.edge_conditions.items(), *node.argument_expressions.items())


def _digraph(depends_on: Mapping[str, Sequence[str]]) -> nx.DiGraph[str]:
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(depends_on)
    graph.add_edges_from((before, name) for name, wanted in depends_on.items() for before in wanted)
    return graph


def _cycle(graph: nx.DiGraph[str]) -> str:
    """As dependencies read: each depends on the next, the last on the first."""
    edges = list(nx.find_cycle(graph))
    return " > ".join([edges[0][0], *(edge[0] for edge in reversed(edges))])
