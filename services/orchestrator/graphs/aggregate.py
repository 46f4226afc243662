"""Making one result of many: the patterns that need no agent, and how an agent's work on many is cut up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from agentnet.orchestrator.v1 import task_event_pb2, task_graph_pb2
from services.orchestrator.graphs import conditions

FAN_IN: Final = 8
_SCORE: Final = "result.json.score"

Results = Sequence[task_graph_pb2.TaskResult]


def is_pure(node: task_graph_pb2.TaskNode) -> bool:
    """Whether a node's result follows from its dependencies' results alone."""
    return node.kind == task_graph_pb2.TASK_KIND_AGGREGATOR and node.aggregation in _PATTERNS


def combined(node: task_graph_pb2.TaskNode, results: Results) -> str:
    """The one result of a pure aggregator. Raises ConditionFailed when a score cannot be computed."""
    return _PATTERNS[node.aggregation](node, results)


def _concat(_node: task_graph_pb2.TaskNode, results: Results) -> str:
    return "\n\n".join(f"## {result.node_id}\n{result.output}" for result in results)


def _vote(_node: task_graph_pb2.TaskNode, results: Results) -> str:
    ballots = [" ".join(result.output.split()).casefold().rstrip(".") for result in results]
    winner, _ = Counter(ballots).most_common(1)[0]
    return results[ballots.index(winner)].output


def _best_of(node: task_graph_pb2.TaskNode, results: Results) -> str:
    scored = [conditions.score(node.score or _SCORE, result, node_id=node.id) for result in results]
    return results[scored.index(max(scored))].output


_PATTERNS: Final = {
    task_graph_pb2.AGGREGATION_CONCAT: _concat,
    task_graph_pb2.AGGREGATION_VOTE: _vote,
    task_graph_pb2.AGGREGATION_BEST_OF: _best_of,
}


def reducers(node: task_graph_pb2.TaskNode, *, taken: Sequence[str], room: int) -> task_event_pb2.GraphGrown | None:
    """The nodes that reduce a map-reduce aggregator's inputs eight at a time; None when eight or fewer are left.

    They have the node's own agent, prompt and limits, and the node depends on them from now on. `room` is how many
    nodes the graph may still grow by.
    """
    wide = node.aggregation == task_graph_pb2.AGGREGATION_MAP_REDUCE and len(taken) > FAN_IN
    parts = [taken[start : start + FAN_IN] for start in range(0, len(taken), FAN_IN)]
    if not wide or len(parts) > room:
        return None
    made = []
    for place, part in enumerate(parts):
        reducer = task_graph_pb2.TaskNode()
        reducer.CopyFrom(node)
        reducer.id = f"{node.id[:50]}--{len(taken)}-{place}"
        reducer.grown_by = node.id
        reducer.condition = ""
        reducer.edge_conditions.clear()
        del reducer.depends_on[:]
        reducer.depends_on.extend(part)
        made.append(reducer)
    rewired = task_event_pb2.Dependencies(node_id=node.id, depends_on=[reducer.id for reducer in made])
    return task_event_pb2.GraphGrown(node_id=node.id, nodes=made, rewired=[rewired])
