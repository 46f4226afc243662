"""The form of a checkpoint: made of a graph's state, read back from any version that can be upgraded, gone on from."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from google.protobuf import json_format, struct_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from agentnet.orchestrator.v1 import checkpoint_pb2, task_graph_pb2
from services.orchestrator.checkpoints.store import AND, Data
from services.orchestrator.errors import CheckpointIncompatible
from services.orchestrator.graphs import effects, growth, outcome
from services.orchestrator.graphs.state import COMPLETED, GraphState

VERSION: Final = "1.1"
# Of a graph that only calls tools.
NOBODY: Final = "task_graph"
# As many names as fit in an S3 key.
_NAMES_CHARACTERS: Final = 500
_MICROS: Final = 1_000_000

Checkpoint = checkpoint_pb2.Checkpoint
TaskGraph = task_graph_pb2.TaskGraph
TaskResult = task_graph_pb2.TaskResult
ToolEffect = task_graph_pb2.ToolEffect
Nodes = Mapping[str, task_graph_pb2.TaskNode]


@dataclass(frozen=True, slots=True)
class Resumption:
    """What a new run begins with: the graph, results that hold in it, and effect keys of tries that were in flight."""

    graph: task_graph_pb2.TaskGraph
    results: tuple[task_graph_pb2.TaskResult, ...]
    keys: Mapping[str, str]
    effects: Mapping[str, task_graph_pb2.ToolEffect] = field(default_factory=dict)


class Plain:
    """What of a graph is JSON already: results never change, and the graph seldom does."""

    def __init__(self) -> None:
        self._results: dict[str, Data] = {}
        self._nodes: Mapping[str, task_graph_pb2.TaskNode] | None = None
        self._graph: Data = {}

    def result(self, found: TaskResult) -> Data:
        """An ended node's."""
        if found.node_id not in self._results:
            self._results[found.node_id] = _plain(found)
        return self._results[found.node_id]

    def graph(self, state: GraphState) -> Data:
        """The graph with what has grown."""
        if self._nodes is not state.nodes:
            self._nodes, self._graph = state.nodes, _plain(_grown(state))
        return self._graph


def of_graph(
    state: GraphState, checkpoint_id: str, *, now: datetime, notes: Data | None = None, plain: Plain | None = None
) -> Data:
    """A checkpoint of a graph as it stands, as it is stored. `plain` is kept between checkpoints of one graph."""
    plain = plain or Plain()
    ended = [state.results[name] for name in state.started if name in state.results]
    running = [outcome.running(name, trying, now) for name, trying in state.trying.items()]
    moment = Timestamp()
    moment.FromDatetime(now)
    return {
        "id": checkpoint_id,
        "agent_name": _agents(state) or NOBODY,
        "run_id": state.graph.id,
        "time": moment.ToJsonString(),
        "messages": [
            {"node_id": result.node_id, "role": "assistant", "content": result.output}
            for result in ended
            if result.status == COMPLETED
        ],
        "tool_results": [*(plain.result(result) for result in ended), *(_plain(result) for result in running)],
        "iteration_count": len(state.results),
        "total_tokens": state.input_tokens + state.output_tokens,
        "total_cost_micros_usd": state.cost_micros_usd,
        "metadata": {
            **(notes or {}),
            "graph": plain.graph(state),
            "partial": {name: trying.turn_id for name, trying in state.trying.items() if trying.effect is None},
            "effects": {name: _plain(effect) for name, effect in _open_effects(state).items()},
        },
        "version": VERSION,
    }


def read(stored: Data) -> Checkpoint:
    """A stored checkpoint in the present form. Raises CheckpointIncompatible."""
    stored = dict(stored)
    while (version := str(stored.get("version", ""))) != VERSION:
        upgrade = UPGRADES.get(version)
        if upgrade is None:
            known = ", ".join((*UPGRADES, VERSION))
            told = f"the checkpoint is of version {version or 'none'}; this mesh reads {known}"
            raise CheckpointIncompatible(told, version=version, known=known)
        stored = upgrade(stored)
    try:
        return json_format.ParseDict(stored, Checkpoint())
    except json_format.ParseError as error:
        told = f"the checkpoint does not read: {error}"[:500]
        raise CheckpointIncompatible(told, version=VERSION, known=VERSION) from None


def listed(stored: Data) -> Checkpoint:
    """A stored checkpoint as `read` has it; of one that cannot be read, which it is and of what version."""
    try:
        return read(stored)
    except CheckpointIncompatible:
        names = [str(stored.get(name, "")) for name in ("id", "agent_name", "run_id", "version")]
        return Checkpoint(id=names[0], agent_name=names[1], run_id=names[2], version=names[3])


