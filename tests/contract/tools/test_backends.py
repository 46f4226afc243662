"""What the executors may rely on, whichever sandbox there is. gVisor is asked where `runsc` is on the path."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from services.tools.answer import Outcome, Status
from services.tools.errors import SandboxUnavailable
from services.tools.executor import Isolation
from services.tools.gvisor import GvisorSandbox
from services.tools.orders import FunctionCall
from services.tools.runtime import runtime_isolation
from services.tools.sandbox import Backend, Sandbox

LIMIT = timedelta(seconds=10)
NAMES = {Isolation.NAMESPACES: "bubblewrap+seccomp+rlimits", Isolation.GVISOR: "gvisor+seccomp+rlimits"}


@pytest.fixture(params=["bubblewrap", "gvisor"])
async def backend(request: pytest.FixtureRequest) -> AsyncIterator[Backend]:
    if request.param == "gvisor" and shutil.which("runsc") is None:
        pytest.skip("this host has no runsc")
    kind = {"bubblewrap": Sandbox, "gvisor": GvisorSandbox}[request.param]
    async with kind(at_once=2) as backend:
        await backend.prepare()
        yield backend


async def run(backend: Backend, body: str, *, limit: timedelta = LIMIT) -> tuple[Outcome, list[tuple[str, str]]]:
    code = "def f(x=1):\n" + "\n".join(f"    {line}" for line in body.splitlines())
    printed: list[tuple[str, str]] = []
    call = FunctionCall(code, "f", {"x": 2}, 256, limit)
    return await backend.run(call, lambda stream, text: printed.append((stream, text))), printed


async def test_a_result_comes_back_with_what_was_printed_and_what_really_ran(backend: Backend) -> None:
    outcome, printed = await run(backend, "print('out'); emit('half', [x]); return {'x': x}")
    assert (outcome.status, outcome.result, outcome.isolation) == (Status.OK, {"x": 2}, NAMES[backend.isolation])
    told = dict(printed)
    assert (told["stdout"], json.loads(told["emitted"])) == ("out\n", {"event": "half", "data": [2]})


ENDS = {
    "an error": ("raise ValueError('mine')", Status.USER_ERROR),
    "memory": ("return len([0] * 10**9)", Status.MEMORY_LIMIT),
    "output": ("while True: print('x' * 10_000)", Status.OUTPUT_LIMIT),
    "a large result": ("return 'x' * (1 << 21)", Status.OUTPUT_LIMIT),
    "a crash": ("import ctypes; ctypes.string_at(0)", Status.CRASHED),
    "an exit": ("import os; os._exit(0)", Status.CRASHED),
    "a process": ("import os; return os.fork()", Status.DENIED),
    "the network": ("import socket; socket.socket()", Status.DENIED),
    "the host": ("return open('/etc/passwd').read()", Status.USER_ERROR),
}


@pytest.mark.parametrize(("body", "status"), ENDS.values(), ids=ENDS.keys())
async def test_how_a_call_ends(backend: Backend, body: str, status: Status) -> None:
    assert (await run(backend, body))[0].status is status


@pytest.mark.parametrize("body", ["while True: pass", "import time; time.sleep(1e9)"])
async def test_a_call_ends_by_its_deadline_and_a_quarter_of_a_second(backend: Backend, body: str) -> None:
    limit = timedelta(seconds=3)
    outcome, _ = await run(backend, body, limit=limit)
    assert outcome.status is Status.TIMEOUT
    assert limit <= outcome.elapsed <= limit + timedelta(milliseconds=250)


async def test_nothing_of_the_environment_is_inside(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY_SECRET", "tweet")
    outcome, _ = await run(
        backend, "import os; return [os.getuid(), 'CANARY_SECRET' in os.environ, os.listdir('/tmp')]"
    )
    assert outcome.result == [65534, False, []]


async def test_a_call_leaves_nothing_for_the_next_or_the_one_beside_it(backend: Backend) -> None:
    body = "import os, builtins\nfound = [os.listdir('/tmp'), hasattr(builtins, 'L')]\nbuiltins.L = open('/tmp/x', 'w')\nreturn found"
    outcomes = await asyncio.gather(*(run(backend, body) for _ in range(3)))
    assert [outcome.result for outcome, _ in outcomes] == [[[], False]] * 3


async def test_what_a_call_asks_for_is_fetched_for_it(backend: Backend) -> None:
    asked: list[Any] = []

    async def fetch(request: Mapping[str, Any]) -> Mapping[str, Any]:
        asked.append(request["url"])
        return {"status": 200, "headers": {}, "body": "x" * 200_000}

    code = "def f():\n  return [len(fetch(u)['body']) for u in ('http://a/', 'http://b/')]\n"
    outcome = await backend.run(FunctionCall(code, "f", {}, 256, LIMIT, fetches=True), lambda *_: None, fetch)
    assert (outcome.status, outcome.result) == (Status.OK, [200_000] * 2)
    assert asked == ["http://a/", "http://b/"]


async def test_an_order_of_a_megabyte_arrives(backend: Backend) -> None:
    call = FunctionCall("def f(x):\n  return len(x)\n", "f", {"x": "y" * 1_000_000}, 256, LIMIT)
    assert (await backend.run(call, lambda *_: None)).result == 1_000_000


async def test_a_host_without_gvisor_runs_nothing() -> None:
    async with GvisorSandbox(at_once=1, runsc="/nowhere/runsc") as sandbox:
        await sandbox.prepare()
        with pytest.raises(SandboxUnavailable):
            await run(sandbox, "return 1")


CLASSES = [
    ("", "Linux version 6.1", "flags : fpu", Isolation.NONE),
    ("vm", "Linux version 6.1", "flags : fpu hypervisor sse", Isolation.VM),
    ("gvisor", "Linux version 4.4.0 #1 SMP Sun Jan 10 15:06:54 PST 2016", "flags : fpu", Isolation.GVISOR),
    ("vm", "Linux version 6.1", "flags : fpu", None),
    ("gvisor", "Linux version 6.1", "flags : fpu hypervisor", None),
]


@pytest.mark.parametrize(("named", "version", "cpuinfo", "wanted"), CLASSES)
def test_a_runtime_class_counts_only_where_it_can_be_seen(
    tmp_path: Path, named: str, version: str, cpuinfo: str, wanted: Isolation | None
) -> None:
    (tmp_path / "version").write_text(version)
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    if wanted is None:
        with pytest.raises(ValueError, match="does not run in it"):
            runtime_isolation(named, proc=tmp_path)
    else:
        assert runtime_isolation(named, proc=tmp_path) is wanted


async def test_a_runtime_class_is_around_every_call() -> None:
    async with Sandbox(at_once=1, inside=Isolation.VM) as sandbox:
        outcome, _ = await run(sandbox, "return 1")
        assert (sandbox.isolation, outcome.isolation) == (Isolation.VM, "vm+bubblewrap+seccomp+rlimits")
