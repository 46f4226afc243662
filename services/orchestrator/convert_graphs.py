"""Between the contract and task graphs: parses, rejects, answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Final

from google.protobuf import struct_pb2

from agentnet.orchestrator.v1 import checkpoint_pb2, task_graph_pb2
from agentnet.orchestrator.v1 import checkpoint_service_pb2 as checkpoints
from agentnet.orchestrator.v1 import task_graph_service_pb2 as pb
from services.orchestrator.checkpoints.store import CheckpointFilter
from services.orchestrator.convert import Listing, reference
from services.orchestrator.graphs import conditions, picture, shapes
from services.orchestrator.graphs.effects import ARGUMENT_CHARACTERS
from services.orchestrator.graphs.picture import Drawn
from services.orchestrator.graphs.validate import MAX_NODES
from services.orchestrator.store import KeptGraph
from services.orchestrator.task_graphs import Shown
from shared import fields
from shared.errors import FieldRequired, InvalidArgument
from shared.paging import next_page_token, page

_PROMPT: Final = 32_768
_NAME: Final = 255
_MAX_PARALLEL: Final = 100
_MAX_ATTEMPTS: Final = 10
_LONGEST_SECONDS: Final = 3600
_MAX_EDGES: Final = 10_000
_MAX_AGENTS: Final = 100
_MAX_EXPRESSIONS: Final = 100
_PLANNED_AT_MOST: Final = 20


def graph(request: pb.ExecuteTasksRequest) -> task_graph_pb2.TaskGraph | None:
    """The graph by its first names and with its defaults; None when a checkpoint's own is to be run."""
    if not request.graph.nodes and not request.nodes:
        if request.resume_from:
            return None
        raise FieldRequired("graph.nodes")
    fields.text(request.graph.goal, "graph.goal", limit=_PROMPT)
    fields.within(request.graph.max_parallel_tasks, "graph.max_parallel_tasks", low=0, high=_MAX_PARALLEL)
    _frequency(request.graph.checkpoint_policy)
    given = request.graph.nodes or request.nodes
    fields.at_most(len(given), "graph.nodes", limit=MAX_NODES)
    for place, node in enumerate(given):
        _check_aliases(node, f"graph.nodes[{place}]")
    made = shapes.graph(request.graph, request.nodes)
    for place, node in enumerate(made.nodes):
        _check(node, f"graph.nodes[{place}]")
    edges = sum(len(node.depends_on) for node in made.nodes)
    fields.at_most(edges, "graph.nodes.depends_on", limit=_MAX_EDGES)
    return made


def _frequency(policy: task_graph_pb2.CheckpointPolicy) -> None:
    _known(policy.frequency, task_graph_pb2.CheckpointFrequency, "graph.checkpoint_policy.frequency")


def _check_aliases(node: task_graph_pb2.TaskNode, field: str) -> None:
    if node.HasField("max_retries"):
        fields.within(node.max_retries, f"{field}.max_retries", low=0, high=_MAX_ATTEMPTS - 1)
    if node.HasField("timeout_seconds"):
        fields.within(node.timeout_seconds, f"{field}.timeout_seconds", low=0, high=_LONGEST_SECONDS)


def _check(node: task_graph_pb2.TaskNode, field: str) -> None:
    fields.identifier(node.id, f"{field}.id")
    fields.text(node.prompt, f"{field}.prompt", limit=_PROMPT)
    for name in ("agent", "fallback_agent"):
        if value := getattr(node, name):
            reference(value, f"{field}.{name}")
    fields.within(node.max_attempts, f"{field}.max_attempts", low=1, high=_MAX_ATTEMPTS)
    fields.within(node.timeout.ToNanoseconds() / 1e9, f"{field}.timeout", low=0.001, high=_LONGEST_SECONDS)
    if node.tool:
        reference(node.tool, f"{field}.tool")
    fields.mapping(node.arguments, f"{field}.arguments", limit=ARGUMENT_CHARACTERS)
    fields.at_most(len(node.argument_expressions), f"{field}.argument_expressions", limit=_MAX_EXPRESSIONS)
    for name, value in _expressions(node):
        fields.text(value, f"{field}.{name}", limit=conditions.LIMIT)
    _known(node.kind, task_graph_pb2.TaskKind, f"{field}.kind")
    _known(node.aggregation, task_graph_pb2.Aggregation, f"{field}.aggregation")


