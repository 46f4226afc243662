"""Code that wants out of the sandbox, each case run in it, and what must hold after every one."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path

import pytest

from services.tools.sandbox import Sandbox
from tests.service.tools.attacking import (
    SECRET,
    Besieged,
    Case,
    Printed,
    answer_of,
    attack,
    call,
    cases,
    descendants,
    descriptors,
    filled,
    settled,
)

CASES = cases("attacks.yaml")


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
async def test_an_attack_is_contained(case: Case, siege: Besieged) -> None:
    await attack(siege, case)


CLEAN = {
    "fs-remembered": [],
    "proc-host-files": [],
    "proc-others": ["1"],
    "py-gc-objects": [],
    "side-warm-pool-bleed": 1,
    "net-netlink-vsock-alg": [],
    "net-inherited-fd": None,
    "fs-devices": [],
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
        assert await filled(sandbox)
        few = len(descendants())
        open_before = len(descriptors())
        assert (await sandbox.run(call("return 7"), Printed())).result == 7
        assert await filled(sandbox)
        assert await settled(few)
        assert await settled(open_before, descriptors)
    assert await settled(outside)


async def test_a_sandbox_that_was_killed_is_replaced() -> None:
    others = descendants()
    async with Sandbox(at_once=1) as sandbox:
        assert (await sandbox.run(call("return 1"), Printed())).result == 1
        for pid in descendants() - others:
            with suppress(ProcessLookupError):
                os.kill(pid, 9)
        await asyncio.sleep(0.1)
        assert (await sandbox.run(call("return 2"), Printed())).result == 2
