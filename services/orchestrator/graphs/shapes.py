"""The shapes a graph may come in, and the one it has inside: every name a part may have becomes its first."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from agentnet.orchestrator.v1 import task_graph_pb2

MAX_ATTEMPTS: Final = 3
MAX_PARALLEL: Final = 5
TIMEOUT_SECONDS: Final = 300

TaskNode = task_graph_pb2.TaskNode
TaskGraph = task_graph_pb2.TaskGraph
# What no accepted node has: other names of the same things, and what only the mesh may say.
_DROPPED: Final = (
    "grown_by",
    "task_id",
    "assigned_agent",
    "agent_name",
    "dependencies",
    "deps",
    "retry_on_failure",
    "max_retries",
    "timeout_seconds",
)


def node(found: TaskNode) -> TaskNode:
    """The node by its first names, with every default filled in."""
    made = TaskNode()
    made.CopyFrom(found)
    made.id = found.id or found.task_id
    made.agent = found.agent or found.assigned_agent or found.agent_name
    wanted = found.depends_on or found.dependencies or found.deps
    del made.depends_on[:]
    made.depends_on.extend(dict.fromkeys(wanted))
    made.max_attempts = _attempts(found)
    made.kind = found.kind or task_graph_pb2.TASK_KIND_WORKER
    if made.kind == task_graph_pb2.TASK_KIND_AGGREGATOR:
        made.aggregation = found.aggregation or task_graph_pb2.AGGREGATION_AGENT
    if not found.HasField("timeout"):
        seconds = found.timeout_seconds or TIMEOUT_SECONDS
        made.timeout.FromNanoseconds(int(seconds * 1e9))
    for name in _DROPPED:
        made.ClearField(name)
    return made


def graph(found: TaskGraph, nodes: Iterable[TaskNode] = ()) -> TaskGraph:
    """The graph by its first names; `nodes` are its nodes when it has none of its own."""
    made = TaskGraph(goal=found.goal, max_parallel_tasks=found.max_parallel_tasks or MAX_PARALLEL)
    if found.HasField("checkpoint_policy"):
        made.checkpoint_policy.CopyFrom(found.checkpoint_policy)
    made.nodes.extend(node(entry) for entry in (found.nodes or nodes))
    return made


def _attempts(found: TaskNode) -> int:
    if found.max_attempts:
        return found.max_attempts
    if found.HasField("retry_on_failure") and not found.retry_on_failure:
        return 1
    return found.max_retries + 1 if found.HasField("max_retries") else MAX_ATTEMPTS
