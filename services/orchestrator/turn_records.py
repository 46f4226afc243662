"""A turn as the JSON record other systems store: one shape, published as docs/schemas/turn.schema.json."""

from __future__ import annotations

from typing import Any, Final

from agentnet.orchestrator.v1 import turn_pb2

# Of the shape, not of the agent. A new field raises the minor number, any other change the major one.
VERSION: Final = "1.0.0"
_MICROS: Final = 1_000_000
_MILLIS_A_SECOND: Final = 1000
_NANOS_A_MILLISECOND: Final = 1e6


def record(turn: turn_pb2.Turn) -> dict[str, Any]:
    """The record of a finished turn. Instants are seconds since 1970; money is in US dollars."""
    name = turn.agent.partition("@")[0]
    started, completed = turn.start_time.ToMilliseconds(), turn.end_time.ToMilliseconds()
    return {
        "task_id": turn.id,
        "agent": name,
        "input": {"prompt": turn.prompt, "context": _context(turn.context)},
        "output": {
            "content": turn.content,
            "confidence": turn.confidence if turn.HasField("confidence") else None,
            "style_insights": list(turn.style_insights),
            "tokens": {"input": turn.usage.input_tokens, "output": turn.usage.output_tokens},
        },
        "monitors": [
            {
                "name": monitor.name,
                "status": monitor.status,
                "elapsed_ms": monitor.elapsed.ToNanoseconds() / _NANOS_A_MILLISECOND,
            }
            for monitor in turn.monitors
        ],
        "cost": {
            "provider": turn.cost.provider,
            "model": turn.cost.model,
            "usd": turn.cost.micros_usd / _MICROS,
        },
        "timing": {
            "started": started / _MILLIS_A_SECOND,
            "completed": completed / _MILLIS_A_SECOND,
            "latency_ms": completed - started,
        },
        "version": f"agent:{turn.agent}",
    }


def _context(context: turn_pb2.TurnContext) -> dict[str, Any]:
    return {
        "short_term": list(context.short_term),
        "semantic_refs": [{"id": found.id, "score": found.score} for found in context.semantic_refs],
        "episodic_refs": [{"id": found.id, "score": found.score} for found in context.episodic_refs],
    }
