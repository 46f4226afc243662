"""Logs are events with fields, one JSON object a line; request and session come from the call, secrets never."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import MutableMapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

import structlog
from opentelemetry import trace
from structlog.contextvars import bind_contextvars, merge_contextvars, unbind_contextvars

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger("agentnet")

_SECRET_WORDS: Final = ("password", "secret", "token", "authorization", "api_key", "credential", "dsn", "private_key")
_SAFE_SUFFIXES: Final = ("tokens", "token_count", "_id", "_present")
_REDACTED: Final = "[redacted]"
_LEVELS: Final = {"warn": "warning", "exception": "error"}
_encode: Final = json.JSONEncoder(default=repr).encode

Event = MutableMapping[str, Any]


def configure(service: str, level: str, *, bridge: structlog.typing.Processor | None = None) -> None:
    """Sends every log of the process, ours and libraries', to stdout as JSON; a bridge sees each of them too."""
    chain: list[structlog.typing.Processor] = [merge_contextvars, _completed(service), *([bridge] if bridge else [])]
    rendered: list[structlog.typing.Processor] = [structlog.processors.format_exc_info, _written]
    structlog.configure(
        # Ours are written at once: through the standard library's handlers a line takes three times the time.
        processors=[*chain, *rendered],
        logger_factory=_Output,
        # What the level drops is dropped before anything is made of it.
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        cache_logger_on_first_use=True,
    )
    vars(log).pop("bind", None)  # the logger made for the configuration before
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


class _Output:
    """Standard output, whichever it is when a line is written."""

    def __init__(self, *_: object) -> None:
        pass

    def write(self, line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    debug = info = warning = error = critical = exception = msg = write


def _completed(service: str) -> structlog.typing.Processor:
    """What every line has, added in one step: several would be the better part of what a line costs."""

    def complete(_logger: object, method: str, event: Event) -> Event:
        for key in event:
            if _secret(key):
                event[key] = _REDACTED
        event["level"] = _LEVELS.get(method, method)
        event["timestamp"] = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        event["service"] = service
        context = trace.get_current_span().get_span_context()
        if context.is_valid:
            event["trace_id"] = f"{context.trace_id:032x}"
        return event

    return complete


def _written(_logger: object, _method: str, event: Event) -> str:
    return _encode(event)


@lru_cache(maxsize=4096)
def _secret(key: str) -> bool:
    """Whether what goes by this name is never written."""
    return any(word in key.lower() for word in _SECRET_WORDS) and not key.endswith(_SAFE_SUFFIXES)
