"""The sandbox: what it gives, and what it keeps out of reach."""

from __future__ import annotations

from datetime import timedelta

import pytest

from services.tools.answer import Outcome, Status
from services.tools.orders import FunctionCall
from services.tools.sandbox import Sandbox


async def run(body: str, *, memory_mib: int = 256, seconds: float = 5) -> Outcome:
    code = "def f():\n" + "\n".join(f"    {line}" for line in body.splitlines())
    call = FunctionCall(code, "f", {}, memory_mib, timedelta(seconds=seconds))
    async with Sandbox(at_once=2) as sandbox:
        return await sandbox.run(call, lambda *_: None)


async def test_a_function_returns_its_result_and_the_isolation_that_ran() -> None:
    outcome = await run("return {'x': [1, 2]}")
    assert (outcome.status, outcome.result) == (Status.OK, {"x": [1, 2]})
    assert outcome.isolation == "bubblewrap+seccomp+rlimits"


@pytest.mark.parametrize(
    "body",
    [
        "return open('/etc/passwd').read()",
        "return open('/etc/shadow').read()",
        "import socket; return socket.socket() and 1",
        "import os; return os.fork()",
        "import subprocess; return subprocess.run(['true'])",
        "import os; return os.kill(1, 9) or os.mkdir('/here')",
        "return open('/usr/lib/x', 'w')",
        "import ctypes; l = ctypes.CDLL(None, use_errno=True); assert l.mount(0, b'/tmp', b'tmpfs', 0, 0) == 0",
    ],
    ids=["passwd", "shadow", "socket", "fork", "subprocess", "init", "write", "mount"],
)
async def test_the_host_is_out_of_reach(body: str) -> None:
    assert (await run(body)).status in (Status.USER_ERROR, Status.CRASHED, Status.DENIED)


async def test_nothing_of_the_environment_is_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY_SECRET", "tweet")
    outcome = await run("import os\nreturn [sorted(os.environ), os.getuid(), len(os.listdir('/proc')) < 80]")
    names, uid, alone = outcome.result
    assert "CANARY_SECRET" not in names
    assert uid == 65534
    assert alone


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("while True: pass", Status.TIMEOUT),
        ("x = [0] * 10**9", Status.MEMORY_LIMIT),
        ("while True: print('x' * 1000)", Status.OUTPUT_LIMIT),
        ("import ctypes; ctypes.string_at(0)", Status.CRASHED),
        ("raise ValueError('mine')", Status.USER_ERROR),
    ],
    ids=["time", "memory", "output", "crash", "error"],
)
async def test_a_limit_ends_the_function(body: str, status: Status) -> None:
    outcome = await run(body, seconds=1)
    assert outcome.status is status
    assert outcome.elapsed < timedelta(seconds=3)
