"""Work that no cancellation may cut short: what was spent must be settled."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress


async def to_its_end(work: Coroutine[None, None, None]) -> None:
    """The work, whole; who is cancelled meanwhile is cancelled after it."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await finished(task)
        raise


async def finished(work: asyncio.Future[None]) -> None:
    """Waits for it; who is cancelled meanwhile hears nothing of that."""
    while not work.done():
        with suppress(asyncio.CancelledError):
            await asyncio.shield(work)
