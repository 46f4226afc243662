"""A session in one answer: who said what and why, what policy did, what it cost, what went wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from agentnet.orchestrator.v1 import event_pb2, history_pb2, history_service_pb2, session_pb2, turn_pb2

_INCIDENTS: Final = frozenset(
    {"turn_interrupted", "failed_over", "session_taken_over", "signal_received", "session_forked"}
)

Event = event_pb2.SessionEvent


def audited(
    session: session_pb2.Session, turns: Sequence[turn_pb2.Turn], log: Sequence[Event]
) -> history_service_pb2.AuditSessionResponse:
    """All but the chain, which only the store can check."""
    speakers = {event.turn_started.turn_id: event.turn_started.agent for event in log if event.HasField("turn_started")}
    violations = [
        history_pb2.Violation(
            sequence=event.sequence,
            time=event.time,
            agent=speakers.get(event.monitor_verdict.turn_id, ""),
            verdict=event.monitor_verdict,
        )
        for event in log
        if event.HasField("monitor_verdict")
    ]
    incidents = [event for event in log if event.WhichOneof("payload") in _INCIDENTS]
    return history_service_pb2.AuditSessionResponse(
        session=session, turns=turns, violations=violations, costs=costs(turns), incidents=incidents
    )


def costs(turns: Sequence[turn_pb2.Turn]) -> list[history_pb2.CostLine]:
    """What was spent here, by agent and model: a copied turn was paid for in its own session."""
    lines: dict[tuple[str, str, str], history_pb2.CostLine] = {}
    for turn in turns:
        if turn.copied_from:
            continue
        key = (turn.agent, turn.cost.provider, turn.cost.model)
        agent, provider, model = key
        line = lines.setdefault(key, history_pb2.CostLine(agent=agent, provider=provider, model=model))
        line.turns += 1
        line.usage.input_tokens += turn.usage.input_tokens
        line.usage.output_tokens += turn.usage.output_tokens
        line.usage.cached_input_tokens += turn.usage.cached_input_tokens
        line.micros_usd += turn.cost.micros_usd
    return [lines[key] for key in sorted(lines)]
