"""Plans: what a planner is told, the JSON it must answer with, and the nodes that come of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import jsonschema

from agentnet.orchestrator.v1 import agent_pb2, task_event_pb2, task_graph_pb2
from services.orchestrator.errors import GraphInvalid
from services.orchestrator.forms import Form
from services.orchestrator.graphs import conditions, shapes, validate
from services.orchestrator.graphs.state import GraphState

_TEXT: Final = {"type": "string", "minLength": 1, "maxLength": 32_768}
_ID: Final = {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}
_IDS: Final = {"type": "array", "items": _ID, "maxItems": 100}
_KINDS: Final = ("worker", "planner", "aggregator", "validator")


def schema(agents: Sequence[str], *, max_nodes: int) -> dict[str, Any]:
    """The JSON schema of a plan that uses these agents."""
    node = {
        "type": "object",
        "required": ["id", "prompt", "agent", "depends_on"],
        "additionalProperties": False,
        "properties": {
            "id": _ID,
            "prompt": _TEXT,
            "agent": {"type": "string", "enum": list(agents)},
            "depends_on": _IDS,
            "kind": {"type": "string", "enum": list(_KINDS)},
            "condition": {"type": "string", "maxLength": conditions.LIMIT},
        },
    }
    nodes = {"type": "array", "items": node, "minItems": 1, "maxItems": max_nodes}
    return {"type": "object", "required": ["nodes"], "additionalProperties": False, "properties": {"nodes": nodes}}


def form(agents: Sequence[str], *, max_nodes: int) -> Form:
    """What a model that can be held to a schema is held to: lengths aside, for which grammars are too small."""
    held = schema(agents, max_nodes=max_nodes)
    node = held["properties"]["nodes"]["items"]
    node["properties"] = {
        name: {word: value for word, value in part.items() if word != "maxLength"}
        for name, part in node["properties"].items()
    }
    return Form("plan", held)


def kind_of(node: task_graph_pb2.TaskNode) -> str:
    """What part it plays, in a word."""
    return _KINDS[max(node.kind, task_graph_pb2.TASK_KIND_WORKER) - 1]


def plans(node: task_graph_pb2.TaskNode) -> bool:
    """Whether a node's answer is a plan."""
    return node.kind == task_graph_pb2.TASK_KIND_PLANNER


def instructions(goal: str, agents: Sequence[agent_pb2.Agent], *, max_nodes: int) -> str:
    """What a planner is asked."""
    known = "\n".join(
        f"- {agent.name}: {agent.description or ', '.join(agent.capabilities) or 'no description'}" for agent in agents
    )
    wanted = json.dumps(schema([agent.name for agent in agents], max_nodes=max_nodes), separators=(",", ":"))
    return (
        f"Goal: {goal}\n\nAgents:\n{known}\n\nCut the goal into at most {max_nodes} tasks for these agents. A task may "
        f"depend on others and reads their results; tasks that do not depend on each other run at once. There must be "
        f"no cycle. Answer with JSON of this schema and nothing else:\n{wanted}"
    )


def repair(answer: str, fault: GraphInvalid) -> str:
    """What a planner is asked after an answer that was no valid plan."""
    wanted = "Answer again, with the whole corrected JSON and nothing else."
    return f"Your answer was:\n{answer[:8_000]}\n\nIt cannot be run: {fault.message}\n{wanted}"


def read(answer: str, agents: Sequence[str], *, max_nodes: int) -> list[task_graph_pb2.TaskNode]:
    """The valid nodes of an answer. Raises GraphInvalid, which names what is wrong and where."""
    nodes = _nodes(answer, agents, max_nodes=max_nodes)
    validate.check(nodes)
    return nodes


def _nodes(answer: str, agents: Sequence[str], *, max_nodes: int) -> list[task_graph_pb2.TaskNode]:
    data = conditions.parsed(answer)
    if data is None:
        raise GraphInvalid("the answer holds no JSON", fault="shape", path="")
    if isinstance(data, list):
        data = {"nodes": data}
    error = jsonschema.exceptions.best_match(
        jsonschema.Draft202012Validator(schema(agents, max_nodes=max_nodes)).iter_errors(data)
    )
    if error is not None:
        raise GraphInvalid(f"{error.json_path}: {error.message}"[:500], fault="shape", path=error.json_path)
    return [shapes.node(_node(entry)) for entry in data["nodes"]]


def _node(entry: dict[str, Any]) -> task_graph_pb2.TaskNode:
    return task_graph_pb2.TaskNode(
        id=entry["id"],
        prompt=entry["prompt"],
        agent=entry["agent"],
        depends_on=entry["depends_on"],
        kind=_KINDS.index(entry.get("kind", "worker")) + 1,  # type: ignore[arg-type] # the enum's own order
        condition=entry.get("condition", ""),
    )


def grown(state: GraphState, planner: str, answer: str, agents: Mapping[str, str]) -> task_event_pb2.GraphGrown:
    """The nodes a planner node's answer adds: named after it, after it, and before what depends on it.

    `agents` are those it may name, each with its pinned version. Raises GraphInvalid, also when the graph with them
    would not be valid.
    """
    planned = _nodes(answer, list(agents), max_nodes=max(1, validate.MAX_NODES - len(state.nodes)))
    own = {node.id: f"{planner[:30]}-{node.id[:33]}" for node in planned}
    for node in planned:
        node.id, node.agent, node.grown_by = own[node.id], agents[node.agent], planner
        wanted = [own.get(name, name) for name in node.depends_on] or [planner]
        del node.depends_on[:]
        node.depends_on.extend(wanted)
    event = task_event_pb2.GraphGrown(node_id=planner, nodes=planned, rewired=_rewired(state, planner, planned))
    validate.check(list(_with(state, event)))
    return event


def _rewired(
    state: GraphState, planner: str, planned: Sequence[task_graph_pb2.TaskNode]
) -> list[task_event_pb2.Dependencies]:
    """What depends on the planner from now on also depends on the new nodes nothing else waits for."""
    waited_for = {name for node in planned for name in node.depends_on}
    last = [node.id for node in planned if node.id not in waited_for]
    return [
        task_event_pb2.Dependencies(node_id=name, depends_on=[*state.depends_on[name], *last])
        for name in state.dependents.get(planner, ())
        if name not in state.results
    ]


def _with(state: GraphState, event: task_event_pb2.GraphGrown) -> Iterable[task_graph_pb2.TaskNode]:
    changed = {change.node_id: change.depends_on for change in event.rewired}
    for name, node in state.nodes.items():
        copy = task_graph_pb2.TaskNode()
        copy.CopyFrom(node)
        del copy.depends_on[:]
        copy.depends_on.extend(changed.get(name, state.depends_on[name]))
        yield copy
    yield from event.nodes
