"""Code that wants out of the sandbox, each case run in it, and what must hold after every one."""

from __future__ import annotations

import asyncio
import os
import socket
import textwrap
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.tools.answer import Outcome, Status
from services.tools.orders import FunctionCall
from services.tools.sandbox import Sandbox

CASES: list[dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("attacks.yaml").read_text())
SECRET = "canary-4f1c"
ESCAPED = Path("/tmp/escape_canary")
LIMIT = timedelta(seconds=3)
GRACE = timedelta(milliseconds=250)
LITTLE = 32 * 1024 * 1024
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


IN_FORCE = """
status = dict(line.split(':\\t') for line in open('/proc/self/status').read().splitlines() if ':\\t' in line)
import os
return [[int(status[k], 16) for k in ('CapEff', 'CapPrm', 'CapInh', 'CapBnd', 'CapAmb')], status['Seccomp'],
  status['NoNewPrivs'], os.getuid(), os.getpid(), os.uname().nodename, os.path.exists('$WORK')]
"""


async def guarded(sandbox: Sandbox) -> None:
    """No attack runs before the sandbox has shown that it stands."""
    found = await sandbox.run(call(IN_FORCE), Printed())
    if found.result != [[0, 0, 0, 0, 0], "2", "1", 65534, 1, "sandbox", False]:
        pytest.exit(f"the sandbox does not hold, so nothing is tried on it: {found}", returncode=3)


