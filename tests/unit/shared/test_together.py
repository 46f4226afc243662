"""Works that run together end together, also one that loses a cancellation, as calls of Redis may on Python 3.11."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from shared.tasks import together


class Deaf:
    """Work that does not hear its first cancellation."""

    ended = False

    async def work(self) -> None:
        try:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
            await asyncio.sleep(60)
        finally:
            self.ended = True


async def test_what_loses_a_cancellation_is_cancelled_again() -> None:
    deaf = Deaf()
    task = asyncio.create_task(together(deaf.work(), asyncio.sleep(60)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    async with asyncio.timeout(5):
        with pytest.raises(asyncio.CancelledError):
            await task
    assert deaf.ended


async def test_one_that_fails_ends_the_others() -> None:
    async def fails() -> None:
        raise ValueError("broken")

    deaf = Deaf()
    async with asyncio.timeout(5):
        with pytest.raises(ValueError, match="broken"):
            await together(deaf.work(), fails())
    assert deaf.ended
