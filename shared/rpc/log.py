"""The interceptor that writes one line a call, with its ids, its code and its time."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Any, Final, TypeAlias

import grpc
from structlog.contextvars import clear_contextvars

from shared.log import bind_call, log
from shared.rpc.trace import adopt
from shared.telemetry import meter

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

REQUEST_ID: Final = "x-request-id"
# A caller's own id may be anything; what is kept of it ends here.
LONGEST_REQUEST_ID: Final = 64
SESSION_ID: Final = "x-agentnet-session-id"
_NAMES: Final = {code.value[0]: code.name for code in grpc.StatusCode}
_QUIET: Final = "/grpc.health."

_logger: Final = logging.getLogger("agentnet")
_request_id: ContextVar[str] = ContextVar("request_id", default="")
_session_id: ContextVar[str] = ContextVar("session_id", default="")

_latency = meter.create_histogram(
    "rpc_server_latency_ms", unit="ms", description="time from call to end, by method and code"
)


def entered(given: Iterable[tuple[str, str | bytes]]) -> float:
    """Binds the call's trace, request and session id for all that happens from here on; when it was."""
    clear_contextvars()
    metadata = {key: value for key, value in given if isinstance(value, str)}
    request_id = metadata.get(REQUEST_ID, "")[:LONGEST_REQUEST_ID] or secrets.token_hex(16)
    session_id = metadata.get(SESSION_ID, "")
    _request_id.set(request_id)
    _session_id.set(session_id)
    bind_call(request_id=request_id, session_id=session_id)
    adopt(metadata)
    return time.perf_counter()


def finished(method: str, context: Context, began: float) -> None:
    """Logs the end of a call that was entered then."""
    elapsed_ms, code = (time.perf_counter() - began) * 1000, _code(context)
    _latency.record(elapsed_ms, {"method": method, "code": code})
    quiet = method.startswith(_QUIET)
    if quiet and not _logger.isEnabledFor(logging.DEBUG):
        return
    level = log.debug if quiet else log.info
    level("rpc.finished", method=method, code=code, elapsed_ms=round(elapsed_ms, 2))


def request_id() -> str:
    """The id of the call being served; empty outside one."""
    return _request_id.get()


def session_id() -> str:
    """The session the call belongs to; empty outside one."""
    return _session_id.get()


def enter_session(session: str, *, request: str) -> None:
    """For background work on a session: calls and logs from here on carry its ids."""
    _session_id.set(session)
    _request_id.set(request)
    bind_call(request_id=request, session_id=session)


def _code(context: Context) -> str:
    code: object = context.code()
    if isinstance(code, grpc.StatusCode):
        return code.name
    return _NAMES.get(code, "UNKNOWN") if isinstance(code, int) else "OK"
