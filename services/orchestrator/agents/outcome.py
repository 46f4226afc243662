"""What an event of a log means beyond its session: an execution of an agent, and news for the bus. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from agentnet.common.v1 import failure_pb2, usage_pb2
from agentnet.orchestrator.v1 import event_pb2, execution_pb2, session_pb2, task_graph_pb2
from shared.errors import Reason

Event = event_pb2.SessionEvent
_SIGNALS: Final = {"pause": "session.paused", "resume": "session.resumed"}


@dataclass(frozen=True, slots=True)
class News:
    """What the bus is told. The id is made of the event, so that telling it twice is harmless."""

    id: str
    name: str
    time: datetime
    subject: str = ""
    session_id: str = ""
    agent: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)


def execution(context: Sequence[Event]) -> execution_pb2.AgentExecution | None:
    """What the last event of a context says an agent did; None when it says nothing of the kind."""
    last = context[-1]
    match last.WhichOneof("payload"):
        case "turn_finished":
            turn = last.turn_finished.turn
            made = _execution(context, turn.id, turn.id, turn.attempt, turn.agent)
            made.usage.CopyFrom(turn.usage)
            made.cost_micros_usd = turn.cost.micros_usd
            if turn.HasField("time_to_first_token"):
                made.time_to_first_token.CopyFrom(turn.time_to_first_token)
            made.success = not turn.HasField("failure")
            if turn.HasField("failure"):
                made.failure.CopyFrom(turn.failure)
        case "turn_interrupted":
            broken = last.turn_interrupted
            agent = last.actor.removeprefix("agent:")
            made = _execution(context, broken.turn_id, broken.turn_id, broken.attempt, agent)
            made.failure.CopyFrom(broken.failure)
            made.usage.CopyFrom(broken.usage)
            made.cost_micros_usd = broken.cost.micros_usd
        case "task_interrupted":
            task = last.task_interrupted
            made = _task(context, task.node_id)
            made.failure.CopyFrom(task.failure)
            made.usage.CopyFrom(task.usage)
            made.cost_micros_usd = task.cost_micros_usd
        case "task_finished" if last.task_finished.result.agent:
            made = _finished_task(context, last.task_finished.result)
        case _:
            return None
    return made if made.agent and made.HasField("start_time") else None


def news(context: Sequence[Event]) -> Sequence[News]:
    """What the bus is told of the last event of a context."""
    tells = _NEWS.get(context[-1].WhichOneof("payload") or "")
    return tells(context[-1], context) if tells else []


def _turn(last: Event, _context: Sequence[Event]) -> Sequence[News]:
    turn = last.turn_finished.turn
    data = {
        "round": turn.round,
        "attempt": turn.attempt,
        "cost_micros_usd": turn.cost.micros_usd,
        "input_tokens": turn.usage.input_tokens,
        "output_tokens": turn.usage.output_tokens,
    }
    return [_news(last, "turn.completed", subject=turn.id, agent=turn.agent, data=data)]


def _broken(last: Event, _context: Sequence[Event]) -> Sequence[News]:
    turn, task = last.turn_interrupted, last.task_interrupted
    failure = turn.failure if last.HasField("turn_interrupted") else task.failure
    agent = last.actor.removeprefix("agent:")
    return [_news(last, "agent.error", subject=turn.turn_id or task.node_id, agent=agent, data=_why(failure))]


def _verdict(last: Event, _context: Sequence[Event]) -> Sequence[News]:
    found = last.monitor_verdict
    data = {name: getattr(found, name) for name in ("rule", "bundle", "action", "severity", "target")}
    return [_news(last, "violation.raised", subject=found.turn_id, data=data)]


def _used(last: Event, context: Sequence[Event]) -> Sequence[News]:
    used = last.tool_finished
    data = {"turn_id": used.turn_id, "tool": _tool(context, used), "ok": not used.failure.reason}
    return [_news(last, "tool.invoked", subject=used.invocation_id, data=data)]


def _passed(last: Event, _context: Sequence[Event]) -> Sequence[News]:
    passed = last.handed_off
    data = {name: getattr(passed, name) for name in ("source", "target", "reason")}
    return [_news(last, "agent.handoff", subject=passed.target, agent=passed.source, data=data)]


def _signal(last: Event, _context: Sequence[Event]) -> Sequence[News]:
    name = _SIGNALS.get(last.signal_received.signal)
    return [_news(last, name, subject=last.session_id)] if name else []


def _started(last: Event, _context: Sequence[Event]) -> Sequence[News]:
    session = last.session_started.session
    data = {"mode": session.mode, "agents": list(session.agents)}
    told = [_news(last, "session.started", subject=session.id, data=data)]
    given = session.delegated
    if given.delegation_id:
        passed = {"source": given.source, "target": given.target, "reason": given.reason, "id": given.delegation_id}
        told.append(
            _news(last, "agent.handoff", subject=given.target, agent=given.target, data=passed, part="-handoff")
        )
    return told


def _ended(last: Event, _context: Sequence[Event]) -> Sequence[News]:
    session = last.session_finished.session
    status = session_pb2.SessionStatus.Name(session.status).removeprefix("SESSION_STATUS_").lower()
    why = session_pb2.StopReason.Name(session.stop_reason).removeprefix("STOP_REASON_").lower()
    data = {"status": status, "stop_reason": why, "rounds": session.rounds_executed, "converged": session.converged,
            "cost_micros_usd": session.cost_micros_usd, **_why(session.failure)}  # fmt: skip
    told = [_news(last, "session.finished", subject=session.id, data=data)]
    if session.stop_reason == session_pb2.STOP_REASON_BUDGET_EXHAUSTED:
        told.append(_news(last, "budget.exhausted", subject=session.id, data=_why(session.failure), part="-budget"))
    return told


_NEWS: Final[Mapping[str, Callable[[Event, Sequence[Event]], Sequence[News]]]] = {
    "session_started": _started,
    "session_finished": _ended,
    "turn_finished": _turn,
    "turn_interrupted": _broken,
    "task_interrupted": _broken,
    "monitor_verdict": _verdict,
    "tool_finished": _used,
    "handed_off": _passed,
    "signal_received": _signal,
}


def _news(
    last: Event, name: str, *, subject: str, data: Mapping[str, Any] | None = None, agent: str = "", part: str = ""
) -> News:
    identifier = f"{last.session_id}-{last.sequence}{part}"
    return News(identifier, name, last.time.ToDatetime(UTC), subject, last.session_id, agent, data or {})


def _why(failure: failure_pb2.Failure) -> dict[str, Any]:
    if not failure.reason:
        return {}
    return {"reason": Reason.Name(failure.reason).removeprefix("ERROR_REASON_"), "message": failure.message}


def _execution(
    context: Sequence[Event], key: str, turn_id: str, attempt: int, agent: str
) -> execution_pb2.AgentExecution:
    """An execution as far as the log has it in common for all kinds."""
    last = context[-1]
    made = execution_pb2.AgentExecution(
        id=f"{key}-{attempt}", agent=agent, session_id=last.session_id, turn_id=turn_id, attempt=attempt
    )
    made.end_time.CopyFrom(last.time)
    for event in context:
        began = event.turn_started
        if event.HasField("turn_started") and (began.turn_id, began.attempt) == (key, attempt):
            made.start_time.CopyFrom(event.time)
    made.tools.extend(_tools(context, key, made))
    verdicts = (event.monitor_verdict for event in context if event.HasField("monitor_verdict"))
    made.violations.extend(sorted({found.rule for found in verdicts if found.turn_id == key}))
    return made


def _task(context: Sequence[Event], node_id: str) -> execution_pb2.AgentExecution:
    """The last try of a node."""
    begun = [event for event in context if event.HasField("task_started") and event.task_started.node_id == node_id]
    if not begun:
        return execution_pb2.AgentExecution()
    start = begun[-1].task_started
    made = _execution(context, start.turn_id, node_id, start.attempt, start.agent)
    made.start_time.CopyFrom(begun[-1].time)
    return made


def _finished_task(context: Sequence[Event], result: task_graph_pb2.TaskResult) -> execution_pb2.AgentExecution:
    """The last try: what its node spent without what its earlier tries did, which are executions of their own."""
    made = _task(context, result.node_id)
    made.success = result.status == task_graph_pb2.TASK_STATUS_COMPLETED
    made.usage.CopyFrom(result.usage)
    made.cost_micros_usd = result.cost_micros_usd
    for broken in (event.task_interrupted for event in context if event.HasField("task_interrupted")):
        if broken.node_id == result.node_id:
            made.usage.input_tokens -= broken.usage.input_tokens
            made.usage.output_tokens -= broken.usage.output_tokens
            made.cost_micros_usd -= broken.cost_micros_usd
    if not made.success:
        made.failure.CopyFrom(result.failure)
    return made


def _tools(
    context: Sequence[Event], turn_id: str, made: execution_pb2.AgentExecution
) -> Sequence[execution_pb2.ToolTally]:
    """Calls of the turn in this try, summed up by tool."""
    began: dict[str, tuple[str, datetime]] = {}
    used: dict[str, list[tuple[Reason.ValueType, timedelta]]] = defaultdict(list)
    since = made.start_time.ToDatetime(UTC)
    for event in context:
        if event.HasField("tool_started") and event.tool_started.turn_id == turn_id:
            began[effect(event.tool_started)] = (event.tool_started.tool, event.time.ToDatetime(UTC))
        elif event.HasField("tool_finished") and effect(event.tool_finished) in began:
            tool, at = began[effect(event.tool_finished)]
            if at >= since:
                used[tool].append((event.tool_finished.failure.reason, event.time.ToDatetime(UTC) - at))
    return [tool_use(tool, calls) for tool, calls in sorted(used.items())]


def tool_use(tool: str, calls: Sequence[tuple[Reason.ValueType, timedelta]]) -> execution_pb2.ToolTally:
    """Calls of one tool summed up: why each failed, if it did, and how long it took."""
    made = execution_pb2.ToolTally(tool=tool, calls=len(calls), failures=sum(bool(reason) for reason, _ in calls))
    made.breaker_refusals = sum(reason == Reason.ERROR_REASON_TOOL_CIRCUIT_OPEN for reason, _ in calls)
    made.elapsed.FromTimedelta(sum((took for _, took in calls), timedelta()))
    return made


def effect(event: event_pb2.ToolStarted | event_pb2.ToolFinished) -> str:
    """What joins a call's end to its start: only the end knows what tools named the invocation."""
    return event.call.request_id or event.invocation_id


def _tool(context: Sequence[Event], used: event_pb2.ToolFinished) -> str:
    started = (event.tool_started for event in context if event.HasField("tool_started"))
    return used.call.tool or next((found.tool for found in started if effect(found) == effect(used)), "")


def summed(uses: Sequence[execution_pb2.ToolTally]) -> Sequence[execution_pb2.ToolTally]:
    """Uses of several executions by tool."""
    sums: dict[str, execution_pb2.ToolTally] = {}
    for use in uses:
        known = sums.setdefault(use.tool, execution_pb2.ToolTally(tool=use.tool))
        known.calls, known.failures = known.calls + use.calls, known.failures + use.failures
        known.breaker_refusals += use.breaker_refusals
        known.elapsed.FromTimedelta(known.elapsed.ToTimedelta() + use.elapsed.ToTimedelta())
    return [sums[tool] for tool in sorted(sums)]


def usage_of(input_tokens: int, output_tokens: int) -> usage_pb2.Usage:
    """Tokens of many executions."""
    return usage_pb2.Usage(input_tokens=input_tokens, output_tokens=output_tokens)
