"""The same graphs as durable workflows of DBOS on Postgres; run by the python of a venv of its own, prints JSON."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Coroutine
from typing import Any

from dbos import DBOS, DBOSConfig

LAYERS = (1, 16, 16, 16, 1)


@DBOS.step()
async def answer(seconds: float) -> str:
    if seconds:
        await asyncio.sleep(seconds)
    return "done"


@DBOS.workflow()
async def chain(count: int) -> int:
    for _ in range(count):
        await answer(0.0)
    return count


@DBOS.workflow()
async def layered(seconds: float) -> int:
    """Each layer after all of the one before."""
    for width in LAYERS:
        await asyncio.gather(*(answer(seconds) for _ in range(width)))
    return sum(LAYERS)


async def timed(workflow: Any, argument: float, times: int) -> float:
    began = time.perf_counter()
    handles = [await DBOS.start_workflow_async(workflow, argument) for _ in range(times)]
    await asyncio.gather(*(handle.get_result() for handle in handles))
    return time.perf_counter() - began


async def many(sessions: int, timing: Coroutine[Any, Any, float]) -> dict[str, float]:
    """Steps a second, and what one costs this process."""
    began = time.process_time()
    seconds = await timing
    cpu = time.process_time() - began
    return {"steps_per_second": sessions * 4 / seconds, "cpu_ms": cpu / (sessions * 4) * 1e3}


async def main(sessions: int) -> None:
    await timed(chain, 4, 1)
    found = {
        "sequential_ms": await timed(chain, 100, 1) / 100 * 1e3,
        **await many(sessions, timed(chain, 4, sessions)),
        "fan_out_ms": await timed(layered, 0.02, 1) * 1e3,
        "twenty_fan_outs_ms": await timed(layered, 0.02, 20) * 1e3,
    }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    config: DBOSConfig = {
        "name": "bench",
        "system_database_url": sys.argv[1],
        "run_admin_server": False,
        "log_level": "ERROR",
    }
    DBOS(config=config)
    DBOS.launch()
    try:
        asyncio.run(main(int(sys.argv[2])))
    finally:
        DBOS.destroy()
