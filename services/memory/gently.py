"""Long work on many, a little at a time: what else the service does never waits long for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

_SLICE: Final = 0.005  # seconds

_Given = TypeVar("_Given")
_Made = TypeVar("_Made")


async def each(work: Callable[[_Given], _Made], many: Iterable[_Given]) -> list[_Made]:
    """What the work makes of each, in order. Others have their turn every five milliseconds."""
    made, since = list[_Made](), time.perf_counter()
    for one in many:
        made.append(work(one))
        if time.perf_counter() - since > _SLICE:
            await asyncio.sleep(0)
            since = time.perf_counter()
    return made
