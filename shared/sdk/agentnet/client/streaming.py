"""A run as six kinds of events: over one agent, a session or a graph, always the same loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from agentnet.client.graph import TaskGraph
from agentnet.client.mesh import AgentNet
from agentnet.common.v1 import error_reason_pb2, failure_pb2
from agentnet.orchestrator.v1 import event_pb2


class StreamEventType(StrEnum):
    """What an event is about."""

    LLM_CHUNK = "llm_chunk"
    TOOL_START = "tool_start"
    TOOL_END = "tool_end"
    PROGRESS = "progress"
    PARTIAL_RESULT = "partial_result"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """One event. `sequence` is its place in the run's log, `trace_id` the trace of the work that wrote it."""

    event_type: StreamEventType
    timestamp: datetime
    data: dict[str, Any]
    sequence: int = 0
    trace_id: str = ""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool that has ended."""

    name: str
    arguments: str
    result: str
    failed: bool


async def run_stream(mesh: AgentNet, subject: str | TaskGraph, prompt: str = "") -> AsyncIterator[StreamEvent]:
    """Runs an agent (`Athena`) on a prompt, or a graph; or, without a prompt, follows a session by its id.

    Ends with the run. A run that fails ends with an ERROR event that is not recoverable. Raises AgentNetError.
    """
    async for event in mesh.sessions.watch(await _started(mesh, subject, prompt)):
        if (shown := stream_event(event)) is not None:
            yield shown


async def stream_text(mesh: AgentNet, subject: str | TaskGraph, prompt: str = "") -> AsyncIterator[str]:
    """Only the text, as it comes."""
    async for event in run_stream(mesh, subject, prompt):
        if event.event_type is StreamEventType.LLM_CHUNK:
            yield event.data["text"]


async def stream_tool_calls(mesh: AgentNet, subject: str | TaskGraph, prompt: str = "") -> AsyncIterator[ToolCall]:
    """Only the calls of tools, each when it has ended."""
    asked: dict[str, str] = {}
    async for event in run_stream(mesh, subject, prompt):
        key = event.data.get("request_id", "")
        if event.event_type is StreamEventType.TOOL_START:
            asked[key] = event.data["arguments"]
        elif event.event_type is StreamEventType.TOOL_END:
            data = event.data
            yield ToolCall(data["tool_name"], asked.pop(key, ""), data["result"], bool(data["error"]))


def stream_event(event: event_pb2.SessionEvent) -> StreamEvent | None:
    """An event of a log as one of the six kinds; None for what is none of them."""
    kind = event.WhichOneof("payload") or ""
    told = _TOLD.get(kind)
    shown = told(event) if told else None
    if shown is None:
        return None
    event_type, data = shown
    return StreamEvent(event_type, event.time.ToDatetime(UTC), data, event.sequence, event.trace_id)


async def _started(mesh: AgentNet, subject: str | TaskGraph, prompt: str) -> str:
    if isinstance(subject, TaskGraph):
        return (await mesh.task_graphs.execute(subject)).session_id
    if not prompt:
        return subject
    return (await mesh.sessions.start(prompt, agents=[subject], mode="single")).id


Told = tuple[StreamEventType, dict[str, Any]]


def _chunk(event: event_pb2.SessionEvent) -> Told:
    tokens = event.tokens_produced
    agent = event.actor.removeprefix("agent:")
    data = {"text": tokens.text, "agent": agent, "turn_id": tokens.turn_id, "tokens": tokens.token_count}
    return StreamEventType.LLM_CHUNK, data


def _tool_start(event: event_pb2.SessionEvent) -> Told:
    started = event.tool_started
    return StreamEventType.TOOL_START, {
        "tool_name": started.tool,
        "arguments": started.call.arguments,
        "request_id": started.call.request_id,
        "turn_id": started.turn_id,
    }


def _tool_end(event: event_pb2.SessionEvent) -> Told:
    finished = event.tool_finished
    return StreamEventType.TOOL_END, {
        "tool_name": finished.call.tool,
        "result": finished.outcome.result,
        "error": _failure(finished.failure) if finished.HasField("failure") else None,
        "duration_ms": finished.outcome.duration.ToNanoseconds() / 1e6,
        "request_id": finished.call.request_id,
        "turn_id": finished.turn_id,
    }


def _progress(event: event_pb2.SessionEvent) -> Told:
    made = event.progressed
    return StreamEventType.PROGRESS, {
        "iteration": made.iteration or made.round,
        "max_iterations": made.max_iterations or made.max_rounds,
        "input_tokens": made.usage.input_tokens,
        "output_tokens": made.usage.output_tokens,
        "cost_micros_usd": made.cost_micros_usd,
    }


def _partial(event: event_pb2.SessionEvent) -> Told:
    return StreamEventType.PARTIAL_RESULT, {"content": event.partial_result.content, "agent": ""}


def _turn(event: event_pb2.SessionEvent) -> Told:
    turn = event.turn_finished.turn
    return StreamEventType.PARTIAL_RESULT, {"content": turn.content, "agent": turn.agent, "turn_id": turn.id}


def _task(event: event_pb2.SessionEvent) -> Told:
    result = event.task_finished.result
    return StreamEventType.PARTIAL_RESULT, {"content": result.output, "agent": result.agent, "task": result.node_id}


def _interrupted(event: event_pb2.SessionEvent) -> Told:
    return StreamEventType.ERROR, {**_failure(event.turn_interrupted.failure), "recoverable": True}


def _task_interrupted(event: event_pb2.SessionEvent) -> Told:
    return StreamEventType.ERROR, {**_failure(event.task_interrupted.failure), "recoverable": True}


def _finished(event: event_pb2.SessionEvent) -> Told | None:
    session = event.session_finished.session
    if not session.HasField("failure"):
        return None
    return StreamEventType.ERROR, {**_failure(session.failure), "recoverable": False}


def _failure(failure: failure_pb2.Failure) -> dict[str, Any]:
    reason = error_reason_pb2.ErrorReason.Name(failure.reason).removeprefix("ERROR_REASON_")
    return {"reason": reason, "message": failure.message}


_TOLD: dict[str, Callable[[event_pb2.SessionEvent], Told | None]] = {
    "tokens_produced": _chunk,
    "tool_started": _tool_start,
    "tool_finished": _tool_end,
    "progressed": _progress,
    "partial_result": _partial,
    "turn_finished": _turn,
    "task_finished": _task,
    "turn_interrupted": _interrupted,
    "task_interrupted": _task_interrupted,
    "session_finished": _finished,
}
