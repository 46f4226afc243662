"""One way to make a call: errors become AgentNetError, and a watch goes on where it broke off."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol, TypeVar

import grpc

from agentnet.client.errors import AgentNetError, from_rpc

Answer = TypeVar("Answer")
Item = TypeVar("Item", bound="Sequenced")

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 2.0
_BROKEN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)


class Sequenced(Protocol):
    """An event with a place in its stream."""

    @property
    def sequence(self) -> int: ...


async def unary(call: Awaitable[Answer]) -> Answer:
    """Awaits a call. Raises AgentNetError."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise from_rpc(error) from None


async def stream(call: Any) -> AsyncIterator[Any]:
    """Reads a stream to its end, once. Raises AgentNetError."""
    try:
        async for item in call:
            yield item
    except grpc.aio.AioRpcError as error:
        raise from_rpc(error) from None


async def resumed(
    open_at: Callable[[int], AsyncIterator[Item]],
    *,
    after: int,
    is_last: Callable[[Item], bool],
    patience_seconds: float,
) -> AsyncIterator[Item]:
    """Reads a stream of sequenced items, opening it again after the last one seen whenever it breaks.

    Ends after the item `is_last` names. Gives up with AgentNetError when nothing came for `patience_seconds`.
    """
    loop = asyncio.get_running_loop()
    heard_at, pause = loop.time(), _FIRST_PAUSE_SECONDS
    while True:
        try:
            async for item in open_at(after):
                heard_at, pause, after = loop.time(), _FIRST_PAUSE_SECONDS, item.sequence
                yield item
                if is_last(item):
                    return
        except AgentNetError as error:
            if error.code not in _BROKEN or error.reason == "INTERNAL" or loop.time() - heard_at > patience_seconds:
                raise
        await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - spreads load, protects nothing
        pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
