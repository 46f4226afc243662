"""What a node came to: the events that tell it, by the part the node plays."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from agentnet.common.v1 import failure_pb2
from agentnet.inference.v1 import generation_pb2
from agentnet.orchestrator.v1 import event_pb2, task_event_pb2, task_graph_pb2
from services.orchestrator.errors import GraphInvalid, TaskOutputInvalid, TaskRejected
from services.orchestrator.graphs import conditions, effects, planning
from services.orchestrator.graphs.schedule import Settle
from services.orchestrator.graphs.state import COMPLETED, FAILED, GraphState, Trying, together
from services.orchestrator.peers import ToolAnswer

Event = event_pb2.SessionEvent
Ended = generation_pb2.GenerationFinished | generation_pb2.GenerationFailed
_ACCEPTED: Final = "PASS"
_TOOL_CHARACTERS: Final = 65_536


def answered(
    state: GraphState,
    node_id: str,
    finished: generation_pb2.GenerationFinished,
    *,
    agents: Mapping[str, str],
    now: datetime,
) -> list[Event]:
    """The events after an agent has spoken to its end: the node ends, well or rejected, or its try was in vain.

    `agents` are those a planner may name, each with its pinned version.
    """
    trying, node = state.trying[node_id], state.nodes[node_id]
    result = _result(node_id, trying, now)
    result.usage.CopyFrom(together(trying.usage, finished.usage))
    result.cost_micros_usd += finished.cost.micros_usd
    before: list[Event] = []
    if planning.plans(node):
        try:
            grown = planning.grown(state, node_id, trying.text, agents)
        except GraphInvalid as error:
            fault = TaskOutputInvalid(f"no valid plan: {error.message}"[:1000], node_id=node_id)
            fault.facts.update(error.facts)
            return [broke_off(node_id, trying, fault.failure(), spent=finished)]
        before = [Event(graph_grown=grown, actor=f"agent:{trying.agent}")]
    elif node.kind == task_graph_pb2.TASK_KIND_VALIDATOR and not _passed(trying.text):
        result.status = FAILED
        rejected = TaskRejected("the validator rejected it", node_id=node_id)
        result.failure.CopyFrom(rejected.failure())
    return [*before, _finished(result, f"agent:{trying.agent}")]


def called(state: GraphState, node_id: str, answer: ToolAnswer, *, now: datetime) -> Event:
    """The event of a node whose tool has answered."""
    trying = state.trying[node_id]
    result = _result(node_id, trying, now)
    result.output = answer.result[:_TOOL_CHARACTERS]
    result.effect.outcome = effects.DONE
    result.effect.invocation_id, result.effect.replayed = answer.invocation_id, answer.replayed
    return _finished(result, actor(trying))


def actor(trying: Trying) -> str:
    """Whose a try is, as events name it."""
    return f"agent:{trying.agent}" if trying.agent else "mesh"


def broke_off(node_id: str, trying: Trying, failure: failure_pb2.Failure, *, spent: Ended | None = None) -> Event:
    """The event of a try that broke off, and what it spent all the same."""
    broke = task_event_pb2.TaskInterrupted(node_id=node_id, turn_id=trying.turn_id, failure=failure)
    if spent is not None:
        broke.usage.CopyFrom(spent.usage)
        broke.cost_micros_usd = spent.cost.micros_usd
    return Event(task_interrupted=broke, actor=actor(trying))


def settled(state: GraphState, step: Settle, *, now: datetime, spent: Ended | None = None) -> Event:
    """The event of a node that ended without an agent's answer, and what its last try spent all the same."""
    broken = state.interrupted.get(step.node_id)
    last = broken.last if broken else state.trying.get(step.node_id)
    result = _result(step.node_id, last, now) if last else task_graph_pb2.TaskResult(node_id=step.node_id)
    result.status = step.status
    result.output = step.output or (last.text if last else "")
    if spent is not None:
        result.usage.CopyFrom(together(result.usage, spent.usage))
        result.cost_micros_usd += spent.cost.micros_usd
    if step.node_id in state.trying and result.HasField("effect"):
        result.effect.CopyFrom(effects.after(result.effect, None))
    if step.failure is not None:
        result.failure.CopyFrom(step.failure)
        if state.checkpoint_id:
            result.failure.metadata["last_checkpoint_id"] = state.checkpoint_id
    return _finished(result, "mesh")


def with_progress(state: GraphState, event: Event) -> Event:
    """The event, knowing how far the graph will be with it."""
    if event.HasField("task_finished"):
        result = event.task_finished.result
        progress = state.progress
        progress.ended += 1
        progress.failed += result.status == FAILED
        progress.running -= result.node_id in state.trying or result.node_id in state.interrupted
        event.task_finished.progress.CopyFrom(progress)
    return event


def running(node_id: str, trying: Trying, now: datetime) -> task_graph_pb2.TaskResult:
    """What a node at work has come to so far."""
    result = _result(node_id, trying, now)
    result.status = task_graph_pb2.TASK_STATUS_RUNNING
    return result


def _result(node_id: str, last: Trying, now: datetime) -> task_graph_pb2.TaskResult:
    result = task_graph_pb2.TaskResult(
        node_id=node_id,
        agent=last.agent,
        status=COMPLETED,
        output=last.text,
        retries=last.retries,
        usage=last.usage,
        cost_micros_usd=last.cost_micros_usd,
    )
    result.elapsed.FromTimedelta(now - last.first_started_at)
    if last.effect is not None:
        result.effect.CopyFrom(last.effect)
    return result


def _finished(result: task_graph_pb2.TaskResult, actor: str) -> Event:
    return Event(task_finished=task_event_pb2.TaskFinished(result=result), actor=actor)


def _passed(answer: str) -> bool:
    data = conditions.parsed(answer)
    if isinstance(data, dict) and "valid" in data:
        return data["valid"] is True
    return answer.lstrip("*# \n").upper().startswith(_ACCEPTED)
