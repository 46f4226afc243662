"""Code that wants out of the sandbox, each case run in it, and what must hold after every one."""

from __future__ import annotations

import asyncio
import os
import socket
import textwrap
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.tools.answer import Status
from services.tools.sandbox import FunctionCall, Outcome, Sandbox

CASES: list[dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("attacks.yaml").read_text())
SECRET = "canary-4f1c"
ESCAPED = Path("/tmp/escape_canary")
LIMIT = timedelta(seconds=3)
ROOT = Path(__file__).resolve().parents[3]


def call(body: str, *, limit: timedelta = LIMIT) -> FunctionCall:
    code = "def main():\n" + textwrap.indent(body.replace("$WORK", str(ROOT)), "  ") + "\n"
    return FunctionCall(code=code, entry_point="main", arguments={}, memory_mib=512, timeout=limit)


class Printed:
    """Keeps what a function prints."""

    def __init__(self) -> None:
        self.text = ""

    def __call__(self, _stream: str, text: str) -> None:
        self.text += text


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A service on the host's loopback that nothing may reach."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        yield server


def contacted(server: socket.socket) -> bool:
    try:
        server.accept()[0].close()
    except BlockingIOError:
        return False
    return True


def settings_of_the_host() -> list[object]:
    """What root may change without any capability, when the sandbox leaves it within reach."""
    files = [Path("/proc/sys/kernel", name) for name in ("core_pattern", "hostname", "modprobe", "panic")]
    return [
        *(file.read_text() for file in files if file.exists()),
        *(Path("/dev", name).stat().st_mode for name in ("null", "zero", "full", "random", "urandom")),
    ]


