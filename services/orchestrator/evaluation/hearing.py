"""A session heard to its end: what of it is judged, as a fold over its log."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from agentnet.orchestrator.v1 import event_pb2, session_pb2
from services.orchestrator.evaluation.judging import Observed, Said
from shared.errors import MeshError

_PREFIX: Final = "STOP_REASON_"
_NANOSECONDS: Final = 1e9


def after(found: Observed, event: event_pb2.SessionEvent) -> Observed:
    """What is known of a session after its next event."""
    match event.WhichOneof("payload"):
        case "session_started":
            return replace(found, agents=tuple(event.session_started.session.agents))
        case "turn_finished":
            turn = event.turn_finished.turn
            return replace(found, turns=(*found.turns, Said(turn.agent, turn.content)))
        case "monitor_verdict":
            return replace(found, violations=found.violations + 1)
        case "session_finished":
            return _ended(found, event.session_finished.session)
        case _:
            return found


def refused(error: MeshError) -> Observed:
    """A session that never began."""
    return Observed(failure=error.failure())


def _ended(found: Observed, session: session_pb2.Session) -> Observed:
    return replace(
        found,
        cost_micros_usd=session.cost_micros_usd,
        seconds=(session.end_time.ToNanoseconds() - session.start_time.ToNanoseconds()) / _NANOSECONDS,
        stop_reason=session_pb2.StopReason.Name(session.stop_reason).removeprefix(_PREFIX).lower(),
        failure=session.failure if session.HasField("failure") else None,
    )
