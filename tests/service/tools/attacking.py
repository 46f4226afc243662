"""Attacks on the sandbox: the cases, how one is run, and what must hold after every one."""

from __future__ import annotations

import asyncio
import os
import socket
import textwrap
from collections.abc import AsyncIterator, Callable, Iterator, Sized
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.tools.answer import Outcome, Status
from services.tools.orders import FunctionCall
from services.tools.sandbox import Sandbox

Case = dict[str, Any]
SECRET = "canary-4f1c"
ESCAPED = Path("/tmp/escape_canary")
LIMIT = timedelta(seconds=3)
# Of attacks that may go on until they are cut.
SHORT = timedelta(seconds=1)
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


def cases(name: str) -> list[Case]:
    found: list[Case] = yaml.safe_load(Path(__file__).with_name(name).read_text())
    return found


@contextmanager
def listening() -> Iterator[socket.socket]:
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


def descriptors() -> list[Path]:
    return list(Path("/proc/self/fd").iterdir())


SERVERS = ("postgres", "valkey-server")


def descendants() -> set[int]:
    """Every process below this one, but the servers that this run's fixtures share and what is below those."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text().partition("(")[2].rpartition(")")
        except (FileNotFoundError, ProcessLookupError):
            continue
        words = rest.split()
        if words[0] != "Z" and not name.startswith(SERVERS):
            parents[int(stat.parent.name)] = int(words[1])
    found, before = {os.getpid()}, 0
    while len(found) != before:
        before = len(found)
        found |= {child for child, parent in parents.items() if parent in found}
    return found - {os.getpid()}


async def settled(few: int, count: Callable[[], Sized] = descendants) -> bool:
    """Whether only so many are left after at most two seconds."""
    for _ in range(40):
        if len(count()) <= few:
            return True
        await asyncio.sleep(0.05)
    return False


async def filled(sandbox: Sandbox) -> bool:
    """Whether all processes that wait for calls stand after at most five seconds."""
    for _ in range(250):
        if sandbox.full:
            return True
        await asyncio.sleep(0.02)
    return False


@dataclass(frozen=True, slots=True)
class Besieged:
    """The sandbox that all attacks of a file are tried on, one after the other, and the service none may reach."""

    sandbox: Sandbox
    listener: socket.socket


@asynccontextmanager
async def besieged() -> AsyncIterator[Besieged]:
    """Started with a secret of the service in its environment; whatever was tried, no process outlives it."""
    outside = len(descendants())
    with pytest.MonkeyPatch.context() as monkeypatch, listening() as listener:
        monkeypatch.setenv("CANARY_SECRET", SECRET)
        monkeypatch.setenv("CANARY_PORT", str(listener.getsockname()[1]))
        async with Sandbox(at_once=2) as sandbox:
            yield Besieged(sandbox, listener)
        assert await settled(outside), "a process outlived the sandbox"


@asynccontextmanager
async def contained(siege: Besieged, body: str, limit: timedelta) -> AsyncIterator[Outcome]:
    """The attack's outcome, with what must hold checked before and after the block."""
    sandbox, printed, settings, mounted = siege.sandbox, Printed(), settings_of_the_host(), mounts()
    await guarded(sandbox)
    assert await filled(sandbox), "a call that has ended is not replaced"
    before, open_before, memory = len(descendants()), len(descriptors()), resident()
    outcome, probe = await asyncio.gather(
        sandbox.run(call(body, limit=limit), printed), sandbox.run(call("return 'benign'"), Printed())
    )
    assert outcome.elapsed <= limit + GRACE, "the call returned too late"
    assert (probe.status, probe.result) == (Status.OK, "benign"), "another call suffered"
    assert SECRET not in repr((outcome, printed.text)), "a secret of the service was read"
    assert not contacted(siege.listener), "the host's loopback was reached"
    assert not ESCAPED.exists(), "a file of the host was written"
    assert settings_of_the_host() == settings, "a setting of the host was changed"
    assert outcome.isolation == "bubblewrap+seccomp+rlimits"
    yield outcome
    assert await filled(sandbox), "a call that has ended is not replaced"
    assert await settled(before), "a process outlived its call"
    assert await settled(open_before, descriptors), "a descriptor outlived its call"
    assert resident() < memory + LITTLE, "the service grew"
    assert mounts() == mounted, "a mount was left"


async def attack(siege: Besieged, case: Case) -> None:
    """Tries one and checks how it ended."""
    limit = SHORT if "TIMEOUT" in case["ends"] else LIMIT
    async with contained(siege, case["body"], limit) as outcome:
        assert outcome.status in case["ends"], (case["check"], outcome)
        assert "\x1b" not in outcome.message, (case["check"], outcome)
        assert outcome.result == case.get("result", outcome.result), (case["check"], outcome)
        if case["id"].startswith(("kern-", "dev-", "ns-")) and outcome.status is Status.OK:
            assert outcome.result[0] == -1, (case["check"], outcome)


async def answer_of(body: str, *, times: int = 1) -> list[object]:
    async with Sandbox(at_once=1) as sandbox:
        return [(await sandbox.run(call(body), Printed())).result for _ in range(times)]