def resident() -> int:
    """Bytes of memory of this process, which stands for the service."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def mounts() -> str:
    return Path("/proc/self/mountinfo").read_text()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


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


async def settled(few: int) -> bool:
    """Whether only so many processes are left after at most two seconds."""
    for _ in range(40):
        if len(descendants()) <= few:
            return True
        await asyncio.sleep(0.05)
    return False


@asynccontextmanager
async def contained(listener: socket.socket, monkeypatch: pytest.MonkeyPatch, body: str) -> AsyncIterator[Outcome]:
    monkeypatch.setenv("CANARY_SECRET", SECRET)
    monkeypatch.setenv("CANARY_PORT", str(listener.getsockname()[1]))
    printed, settings, mounted, outside = Printed(), settings_of_the_host(), mounts(), len(descendants())
    async with Sandbox(at_once=2) as sandbox:
        await guarded(sandbox)
        await asyncio.sleep(0.02)
        before, open_before, memory = len(descendants()), descriptors(), resident()
        outcome, probe = await asyncio.gather(
            sandbox.run(call(body), printed), sandbox.run(call("return 'benign'"), Printed())
        )
        assert outcome.elapsed <= LIMIT + GRACE, "the call returned too late"
        assert (probe.status, probe.result) == (Status.OK, "benign"), "another call suffered"
        assert SECRET not in repr((outcome, printed.text)), "a secret of the service was read"
        assert not contacted(listener), "the host's loopback was reached"
        assert not ESCAPED.exists(), "a file of the host was written"
        assert settings_of_the_host() == settings, "a setting of the host was changed"
        assert outcome.isolation == "bubblewrap+seccomp+rlimits"
        yield outcome
        assert await settled(before + 1), "a process outlived its call"
        assert descriptors() <= open_before, "a descriptor outlived its call"
        assert resident() < memory + LITTLE, "the service grew"
        assert mounts() == mounted, "a mount was left"
    assert await settled(outside), "a process outlived the sandbox"


async def answer_of(body: str, *, times: int = 1) -> list[object]:
    async with Sandbox(at_once=1) as sandbox:
        return [(await sandbox.run(call(body), Printed())).result for _ in range(times)]


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
async def test_an_attack_is_contained(
    case: dict[str, Any], listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with contained(listener, monkeypatch, case["body"]) as outcome:
        assert outcome.status in case["ends"], (case["check"], outcome)
        if case["id"].startswith(("kern-", "dev-", "ns-")) and outcome.status is Status.OK:
            assert outcome.result[0] == -1, (case["check"], outcome)


CLEAN = {
    "fs-remembered": [],
    "proc-host-files": [],
    "proc-others": ["1"],
    "py-gc-objects": [],
    "side-warm-pool-bleed": 1,
    "net-netlink-vsock-alg": [],
    "net-inherited-fd": None,
    "fs-devices": ["/dev/ptmx"],  # an instance of its own
    "res-timers": True,
    "arg-unicode-homoglyph": 1,
}


@pytest.mark.parametrize(("name", "wanted"), CLEAN.items(), ids=CLEAN)
async def test_an_attack_that_may_run_finds_nothing_however_often(name: str, wanted: object) -> None:
    case = next(case for case in CASES if case["id"] == name)
    first, second = await answer_of(case["body"], times=2)
    if name == "net-inherited-fd":
        assert [place.partition(":")[0] for _, place in first] == ["pipe"]  # type: ignore[attr-defined] # a list
        return
    assert (first, second) == (wanted, wanted)


async def test_no_two_calls_are_given_the_same_randomness() -> None:
    case = next(case for case in CASES if case["id"] == "side-random-fork-state")
    found = await answer_of(case["body"], times=100)
    assert len({value for one in found for value in one}) == 300  # type: ignore[attr-defined] # lists


async def test_no_code_of_the_service_is_visible() -> None:
    assert await answer_of("import os\nreturn os.path.exists('$WORK')") == [False]


async def test_no_installed_package_is_visible() -> None:
    body = "import sys, glob\nreturn [x for p in sys.path for x in glob.glob(p + '/*-packages/*')]"
    assert await answer_of(body) == [[]]


async def test_only_the_functions_own_pipes_are_open() -> None:
    body = (
        "import os\nplaces = ['/proc/self/fd/' + n for n in os.listdir('/proc/self/fd')]\n"
        "return [os.readlink(place).partition(':')[0] for place in places if os.path.islink(place)]"
    )
    assert sorted((await answer_of(body))[0]) == ["/dev/null", "pipe", "pipe", "pipe"]  # type: ignore[call-overload]


async def test_the_environment_is_the_sandboxs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY_SECRET", SECRET)
    assert await answer_of("import os\nreturn sorted(os.environ)") == [["LANG", "PWD", "PYTHONDONTWRITEBYTECODE"]]


async def test_memory_outside_the_limit_cannot_be_had() -> None:
    """Shared memory, files in memory and System V segments are not counted by the address space limit."""
    body = (
        "import ctypes\nlibc = ctypes.CDLL(None)\nreturn [libc.shmget(0, 1 << 30, 0o1600), libc.memfd_create(b'x', 0)]"
    )
    assert await answer_of(body) == [[-1, -1]]


async def test_nothing_but_the_scratch_folder_can_be_written() -> None:
    body = (
        "import os\nplaces = ('/', '/proc', '/dev', '/dev/shm', '/usr/lib', '/sandbox', '/tmp')\n"
        "return [p for p in places if not os.statvfs(p).f_flag & os.ST_RDONLY]"
    )
    assert await answer_of(body) == [["/tmp"]]


async def test_devices_still_work() -> None:
    body = "open('/dev/null', 'w').write('x')\nreturn len(open('/dev/urandom', 'rb').read(8))"
    assert await answer_of(body) == [8]


@pytest.mark.skipif(os.geteuid() != 0, reason="who is not root has one uid")
async def test_started_by_root_the_sandbox_is_a_user_that_owns_nothing() -> None:
    others = set(descendants())
    async with Sandbox(at_once=1) as sandbox:
        await sandbox.prepare()
        its = set(descendants()) - others
        uids = {Path(f"/proc/{pid}").stat().st_uid for pid in its}
        running = {line.split()[1] for pid in its for line in status_lines(pid, "Uid:")}
    assert running == {"1879050000"}
    assert uids <= {0, 1879050000}


def status_lines(pid: int, key: str) -> list[str]:
    return [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(key)]


async def test_a_call_cancelled_at_any_moment_ends_and_leaves_nothing() -> None:
    outside = len(descendants())
    async with Sandbox(at_once=1) as sandbox:
        for milliseconds in range(40):
            running = asyncio.create_task(sandbox.run(call("import time\ntime.sleep(60)"), Printed()))
            await asyncio.sleep(milliseconds / 1000)
            running.cancel()
            done, _ = await asyncio.wait([running], timeout=5)
            assert done, f"a call cancelled after {milliseconds} ms hangs"
            assert running.cancelled()
        assert (await sandbox.run(call("return 7"), Printed())).result == 7
        few = len(descendants())
        open_before = descriptors()
        assert (await sandbox.run(call("return 7"), Printed())).result == 7
        assert await settled(few + 1)
        assert descriptors() <= open_before
    assert await settled(outside)


async def test_a_sandbox_that_was_killed_is_replaced() -> None:
    async with Sandbox(at_once=1) as sandbox:
        assert (await sandbox.run(call("return 1"), Printed())).result == 1
        for pid in descendants():
            with suppress(ProcessLookupError):
                os.kill(pid, 9)
        await asyncio.sleep(0.1)
        assert (await sandbox.run(call("return 2"), Printed())).result == 2
