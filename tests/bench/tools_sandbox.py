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
from pathlib import Path

import uvloop

from services.tools.answer import Status
from services.tools.gvisor import GvisorSandbox
from services.tools.orders import FunctionCall
from services.tools.sandbox import Backend, Sandbox

ROUNDS = 300
SLOW_ROUNDS = 30
AT_ONCE = 4
TRIVIAL = "def f():\n  return 1\n"
SPIN = "def f():\n  while True: pass\n"

Timed = Callable[[], Awaitable[None]]


def call(code: str = TRIVIAL, *, seconds: float = 30) -> FunctionCall:
    return FunctionCall(code, "f", {}, 512, timedelta(seconds=seconds))


async def run(sandbox: Backend, wanted: FunctionCall) -> Status:
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


async def trivial(sandbox: Backend) -> None:
    assert await run(sandbox, call()) is Status.OK


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


def inside(sandbox: Sandbox) -> float:
    """Seconds of processor time of the program that forks and of all that it forked."""
    parents = {int(stat.parent.name): stat.read_text() for stat in Path("/proc").glob("[0-9]*/stat")}
    assert sandbox._jail is not None
    pid = sandbox._jail._process.pid
    for _ in range(2):  # bubblewrap's own two processes
        pid = next(child for child, text in parents.items() if int(text.rpartition(")")[2].split()[1]) == pid)
    words = parents[pid].rpartition(")")[2].split()
    return sum(int(word) for word in words[11:15]) / os.sysconf("SC_CLK_TCK")


async def processor(sandbox: Sandbox, warm: Timed) -> str:
    """What a call costs of the processor, which other work on the machine changes least."""
    before, own = inside(sandbox), time.process_time()
    await times(warm, ROUNDS)
    outer, began = (time.process_time() - own) * 1000 / ROUNDS, os.times()
    within = (inside(sandbox) - before) * 1000 / ROUNDS
    await times(lambda: plain(sys.executable, "-c", "pass"), SLOW_ROUNDS)
    ended = os.times()
    floor = (ended.children_user + ended.children_system - began.children_user - began.children_system) * 1000
    return (
        f"processor ms a call: {outer + within:.2f} ({outer:.2f} in the service), the floor {floor / SLOW_ROUNDS:.2f}"
    )


async def measured() -> None:
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores, uid {os.geteuid()}\n")
    print("| what | p50 ms | p99 ms |\n|---|---|---|")
    print(told("plain `python3 -c pass` (the floor)", await times(lambda: plain(sys.executable, "-c", "pass"), 100)))
    if shutil.which("runsc"):
        async with GvisorSandbox(at_once=1) as kernel:
            print(told("gVisor, a container for each call", await times(lambda: trivial(kernel), SLOW_ROUNDS)))
    print(told("cold: outer sandbox and first call", await times(cold, SLOW_ROUNDS)))
    async with Sandbox(at_once=AT_ONCE) as sandbox:

        async def warm() -> None:
            await trivial(sandbox)

        await warm()
        print(told("warm: a trivial function", await times(warm, ROUNDS)))
        print(told("the same beside a function that spins", await neighbour(sandbox, warm)))
        print(f"\n{await processor(sandbox, warm)}")
        print(f"calls/s, {2 * AT_ONCE} callers, {AT_ONCE} at once: {await rate(sandbox):.0f}")


def main() -> None:
    uvloop.run(measured())


if __name__ == "__main__":
    main()