def _expressions(node: task_graph_pb2.TaskNode) -> Iterator[tuple[str, str]]:
    """Everything in CEL, by where it stands."""
    yield from (("condition", node.condition), ("score", node.score), *node.edge_conditions.items())
    yield from ((f"argument_expressions[{name}]", value) for name, value in node.argument_expressions.items())


def _known(value: int, enum: type, field: str) -> None:
    if value not in enum.values():  # type: ignore[attr-defined] # of the generated enums
        raise InvalidArgument(f"{field} is none of those the contract names", field=field)


@dataclass(frozen=True, slots=True)
class Plan:
    """A parsed request for a plan."""

    goal: str
    agents: tuple[str, ...]
    planner: str
    max_nodes: int


def plan(request: pb.PlanTasksRequest) -> Plan:
    goal = fields.required(request.goal, "goal", limit=_PROMPT)
    fields.at_most(len(request.agents), "agents", limit=_MAX_AGENTS)
    for place, name in enumerate(request.agents):
        reference(name, f"agents[{place}]")
    if request.planner:
        reference(request.planner, "planner")
    most = int(fields.within(request.max_nodes, "max_nodes", low=0, high=MAX_NODES))
    return Plan(goal, tuple(request.agents), request.planner, most or _PLANNED_AT_MOST)


def executed(kept: KeptGraph) -> pb.ExecuteTasksResponse:
    return pb.ExecuteTasksResponse(graph=kept.graph, session_id=kept.session.id)


def shown(found: Shown) -> pb.GetTaskGraphResponse:
    return pb.GetTaskGraphResponse(
        graph=found.graph,
        results=found.results,
        progress=found.progress,
        session_id=found.session_id,
        last_checkpoint_id=found.last_checkpoint_id,
    )


def listing(request: pb.ListTaskGraphsRequest) -> Listing:
    _known(request.status, task_graph_pb2.TaskStatus, "status")
    scope = f"graphs|{request.status}"
    return Listing(page(request.page_size, request.page_token, scope=scope), scope)


def listed(found: Sequence[KeptGraph], asked: Listing) -> pb.ListTaskGraphsResponse:
    shown = found[: asked.page.size]
    last = shown[-1].session if len(found) > len(shown) else None
    more = (last.start_time.ToDatetime(UTC).isoformat(), last.id) if last else None
    graphs = [without_nodes(kept) for kept in shown]
    return pb.ListTaskGraphsResponse(graphs=graphs, next_page_token=next_page_token(more, scope=asked.scope))


def without_nodes(kept: KeptGraph) -> task_graph_pb2.TaskGraph:
    graph = task_graph_pb2.TaskGraph()
    graph.CopyFrom(kept.graph)
    del graph.nodes[:]
    return graph


def resume_from(request: pb.ExecuteTasksRequest) -> str:
    return fields.identifier(request.resume_from, "resume_from") if request.resume_from else ""


def notes(given: struct_pb2.Struct) -> dict[str, object]:
    return fields.mapping(given, "metadata")


def list_checkpoints(request: checkpoints.ListCheckpointsRequest) -> tuple[CheckpointFilter, Listing]:
    agent, run = (fields.text(getattr(request, name), name, limit=_NAME) for name in ("agent_name", "run_id"))
    scope = f"checkpoints|{agent}|{run}"
    return CheckpointFilter(agent, run), Listing(page(request.page_size, request.page_token, scope=scope), scope)


def checkpoints_listed(
    found: Sequence[checkpoint_pb2.Checkpoint], asked: Listing
) -> checkpoints.ListCheckpointsResponse:
    shown = found[: asked.page.size]
    more = (shown[-1].id,) if len(found) > len(shown) else None
    token = next_page_token(more, scope=asked.scope)
    return checkpoints.ListCheckpointsResponse(checkpoints=shown, next_page_token=token)


def drawing(nodes: Sequence[Drawn]) -> pb.DrawTaskGraphResponse:
    return pb.DrawTaskGraphResponse(mermaid=picture.mermaid(nodes), svg=picture.svg(nodes))
