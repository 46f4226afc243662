"""What a session's log tells beside the talk, a line an event: who signalled, answered, planned, handed over."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from agentnet.orchestrator.v1 import event_pb2


def aside(event: event_pb2.SessionEvent) -> str:
    """The line, or nothing for what has no line of its own."""
    told = _LINES.get(event.WhichOneof("payload") or "")
    return told(event) if told else ""


def _reduced(event: event_pb2.SessionEvent) -> str:
    cut = event.prompt_reduced
    parts = " and ".join(cut.parts)
    return f"  {parts} made shorter: about {cut.tokens_before} tokens would have been, {cut.tokens_after} are"


def _signal(event: event_pb2.SessionEvent) -> str:
    given = event.signal_received
    return f"{' '.join(filter(None, (given.signal, given.target)))}, by {event.actor}"


def _answer(event: event_pb2.SessionEvent) -> str:
    given = event.input_given
    if given.expired:
        return "nobody answered in time: refused"
    allowed = "approved" if given.approved else "refused"
    said = f"{given.answer} (approved)" if given.answer and given.approved else given.answer
    return f"answered: {said or allowed}"


def _handed(event: event_pb2.SessionEvent) -> str:
    return f"{event.handed_off.source} hands over to {event.handed_off.target}: {event.handed_off.reason}"


def _plan(event: event_pb2.SessionEvent) -> str:
    return f"{event.plan_made.planner} plans: {', '.join(node.id for node in event.plan_made.nodes)}"


_LINES: Final[Mapping[str, Callable[[event_pb2.SessionEvent], str]]] = {
    "prompt_reduced": _reduced,
    "signal_received": _signal,
    "input_given": _answer,
    "handed_off": _handed,
    "plan_made": _plan,
    "message_injected": lambda event: f"{event.message_injected.sender}: {event.message_injected.content}",
    "points_contested": lambda event: f"contested: {'; '.join(event.points_contested.points) or 'nothing any more'}",
    "session_forked": lambda event: f"forked: from here on it is {event.session_forked.session.id}",
}
