"""What happens next in a graph: one pure decision over the state. No levels and no barriers: what is ready may run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from agentnet.common.v1 import failure_pb2
from agentnet.orchestrator.v1 import event_pb2, session_pb2, task_event_pb2, task_graph_pb2
from services.orchestrator import holds
from services.orchestrator.errors import ConditionFailed
from services.orchestrator.graphs import aggregate, conditions, effects
from services.orchestrator.graphs.state import CANCELLED, COMPLETED, FAILED, SKIPPED, Broken, GraphState
from services.orchestrator.graphs.validate import MAX_NODES
from shared.errors import Reason


@dataclass(frozen=True, slots=True)
class Begin:
    """An agent, or the call `effect` of a tool, tries a node. `after` is what ended the try before."""

    node_id: str
    agent: str
    attempt: int = 1
    fallback: bool = False
    after: failure_pb2.Failure | None = None
    effect: task_graph_pb2.ToolEffect | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """A person is asked for leave of what rules of policy held."""

    node_id: str


@dataclass(frozen=True, slots=True)
class Settle:
    """A node ends without an agent: skipped, cancelled, computed, or out of tries."""

    node_id: str
    status: task_graph_pb2.TaskStatus.ValueType
    output: str = ""
    failure: failure_pb2.Failure | None = None


@dataclass(frozen=True, slots=True)
class Grow:
    """Nodes join the graph before a node that needs them."""

    grown: task_event_pb2.GraphGrown


@dataclass(frozen=True, slots=True)
class Await:
    """Nothing more can start before something at work ends."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing happens until a signal."""

    status: session_pb2.SessionStatus.ValueType


@dataclass(frozen=True, slots=True)
class Finish:
    """The graph ends."""

    status: session_pb2.SessionStatus.ValueType
    reason: session_pb2.StopReason.ValueType
    failure: failure_pb2.Failure | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """It has ended."""


Step = Begin | Ask | Settle | Grow | Await | Wait | Finish | Done

# What no other try would mend.
FINAL: Final = {
    Reason.ERROR_REASON_POLICY_BLOCKED: session_pb2.STOP_REASON_POLICY_BLOCKED,
    Reason.ERROR_REASON_CALL_APPROVAL_REQUIRED: session_pb2.STOP_REASON_POLICY_BLOCKED,
    Reason.ERROR_REASON_APPROVAL_REFUSED: session_pb2.STOP_REASON_POLICY_BLOCKED,
    Reason.ERROR_REASON_BUDGET_EXHAUSTED: session_pb2.STOP_REASON_BUDGET_EXHAUSTED,
}


def next_step(state: GraphState, *, max_takeovers: int) -> Step:
    """The one next step."""
    if state.finished:
        return Done()
    if state.cancelled:
        return _cancel(state)
    if state.fruitless > max_takeovers:
        return _poisoned()
    return _among_nodes(state)


def _among_nodes(state: GraphState) -> Step:
    if state.doomed:
        return Settle(next(iter(state.doomed)), CANCELLED)
    if state.broken:
        return _go_on(state, *next(iter(state.broken.items())))
    if state.ready:
        return _start(state, next(iter(state.ready)))
    if state.trying:
        return Await()
    return Wait(session_pb2.SESSION_STATUS_AWAITING_INPUT) if state.held else _end(state)


def _cancel(state: GraphState) -> Step:
    for name in state.blocked:
        return Settle(name, CANCELLED)
    return Finish(session_pb2.SESSION_STATUS_CANCELLED, session_pb2.STOP_REASON_CANCELLED)


def _go_on(state: GraphState, name: str, broken: Broken) -> Step:
    """What becomes of a node whose try broke off."""
    if broken.answer is not None:
        return _answered(state, name, broken, broken.answer)
    if holds.held(broken.failure):
        return Ask(name)
    return _try_again(state, name, broken)


def _try_again(state: GraphState, name: str, broken: Broken) -> Step:
    node, last = state.nodes[name], broken.last
    if broken.failure.reason in FINAL:
        return Settle(name, FAILED, failure=broken.failure)
    if _worth_another(broken) and last.attempt < node.max_attempts:
        return Begin(
            name, last.agent, last.attempt + 1, fallback=last.fallback, after=broken.failure, effect=last.effect
        )
    if node.fallback_agent and not last.fallback:
        return Begin(name, node.fallback_agent, fallback=True)
    if last.effect is not None and last.effect.outcome == effects.UNKNOWN:
        return Settle(name, FAILED, failure=effects.unknown(last.effect, broken.failure))
    return Settle(name, FAILED, failure=broken.failure)


def _answered(state: GraphState, name: str, broken: Broken, answer: event_pb2.InputGiven) -> Step:
    """The same try again, excused, or none."""
    last = broken.last
    if not answer.approved:
        return Settle(name, FAILED, failure=holds.refused_turn(broken))
    if state.paused:
        return Await() if state.trying else Wait(session_pb2.SESSION_STATUS_PAUSED)
    effect = effects.renewed(last.effect) if last.effect is not None else None
    return Begin(name, last.agent, last.attempt, fallback=last.fallback, effect=effect)


