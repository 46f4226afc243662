"""Sessions that went on without getting anywhere, as policy's register of risks hears of them."""

from __future__ import annotations

from typing import Final

from agentnet.orchestrator.v1 import session_pb2
from shared.risks import CONVERGENCE_STALL, Happened

_CUT_OFF: Final = (session_pb2.STOP_REASON_MAX_ROUNDS, session_pb2.STOP_REASON_LIMIT_REACHED)


def stalled(session: session_pb2.Session) -> Happened | None:
    """A session that stagnated, or was to converge and had not when its rounds or a cap ran out. One round alone cannot
    converge.
    """
    cut_off = session.stop_reason in _CUT_OFF and session.rounds_executed > 1 and session.convergence_policy.enabled
    if session.stop_reason != session_pb2.STOP_REASON_STAGNATED and not cut_off:
        return None
    detail = {
        "stop_reason": session_pb2.StopReason.Name(session.stop_reason).removeprefix("STOP_REASON_"),
        "rounds": str(session.rounds_executed),
        "mode": session.mode,
    }
    return Happened(CONVERGENCE_STALL, session_id=session.id, detail=detail)
