"""A task graph built in Python: tasks, dependencies, levels; from a dict, JSON or YAML."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from agentnet.orchestrator.v1 import task_graph_pb2

_YAML = (".yaml", ".yml")
_FREQUENCIES = {
    "step": task_graph_pb2.CHECKPOINT_FREQUENCY_STEP,
    "iteration": task_graph_pb2.CHECKPOINT_FREQUENCY_ITERATION,
    "tool_call": task_graph_pb2.CHECKPOINT_FREQUENCY_TOOL_CALL,
}
_EFFECTS: dict[int, str] = {
    task_graph_pb2.EFFECT_OUTCOME_DONE: "done",
    task_graph_pb2.EFFECT_OUTCOME_FAILED: "failed",
    task_graph_pb2.EFFECT_OUTCOME_UNKNOWN: "unknown",
}


class InvalidGraph(ValueError):
    """A graph that cannot be run: `path` shows why, as `a > b > a` or `a > missing`."""

    def __init__(self, message: str, *, path: str) -> None:
        super().__init__(message)
        self.path = path


@dataclass(slots=True)
class AgentTask:
    """One piece of work for one agent.

    `condition` is a CEL expression over `results`, for example `results.research.success`; false skips the task.
    `max_retries` are tries beyond the first. `kind` is "worker", "planner", "aggregator" or "validator"; `aggregation`
    "concat", "vote", "best_of", "map_reduce" or "agent".
    """

    task_id: str
    agent_name: str = ""
    prompt: str = ""
    dependencies: list[str] = field(default_factory=list[str])
    condition: str | None = None
    retry_on_failure: bool = True
    max_retries: int = 3
    timeout_seconds: float | None = None
    fallback_agent: str = ""
    kind: str = "worker"
    aggregation: str = ""
    edge_conditions: dict[str, str] = field(default_factory=dict[str, str])

    def to_node(self) -> task_graph_pb2.TaskNode:
        """As the mesh takes it."""
        node = task_graph_pb2.TaskNode(
            id=self.task_id,
            prompt=self.prompt,
            agent=self.agent_name,
            depends_on=self.dependencies,
            max_attempts=self.max_retries + 1 if self.retry_on_failure else 1,
            fallback_agent=self.fallback_agent,
            condition=self.condition or "",
            edge_conditions=self.edge_conditions,
            kind=task_graph_pb2.TaskKind.Value(f"TASK_KIND_{self.kind.upper()}"),
        )
        if self.aggregation:
            node.aggregation = task_graph_pb2.Aggregation.Value(f"AGGREGATION_{self.aggregation.upper()}")
        if self.timeout_seconds is not None:
            node.timeout.FromNanoseconds(int(self.timeout_seconds * 1e9))
        return node

    @classmethod
    def from_node(cls, node: task_graph_pb2.TaskNode) -> AgentTask:
        """From what the mesh answers, or from a node in any of its shapes."""
        kind = task_graph_pb2.TaskKind.Name(node.kind or task_graph_pb2.TASK_KIND_WORKER)
        pattern = task_graph_pb2.Aggregation.Name(node.aggregation) if node.aggregation else ""
        seconds = node.timeout.ToNanoseconds() / 1e9 if node.HasField("timeout") else node.timeout_seconds
        return cls(
            task_id=node.id or node.task_id,
            agent_name=node.agent or node.assigned_agent or node.agent_name,
            prompt=node.prompt,
            dependencies=list(node.depends_on or node.dependencies or node.deps),
            condition=node.condition or None,
            retry_on_failure=node.retry_on_failure if node.HasField("retry_on_failure") else True,
            max_retries=_retries(node),
            timeout_seconds=seconds or None,
            fallback_agent=node.fallback_agent,
            kind=kind.removeprefix("TASK_KIND_").lower(),
            aggregation=pattern.removeprefix("AGGREGATION_").lower(),
            edge_conditions=dict(node.edge_conditions),
        )


@dataclass(frozen=True, slots=True)
class Cel:
    """An argument that is computed when the task starts, for example `Cel("results.find.json.id")`."""

    expression: str


@dataclass(slots=True)
class ToolTask:
    """One call of a tool, whose effect happens once, whatever dies.

    `tool_name` may name a version. `arguments` are values as they are or `Cel`. `agent_name` says on whose behalf;
    empty: of who executes the graph, which tools allow to few. `max_retries` are times the mesh asks again under the
    same key.
    """

    task_id: str
    tool_name: str
    arguments: dict[str, Any] = field(default_factory=dict[str, Any])
    dependencies: list[str] = field(default_factory=list[str])
    condition: str | None = None
    max_retries: int = 2
    timeout_seconds: float | None = None
    agent_name: str = ""
    edge_conditions: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def prompt(self) -> str:
        """What is asked, in words."""
        return f"{self.tool_name}({', '.join(self.arguments)})"

    def to_node(self) -> task_graph_pb2.TaskNode:
        """As the mesh takes it."""
        computed = {name: value.expression for name, value in self.arguments.items() if isinstance(value, Cel)}
        node = task_graph_pb2.TaskNode(
            id=self.task_id,
            tool=self.tool_name,
            argument_expressions=computed,
            agent=self.agent_name,
            depends_on=self.dependencies,
            max_attempts=self.max_retries + 1,
            condition=self.condition or "",
            edge_conditions=self.edge_conditions,
        )
        literal = {name: value for name, value in self.arguments.items() if name not in computed}
        json_format.ParseDict(literal, node.arguments)
        if self.timeout_seconds is not None:
            node.timeout.FromNanoseconds(int(self.timeout_seconds * 1e9))
        return node

    @classmethod
    def from_node(cls, node: task_graph_pb2.TaskNode) -> ToolTask:
        """From what the mesh answers, or from a node in any of its shapes."""
        task = AgentTask.from_node(node)
        computed = {name: Cel(expression) for name, expression in node.argument_expressions.items()}
        return cls(
            task_id=task.task_id,
            tool_name=node.tool,
            arguments={**json_format.MessageToDict(node.arguments), **computed},
            dependencies=task.dependencies,
            condition=task.condition,
            max_retries=task.max_retries if task.retry_on_failure else 0,
            timeout_seconds=task.timeout_seconds,
            agent_name=task.agent_name,
            edge_conditions=task.edge_conditions,
        )


@dataclass(frozen=True, slots=True)
class TaskResult:
    """What one task came to. `status` is "completed", "failed", "skipped", "cancelled", "running" or "pending".

    `effect` is what is known of a tool's call: "done", "failed", "unknown"; empty when there was none or it is at work.
    """

    task_id: str
    agent_name: str
    success: bool
    output: str
    error: str | None = None
    duration_seconds: float = 0.0
    retries: int = 0
    status: str = ""
    cost_micros_usd: int = 0
    effect: str = ""

    @classmethod
    def from_proto(cls, found: task_graph_pb2.TaskResult) -> TaskResult:
        """From what the mesh answers."""
        return cls(
            task_id=found.node_id,
            agent_name=found.agent,
            success=found.status == task_graph_pb2.TASK_STATUS_COMPLETED,
            output=found.output,
            error=found.failure.message if found.HasField("failure") else None,
            duration_seconds=found.elapsed.ToNanoseconds() / 1e9,
            retries=found.retries,
            status=task_graph_pb2.TaskStatus.Name(found.status).removeprefix("TASK_STATUS_").lower(),
            cost_micros_usd=found.cost_micros_usd,
            effect=_EFFECTS.get(found.effect.outcome, ""),
        )


class TaskGraph:
    """Tasks that depend on one another, without cycles."""

    def __init__(self, *, goal: str = "", max_parallel_tasks: int = 0, checkpoint_frequency: str = "") -> None:
        """`max_parallel_tasks` 0 means 5; `checkpoint_frequency` is "step", "iteration", "tool_call"; empty: never."""
        self.goal = goal
        self.max_parallel_tasks = max_parallel_tasks
        self.checkpoint_frequency = checkpoint_frequency
        self.tasks: dict[str, AgentTask | ToolTask] = {}

    @property
    def edges(self) -> dict[str, list[str]]:
        """What each task depends on."""
        return {name: list(task.dependencies) for name, task in self.tasks.items()}

    def add_task(self, task: AgentTask | ToolTask) -> None:
        """Adds a task. Raises InvalidGraph when its id is taken."""
        if task.task_id in self.tasks:
            raise InvalidGraph(f"two tasks are called {task.task_id}", path=task.task_id)
        self.tasks[task.task_id] = task

    def add_dependency(self, task_id: str, depends_on: str) -> None:
        """Makes one task wait for another. Raises InvalidGraph when one of them is not there."""
        for name in (task_id, depends_on):
            if name not in self.tasks:
                raise InvalidGraph(f"there is no task {name}", path=f"{task_id} > {depends_on}")
        wanted = self.tasks[task_id].dependencies
        if depends_on not in wanted:
            wanted.append(depends_on)

    def topological_sort(self) -> list[list[str]]:
        """The tasks by level: each level needs only those before it. Raises InvalidGraph."""
        self._check_dependencies()
        sorter = TopologicalSorter(self.edges)
        try:
            sorter.prepare()
        except CycleError as error:
            path = " > ".join(reversed(error.args[1]))
            raise InvalidGraph(f"there is a cycle: {path}", path=path) from None
        levels: list[list[str]] = []
        while sorter.is_active():
            ready = sorted(sorter.get_ready())
            sorter.done(*ready)
            levels.append(ready)
        return levels

    def validate(self) -> bool:
        """True when it can be run; raises InvalidGraph, with the path, when it cannot."""
        self.topological_sort()
        return True

    def to_proto(self) -> task_graph_pb2.TaskGraph:
        """As the mesh takes it."""
        graph = task_graph_pb2.TaskGraph(
            goal=self.goal,
            nodes=[task.to_node() for task in self.tasks.values()],
            max_parallel_tasks=self.max_parallel_tasks,
        )
        if self.checkpoint_frequency:
            graph.checkpoint_policy.frequency = _FREQUENCIES[self.checkpoint_frequency]
        return graph

    @classmethod
    def from_proto(cls, found: task_graph_pb2.TaskGraph) -> TaskGraph:
        """From what the mesh answers."""
        wanted = found.checkpoint_policy.frequency
        frequency = next((name for name, value in _FREQUENCIES.items() if value == wanted), "")
        graph = cls(goal=found.goal, max_parallel_tasks=found.max_parallel_tasks, checkpoint_frequency=frequency)
        graph._take(found.nodes)
        return graph

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TaskGraph:
        """From plain data: `nodes` or `tasks`, a list or a mapping by id, of any shape; kinds, patterns and how often a
        checkpoint is made in the words of `AgentTask` and `TaskGraph` or in those of the API. Raises InvalidGraph.
        """
        entries: Any = data.get("nodes") or data.get("tasks") or []
        if isinstance(entries, Mapping):
            entries = [{"id": name, **part} for name, part in entries.items()]  # pyright: ignore[reportUnknownVariableType]
        rest = {key: value for key, value in data.items() if key not in ("nodes", "tasks", "checkpoint_frequency")}
        policy: Any = data.get("checkpoint_policy") or {"frequency": data.get("checkpoint_frequency", 0)}
        try:
            rest["checkpoint_policy"] = _in_words(policy, {"frequency": "CHECKPOINT_FREQUENCY_"})
            nodes = [_in_words(entry, {"kind": "TASK_KIND_", "aggregation": "AGGREGATION_"}) for entry in entries]
            found = json_format.ParseDict({**rest, "nodes": nodes}, task_graph_pb2.TaskGraph())
        except (json_format.ParseError, TypeError, ValueError) as error:
            raise InvalidGraph(f"this is no graph: {error}", path="nodes") from None
        return cls.from_proto(found)

    @classmethod
    def from_file(cls, path: Path | str) -> TaskGraph:
        """From a JSON or YAML file, by its suffix. Raises InvalidGraph."""
        path = Path(path)
        text = path.read_text()
        try:
            data = _yaml(text) if path.suffix in _YAML else json.loads(text)
        except ValueError as error:
            raise InvalidGraph(f"{path.name} does not parse: {error}", path=path.name) from None
        if not isinstance(data, Mapping):
            raise InvalidGraph(f"{path.name} holds no mapping", path=path.name)
        return cls.from_dict(data)  # pyright: ignore[reportUnknownArgumentType]

    def _take(self, nodes: Iterable[task_graph_pb2.TaskNode]) -> None:
        for node in nodes:
            self.add_task(ToolTask.from_node(node) if node.tool else AgentTask.from_node(node))

    def _check_dependencies(self) -> None:
        for name, wanted in self.edges.items():
            for missing in (one for one in wanted if one not in self.tasks):
                raise InvalidGraph(f"{name} depends on {missing}, which is not there", path=f"{name} > {missing}")


def create_task_graph_from_dict(data: Mapping[str, Any]) -> TaskGraph:
    """See TaskGraph.from_dict."""
    return TaskGraph.from_dict(data)


def results_by_id(found: Sequence[task_graph_pb2.TaskResult]) -> dict[str, TaskResult]:
    """Results as the mesh answers them, by task."""
    return {result.node_id: TaskResult.from_proto(result) for result in found}


def _in_words(data: Mapping[str, Any], prefixes: Mapping[str, str]) -> dict[str, Any]:
    """With the short words of these fields as the API has them: "aggregator" is TASK_KIND_AGGREGATOR."""
    made = dict(data)
    for name, prefix in prefixes.items():
        word = made.get(name)
        if isinstance(word, str) and not word.startswith(prefix):
            made[name] = f"{prefix}{word.upper()}"
    return made


def _retries(node: task_graph_pb2.TaskNode) -> int:
    if node.max_attempts:
        return node.max_attempts - 1
    return node.max_retries if node.HasField("max_retries") else 2


def _yaml(text: str) -> Any:
    """Only who reads YAML needs a parser for it."""
    import yaml  # noqa: PLC0415

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None