def resumption(checkpoint: Checkpoint, wanted: task_graph_pb2.TaskGraph | None) -> Resumption:
    """What a run of `wanted`, or of the checkpoint's own graph, begins with.

    A result holds when its node is the same in both graphs and so are all it depends on, directly or not. What had
    grown of a node that holds grows again. Raises CheckpointIncompatible when the checkpoint has no graph.
    """
    if "graph" not in checkpoint.metadata:
        raise CheckpointIncompatible("the checkpoint holds no graph", version=checkpoint.version, known=VERSION)
    notes = json_format.MessageToDict(checkpoint.metadata)
    own = json_format.ParseDict(notes["graph"], TaskGraph())
    graph = TaskGraph()
    graph.CopyFrom(wanted if wanted is not None else own)
    results = {result.node_id: result for result in (_result(one) for one in checkpoint.tool_results)}
    before = {node.id: node for node in own.nodes}
    alike = _alike(graph, before)
    while grown := growth.again(graph, before, _held(graph, before, alike, results)):
        graph = grown
    held = _held(graph, before, alike, results)
    same = {node.id: node for node in graph.nodes if node.id in alike and _as_before(node, before)}
    firm = {name for name, node in same.items() if held.issuperset(node.depends_on)}
    keys = {name: key for name, key in notes.get("partial", {}).items() if name in firm}
    open_ = {name: json_format.ParseDict(effect, ToolEffect()) for name, effect in notes.get("effects", {}).items()}
    calls = {name: effect for name, effect in open_.items() if name in same}
    return Resumption(graph, tuple(results[name] for name in results if name in held), keys, calls)


def _alike(graph: TaskGraph, before: Nodes) -> set[str]:
    """Nodes that do the same work as before, dependencies aside; those that had grown and may grow again do."""
    now = {node.id: node for node in graph.nodes}
    return {name for name, node in before.items() if name not in now or _work(now[name]) == _work(node)}


def _held(graph: TaskGraph, before: Nodes, alike: Collection[str], results: Mapping[str, TaskResult]) -> set[str]:
    """Nodes whose results hold: completed, the same, and on held ground."""
    ended = {name for name, result in results.items() if result.status == COMPLETED and name in alike}
    left = [node for node in graph.nodes if node.id in ended and _as_before(node, before)]
    held: set[str] = set()
    while True:
        waiting: list[task_graph_pb2.TaskNode] = []
        for node in left:
            if _grounded(node.depends_on, held, results):
                held.add(node.id)
            else:
                waiting.append(node)
        if len(waiting) == len(left):
            return held
        left = waiting


def _as_before(node: task_graph_pb2.TaskNode, before: Nodes) -> bool:
    return set(node.depends_on) == set(before[node.id].depends_on)


def _grounded(wanted: Iterable[str], held: set[str], results: Mapping[str, TaskResult]) -> bool:
    """Completed dependencies hold; others had no part in the result."""
    return all(name in held or (name in results and results[name].status != COMPLETED) for name in wanted)


def _work(node: task_graph_pb2.TaskNode) -> tuple[object, ...]:
    """What is the same whichever version of the agent or the tool does it."""
    called = (node.tool.partition("@")[0], json_format.MessageToDict(node.arguments), dict(node.argument_expressions))
    return (node.prompt, node.agent.partition("@")[0], node.kind, node.aggregation, node.score, *called)


def _agents(state: GraphState) -> str:
    """Whose work the graph is, by name."""
    named, found = sorted({node.agent.partition("@")[0] for node in state.nodes.values() if node.agent}), ""
    for name in named:
        together = f"{found}{AND}{name}" if found else name
        if len(together) > _NAMES_CHARACTERS:
            break
        found = together
    return found


def _grown(state: GraphState) -> TaskGraph:
    """The graph with what has grown, as it could be executed."""
    graph = TaskGraph()
    graph.CopyFrom(state.graph)
    del graph.nodes[:]
    for name, node in state.nodes.items():
        made = graph.nodes.add()
        made.CopyFrom(node)
        del made.depends_on[:]
        made.depends_on.extend(state.depends_on[name])
    return graph


def _open_effects(state: GraphState) -> dict[str, task_graph_pb2.ToolEffect]:
    """Calls of tools that a later run has to ask for again: at work, between two tries, or of unknown outcome."""
    at_work = {**{name: broken.last for name, broken in state.interrupted.items()}, **state.trying}
    begun = {name: trying.effect for name, trying in at_work.items() if trying.effect is not None}
    waiting = {name: effect for name, effect in state.effects.items() if name not in state.results}
    return {**waiting, **effects.open_in(state.results), **begun}


def _result(stored: struct_pb2.Struct) -> TaskResult:
    return json_format.ParseDict(json_format.MessageToDict(stored), TaskResult())


def _plain(message: TaskGraph | TaskResult | ToolEffect) -> dict[str, Any]:
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


def _from_1_0(stored: Data) -> Data:
    """1.0 is the form of the seeds: `checkpoint_id`, `timestamp`, and money as a float of USD."""
    stored["id"] = stored.pop("checkpoint_id", stored.get("id", ""))
    stored["time"] = stored.pop("timestamp", stored.get("time"))
    stored["total_cost_micros_usd"] = round(float(stored.pop("total_cost_usd", 0)) * _MICROS)
    stored["version"] = "1.1"
    return stored


# From each older version to the next.
UPGRADES: Final[Mapping[str, Callable[[Data], Data]]] = {"1.0": _from_1_0}
