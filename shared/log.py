"""Logs are events with fields, one JSON object a line; request and session come from the call, secrets never."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from functools import lru_cache
from typing import Any, Final

import structlog
from opentelemetry import trace
from structlog.contextvars import bind_contextvars, merge_contextvars, unbind_contextvars

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger("agentnet")

_SECRET_WORDS: Final = ("password", "secret", "token", "authorization", "api_key", "credential", "dsn", "private_key")
_SAFE_SUFFIXES: Final = ("tokens", "token_count", "_id", "_present")
_REDACTED: Final = "[redacted]"

Event = MutableMapping[str, Any]


def configure(service: str, level: str, *, bridge: structlog.typing.Processor | None = None) -> None:
    """Sends every log of the process, ours and libraries', to stdout as JSON; a bridge sees each of them too."""
    chain: list[structlog.typing.Processor] = [
        merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_service(service),
        _add_trace,
        _redact,
        *([bridge] if bridge else []),
    ]
    rendered: list[structlog.typing.Processor] = [
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(),
    ]
    structlog.configure(
        # Ours are written at once: through the standard library's handlers a line takes three times the time.
        processors=[*chain, *rendered],
        logger_factory=lambda *_: structlog.WriteLogger(sys.stdout),
        # What the level drops is dropped before anything is made of it.
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=chain,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendered],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)


def bind_call(*, request_id: str, session_id: str | None) -> None:
    """Puts the call's ids on every log line that follows in this task. The correlation id is the session's."""
    bind_contextvars(request_id=request_id)
    if session_id:
        bind_contextvars(correlation_id=session_id, session_id=session_id)


def bind_session(session_id: str) -> None:
    """Puts a session on every log line that follows in this task."""
    bind_contextvars(correlation_id=session_id, session_id=session_id)


def unbind_session() -> None:
    """Takes the session off again."""
    unbind_contextvars("correlation_id", "session_id")


def _add_service(service: str) -> structlog.typing.Processor:
    def add(_logger: object, _method: str, event: Event) -> Event:
        event["service"] = service
        return event

    return add


def _add_trace(_logger: object, _method: str, event: Event) -> Event:
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = f"{context.trace_id:032x}"
    return event


def _redact(_logger: object, _method: str, event: Event) -> Event:
    for key in event:
        if _secret(key):
            event[key] = _REDACTED
    return event


@lru_cache(maxsize=4096)
def _secret(key: str) -> bool:
    """Whether what goes by this name is never written."""
    return any(word in key.lower() for word in _SECRET_WORDS) and not key.endswith(_SAFE_SUFFIXES)
