"""The interceptor that keeps a call within its caller's deadline, and hands what is left of it on."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, TypeAlias

import grpc

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

DEFAULT_UNARY = timedelta(seconds=30)

_ends_at: ContextVar[float | None] = ContextVar("deadline", default=None)


def within(context: Context, *, streaming: bool) -> asyncio.Timeout | None:
    """What cuts a unary call at its deadline (30 s without one) and a stream only at a deadline of its caller's."""
    remaining: float | None = context.time_remaining()
    if remaining is None and not streaming:
        remaining = DEFAULT_UNARY.total_seconds()
    if remaining is None:
        return None
    _ends_at.set(asyncio.get_running_loop().time() + remaining)
    return asyncio.timeout(remaining)


def remaining() -> float | None:
    """Seconds the call being served has left; None when it has no deadline."""
    end = _ends_at.get()
    return None if end is None else max(0.0, end - asyncio.get_running_loop().time())


def without_deadline() -> None:
    """For a task that goes on when the call that started it has ended."""
    _ends_at.set(None)
