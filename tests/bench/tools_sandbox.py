"""What a sandboxed call costs beside a plain subprocess: `python -m tests.bench.tools_sandbox` prints the table."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta

import uvloop

from services.tools.answer import Status
from services.tools.sandbox import FunctionCall, Sandbox

ROUNDS = 300
SLOW_ROUNDS = 30
AT_ONCE = 4
TRIVIAL = "def f():\n  return 1\n"
SPIN = "def f():\n  while True: pass\n"

Timed = Callable[[], Awaitable[None]]


def call(code: str = TRIVIAL, *, seconds: float = 30) -> FunctionCall:
    return FunctionCall(code, "f", {}, 512, timedelta(seconds=seconds))


async def run(sandbox: Sandbox, wanted: FunctionCall) -> Status:
    return (await sandbox.run(wanted, lambda _stream, _text: None)).status


async def times(once: Timed, rounds: int) -> list[float]:
    """Milliseconds of each round, sorted."""
    found = []
    for _ in range(rounds):
        began = time.perf_counter()
        await once()
        found.append((time.perf_counter() - began) * 1000)
    return sorted(found)


def told(name: str, found: list[float]) -> str:
    return f"| {name} | {found[len(found) // 2]:.2f} | {found[int(len(found) * 0.99)]:.2f} |"


async def plain(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL)
    assert await process.wait() == 0


async def cold() -> None:
    async with Sandbox(at_once=1) as sandbox:
        assert await run(sandbox, call()) is Status.OK


async def rate(sandbox: Sandbox, seconds: float = 3) -> float:
    """Trivial calls a second, eight callers."""
    done, end = 0, time.perf_counter() + seconds

    async def caller() -> None:
        nonlocal done
        while time.perf_counter() < end:
            assert await run(sandbox, call()) is Status.OK
            done += 1

    await asyncio.gather(*(caller() for _ in range(2 * AT_ONCE)))
    return done / seconds


async def neighbour(sandbox: Sandbox, warm: Timed) -> list[float]:
    """A tenant's calls while another tenant's function spins."""
    spinning = asyncio.create_task(run(sandbox, call(SPIN, seconds=2)))
    await asyncio.sleep(0.05)
    found = await times(warm, ROUNDS // 3)
    assert await spinning is Status.TIMEOUT
    return found


async def measured() -> None:
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores, uid {os.geteuid()}\n")
    print("| what | p50 ms | p99 ms |\n|---|---|---|")
    print(told("plain `python3 -c pass` (the floor)", await times(lambda: plain(sys.executable, "-c", "pass"), 100)))
    if runsc := shutil.which("runsc"):
        command = (runsc, "--network=none", "do", sys.executable, "-c", "pass")
        print(told("gVisor `runsc do python3 -c pass`", await times(lambda: plain(*command), SLOW_ROUNDS)))
    print(told("cold: outer sandbox and first call", await times(cold, SLOW_ROUNDS)))
    async with Sandbox(at_once=AT_ONCE) as sandbox:

        async def warm() -> None:
            assert await run(sandbox, call()) is Status.OK

        await warm()
        print(told("warm: a trivial function", await times(warm, ROUNDS)))
        print(told("the same beside a function that spins", await neighbour(sandbox, warm)))
        print(f"\ncalls/s, {2 * AT_ONCE} callers, {AT_ONCE} at once: {await rate(sandbox):.0f}")


def main() -> None:
    uvloop.run(measured())


if __name__ == "__main__":
    main()