def _worth_another(broken: Broken) -> bool:
    """What may pass; and an unknown outcome, which is asked for again under its key."""
    return broken.failure.retryable or (
        broken.last.effect is not None and broken.failure.reason == Reason.ERROR_REASON_TOOL_OUTCOME_UNKNOWN
    )


def _start(state: GraphState, name: str) -> Step:
    """What becomes of a node whose dependencies have all ended."""
    node = state.nodes[name]
    try:
        return _settled(state, node) or _at_work(state, node)
    except ConditionFailed as error:
        return Settle(name, FAILED, failure=error.failure())


def _settled(state: GraphState, node: task_graph_pb2.TaskNode) -> Settle | None:
    """What ends without an agent. Raises ConditionFailed."""
    if skipped := _skipped(state, node):
        return skipped
    if not aggregate.is_pure(node):
        return None
    found = [state.results[before] for before in completed(state, node.id)]
    return Settle(node.id, COMPLETED, aggregate.combined(node, found))


def _at_work(state: GraphState, node: task_graph_pb2.TaskNode) -> Step:
    """Raises ConditionFailed when an argument of a tool cannot be computed."""
    if len(state.trying) >= state.graph.max_parallel_tasks:
        return Await()
    if state.paused:
        return Await() if state.trying else Wait(session_pb2.SESSION_STATUS_PAUSED)
    if node.tool:
        wanted, before = state.depends_on[node.id], state.effects.get(node.id)
        effect = effects.reserved(state.graph.id, node, state.results, depends_on=wanted, before=before)
        return Begin(node.id, node.agent, effect=effect)
    room = MAX_NODES - len(state.nodes)
    grown = aggregate.reducers(node, taken=completed(state, node.id), room=room)
    if grown and not any(made.id in state.nodes for made in grown.nodes):
        return Grow(grown)
    return Begin(node.id, node.agent)


def completed(state: GraphState, name: str) -> list[str]:
    """The dependencies of a node that completed, in its own order."""
    return [before for before in state.depends_on[name] if state.results[before].status == COMPLETED]


def _skipped(state: GraphState, node: task_graph_pb2.TaskNode) -> Settle | None:
    """Set when the node is not to run. Raises ConditionFailed."""
    wanted = state.depends_on[node.id]
    conditional = bool(node.condition)
    lost = [] if conditional else [name for name in wanted if name not in node.edge_conditions and _broke(state, name)]
    if lost:
        return Settle(node.id, SKIPPED, failure=_lost(state, lost[0]))
    if wanted and not conditional and not any(_taken(state, node, name) for name in wanted):
        return Settle(node.id, SKIPPED)
    if aggregate.is_pure(node) and not completed(state, node.id):
        return Settle(node.id, SKIPPED)
    if conditional and not conditions.holds(node.condition, state.results, node_id=node.id, depends_on=wanted):
        return Settle(node.id, SKIPPED)
    return None


def _broke(state: GraphState, name: str) -> bool:
    """A node that failed or was cancelled, or was skipped because of one that did."""
    result = state.results[name]
    return result.status in (FAILED, CANCELLED) or (result.status == SKIPPED and result.HasField("failure"))


def _lost(state: GraphState, name: str) -> failure_pb2.Failure:
    result = state.results[name]
    if result.HasField("failure"):
        return failure_pb2.Failure(
            reason=result.failure.reason,
            message=f"{name}, on which it depends, failed: {result.failure.message}"[:1000],
            metadata={**result.failure.metadata, "dependency": name},
        )
    return failure_pb2.Failure(
        reason=Reason.ERROR_REASON_SESSION_ENDED,
        message=f"{name}, on which it depends, was cancelled",
        metadata={"dependency": name},
    )


def _taken(state: GraphState, node: task_graph_pb2.TaskNode, name: str) -> bool:
    if expression := node.edge_conditions.get(name):
        return conditions.holds(expression, state.results, node_id=node.id, depends_on=(name,))
    return state.results[name].status == COMPLETED


def _end(state: GraphState) -> Finish:
    """A failed node fails the graph, unless something that ran depends on it: then it was dealt with."""
    for name, result in state.results.items():
        if result.status == FAILED and not _dealt_with(state, name):
            reason = FINAL.get(result.failure.reason, session_pb2.STOP_REASON_TURN_FAILED)
            return Finish(session_pb2.SESSION_STATUS_FAILED, reason, result.failure)
    return Finish(session_pb2.SESSION_STATUS_COMPLETED, session_pb2.STOP_REASON_GRAPH_ENDED)


def _dealt_with(state: GraphState, name: str) -> bool:
    return any(state.results[after].status == COMPLETED for after in state.dependents.get(name, ()))


def _poisoned() -> Finish:
    failure = failure_pb2.Failure(
        reason=Reason.ERROR_REASON_SESSION_POISONED, message="the graph was taken over too often and is set aside"
    )
    return Finish(session_pb2.SESSION_STATUS_FAILED, session_pb2.STOP_REASON_POISONED, failure)