def descendants() -> set[int]:
    """Every process below this one."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if words[0] != "Z":
            parents[int(stat.parent.name)] = int(words[1])
    found, before = {os.getpid()}, 0
    while len(found) != before:
        before = len(found)
        found |= {child for child, parent in parents.items() if parent in found}
    return found - {os.getpid()}


async def nothing_left(before: set[int]) -> bool:
    for _ in range(40):
        if not descendants() - before:
            return True
        await asyncio.sleep(0.05)
    return False


@asynccontextmanager
async def contained(listener: socket.socket, monkeypatch: pytest.MonkeyPatch, body: str) -> AsyncIterator[Outcome]:
    monkeypatch.setenv("CANARY_SECRET", SECRET)
    monkeypatch.setenv("CANARY_PORT", str(listener.getsockname()[1]))
    before, began, printed, settings = descendants(), time.monotonic(), Printed(), settings_of_the_host()
    sandbox = Sandbox(at_once=2)
    outcome, probe = await asyncio.gather(
        sandbox.run(call(body), printed), sandbox.run(call("return 'benign'"), Printed())
    )
    assert time.monotonic() - began < LIMIT.total_seconds() + 2
    assert (probe.status, probe.result) == (Status.OK, "benign"), "another call suffered"
    assert SECRET not in repr((outcome, printed.text)), "a secret of the service was read"
    assert not contacted(listener), "the host's loopback was reached"
    assert not ESCAPED.exists(), "a file of the host was written"
    assert settings_of_the_host() == settings, "a setting of the host was changed"
    assert outcome.isolation == "bubblewrap+seccomp+rlimits"
    yield outcome
    assert await nothing_left(before), "a process outlived its call"


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
async def test_an_attack_is_contained(
    case: dict[str, Any], listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with contained(listener, monkeypatch, case["body"]) as outcome:
        assert outcome.status in case["ends"], (case["check"], outcome)
        if case["id"].startswith(("kern-", "dev-")) and outcome.status is Status.OK:
            assert outcome.result[0] == -1, (case["check"], outcome)


async def test_no_code_of_the_service_is_visible() -> None:
    outcome = await Sandbox(at_once=1).run(call("import os\nreturn os.path.exists('$WORK')"), Printed())
    assert (outcome.status, outcome.result) == (Status.OK, False)


async def test_no_installed_package_is_visible() -> None:
    body = "import sys, glob\nreturn [x for p in sys.path for x in glob.glob(p + '/*-packages/*')]"
    outcome = await Sandbox(at_once=1).run(call(body), Printed())
    assert (outcome.status, outcome.result) == (Status.OK, [])


async def test_the_device_families_of_the_network_are_closed() -> None:
    case = next(case for case in CASES if case["id"] == "net-netlink-vsock-alg")
    assert (await Sandbox(at_once=1).run(call(case["body"]), Printed())).result == []


async def test_only_the_functions_own_pipes_and_the_runners_socket_are_open() -> None:
    body = (
        "import os\nplaces = ['/proc/self/fd/' + n for n in os.listdir('/proc/self/fd')]\n"
        "return [os.readlink(place).partition(':')[0] for place in places if os.path.islink(place)]"
    )
    outcome = await Sandbox(at_once=1).run(call(body), Printed())
    assert sorted(outcome.result) == ["pipe", "pipe", "pipe", "socket"]


async def test_only_the_sandboxs_own_processes_are_seen() -> None:
    outcome = await Sandbox(at_once=1).run(
        call("import os\nreturn [p for p in os.listdir('/proc') if p.isdigit()]"), Printed()
    )
    assert len(outcome.result) == 2


async def test_the_function_has_no_capabilities_and_may_gain_none() -> None:
    body = (
        "status = dict(line.split(':\\t') for line in open('/proc/self/status').read().splitlines() if ':\\t' in line)\n"
        "return [int(status[k], 16) for k in ('CapEff', 'CapPrm', 'CapInh', 'CapBnd', 'CapAmb')]"
        " + [status['Seccomp'], status['NoNewPrivs']]"
    )
    outcome = await Sandbox(at_once=1).run(call(body), Printed())
    assert outcome.result == [0, 0, 0, 0, 0, "2", "1"]


async def test_the_environment_is_the_sandboxs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY_SECRET", SECRET)
    outcome = await Sandbox(at_once=1).run(call("import os\nreturn sorted(os.environ)"), Printed())
    assert outcome.result == ["LANG", "PWD", "PYTHONDONTWRITEBYTECODE"]


async def test_memory_outside_the_limit_cannot_be_had() -> None:
    """Shared memory, files in memory and System V segments are not counted by the address space limit."""
    body = (
        "import ctypes\nlibc = ctypes.CDLL(None)\nreturn [libc.shmget(0, 1 << 30, 0o1600), libc.memfd_create(b'x', 0)]"
    )
    outcome = await Sandbox(at_once=1).run(call(body), Printed())
    assert outcome.result == [-1, -1]


async def test_nothing_but_the_scratch_folder_can_be_written() -> None:
    body = (
        "import os\nplaces = ('/', '/proc', '/dev', '/dev/shm', '/usr/lib', '/sandbox', '/tmp')\n"
        "return [p for p in places if not os.statvfs(p).f_flag & os.ST_RDONLY]"
    )
    assert (await Sandbox(at_once=1).run(call(body), Printed())).result == ["/tmp"]


async def test_devices_still_work() -> None:
    body = "open('/dev/null', 'w').write('x')\nreturn len(open('/dev/urandom', 'rb').read(8))"
    assert (await Sandbox(at_once=1).run(call(body), Printed())).result == 8


async def test_a_call_cancelled_at_any_moment_ends_and_leaves_nothing() -> None:
    """Until bubblewrap has set up its inner process, that one does not die with the outer."""
    sandbox, before, descriptors = Sandbox(at_once=1), descendants(), len(list(Path("/proc/self/fd").iterdir()))
    for milliseconds in range(0, 40, 1):
        running = asyncio.create_task(sandbox.run(call("import time\ntime.sleep(60)"), Printed()))
        await asyncio.sleep(milliseconds / 1000)
        running.cancel()
        done, _ = await asyncio.wait([running], timeout=5)
        assert done, f"a call cancelled after {milliseconds} ms hangs"
        assert running.cancelled()
    assert (await sandbox.run(call("return 7"), Printed())).result == 7
    assert await nothing_left(before)
    assert len(list(Path("/proc/self/fd").iterdir())) <= descriptors + 4


async def test_a_call_leaves_nothing_for_the_next() -> None:
    sandbox = Sandbox(at_once=1)
    body = "import os\nfound = os.listdir('/tmp')\nopen('/tmp/mark', 'w').close()\nreturn found"
    assert [(await sandbox.run(call(body), Printed())).result for _ in range(2)] == [[], []]
