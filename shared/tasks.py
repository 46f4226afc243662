"""The task supervisor: background work that is started again when it fails, and ends with its service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from shared.log import log

_FIRST_PAUSE_SECONDS: Final = 0.1
_LONGEST_PAUSE_SECONDS: Final = 5.0
_CANCEL_AGAIN_SECONDS: Final = 0.2

Work = Callable[[], Coroutine[Any, Any, None]]


@asynccontextmanager
async def supervised(name: str, work: Work) -> AsyncIterator[None]:
    """Runs `work` beside the block: started again, ever more slowly, when it fails; cancelled when the block ends."""
    task = asyncio.create_task(_forever(name, work), name=name)
    try:
        yield
    finally:
        await stopped(task)


async def stopped(*tasks: asyncio.Task[None]) -> None:
    """Cancels tasks until they end: `asyncio.wait_for` of Python 3.11 loses a cancellation that meets a result."""
    while left := [task for task in tasks if not task.done()]:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=_CANCEL_AGAIN_SECONDS)


async def together(*works: Coroutine[Any, Any, None]) -> None:
    """Runs all until one fails or this is cancelled; then cancels the others until they end. A TaskGroup cancels each
    once, which a call of Redis under way may lose on Python 3.11, and waits for ever.
    """
    tasks = [asyncio.create_task(work) for work in works]
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in ended:
            task.result()
    finally:
        while not all(task.done() for task in tasks):
            with suppress(asyncio.CancelledError):  # of who cancels this again meanwhile
                await stopped(*tasks)


async def _forever(name: str, work: Work) -> None:
    pause = _FIRST_PAUSE_SECONDS
    while True:
        began = asyncio.get_running_loop().time()
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - the task supervisor: nothing may end the service's own work
            log.warning("task.failed", task=name, error=f"{type(error).__name__}: {error}")
        if asyncio.get_running_loop().time() - began > _LONGEST_PAUSE_SECONDS:
            pause = _FIRST_PAUSE_SECONDS
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
