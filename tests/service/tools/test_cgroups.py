"""Calls in groups of their own, where a host delegates them: on its counterpart everywhere, on the kernel's where one is."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from services.tools.answer import Outcome, Status
from services.tools.cgroups import Group, Groups, KernelFiles, Share
from services.tools.isolation import PROGRAMS
from services.tools.orders import FunctionCall, ProgramCall
from services.tools.sandbox import Sandbox
from tests.support.cgroupfs import CgroupFiles

ROOT = Path("/delegated")
KERNELS = [
    Path(line.split()[1]) for line in Path("/proc/mounts").read_text().splitlines() if line.split()[2] == "cgroup2"
]
SECONDS = timedelta(seconds=2)


@pytest.fixture
def files() -> CgroupFiles:
    return CgroupFiles(ROOT, "cpu", "io", "memory", "pids")


@pytest.fixture
def groups(files: CgroupFiles) -> Groups:
    found = Groups.delegated(str(ROOT), files)
    assert found is not None
    return found


def function(body: str) -> FunctionCall:
    return FunctionCall(f"def f():\n  {body}\n", "f", {}, 128, SECONDS)


async def ran(sandbox: Sandbox, body: str) -> Outcome:
    return await sandbox.run(function(body), lambda *_: None)


async def occupied(files: CgroupFiles) -> Path:
    """The group of the call that runs."""
    async with asyncio.timeout(5):
        while not (found := [path for path, folder in files.folders.items() if folder.pids]):
            await asyncio.sleep(0.01)
    return found[0]


async def gone(files: CgroupFiles, groups: Groups) -> bool:
    for _ in range(40):
        groups.close()
        if list(files.folders) == [ROOT]:
            return True
        await asyncio.sleep(0.05)
    return False


async def test_each_call_has_a_group_with_its_limits_and_the_result_says_so(files: CgroupFiles, groups: Groups) -> None:
    async with Sandbox(at_once=2, groups=groups) as sandbox:
        outcomes = await asyncio.gather(*(ran(sandbox, "return 1") for _ in range(3)))
    assert {(one.result, one.isolation) for one in outcomes} == {(1, "bubblewrap+seccomp+rlimits+cgroup")}
    assert await gone(files, groups)
    assert len(files.kept) == 3
    for values in files.kept.values():
        limits = {name: values[name] for name in ("memory.max", "memory.swap.max", "pids.max", "cpu.max")}
        assert limits == {
            "memory.max": str((128 + 48) << 20), "memory.swap.max": "0", "pids.max": "1", "cpu.max": "100000 100000",
        }  # fmt: skip


async def test_a_program_and_all_it_starts_share_one_group(files: CgroupFiles, groups: Groups) -> None:
    call = ProgramCall(["/bin/sh", "-c", "sleep 1 & sleep 1 & wait"], 64, 7, SECONDS)
    async with Sandbox(at_once=1, profile=PROGRAMS, groups=groups) as sandbox:
        outcome = await sandbox.run(call, lambda *_: None)
    assert outcome.status is Status.OK
    assert [values["pids.max"] for values in files.kept.values()] == ["7"]


async def test_the_process_is_in_its_group_before_it_reads_its_order(files: CgroupFiles, groups: Groups) -> None:
    async with Sandbox(at_once=1, groups=groups) as sandbox:
        running = asyncio.create_task(ran(sandbox, "import time; time.sleep(0.4); return 1"))
        (pid,) = files.folders[await occupied(files)].pids
        # It is the sandbox's: its namespace of processes is not ours.
        assert os.readlink(f"/proc/{pid}/ns/pid") != os.readlink("/proc/self/ns/pid")
        assert (await running).result == 1


async def test_who_takes_too_much_as_a_whole_is_told_so(files: CgroupFiles, groups: Groups) -> None:
    """The kernel kills the group and counts it; that is a limit and no crash."""
    async with Sandbox(at_once=1, groups=groups) as sandbox:
        began = asyncio.Event()
        body = function("import time; print('on', flush=True); time.sleep(60)")
        running = asyncio.create_task(sandbox.run(body, lambda *_: began.set()))
        await began.wait()
        path = await occupied(files)
        files.folders[path].values["memory.events"] = "low 0\nhigh 0\nmax 9\noom 1\noom_kill 1\n"
        files.write(path / "cgroup.kill", "1")
        assert (await running).status is Status.MEMORY_LIMIT


@pytest.mark.parametrize(
    ("controllers", "inside"),
    [(("cpu", "memory"), ()), ((), ()), (("memory", "pids"), (1,)), (("memory", "pids"), (1, os.getpid()))],
    ids=["no pids", "none", "another's", "shared"],
)
async def test_without_delegation_limits_are_by_process_and_the_result_says_so(
    controllers: tuple[str, ...], inside: tuple[int, ...]
) -> None:
    groups = Groups.delegated(str(ROOT), CgroupFiles(ROOT, *controllers, inside=inside))
    assert groups is None
    async with Sandbox(at_once=1, groups=groups) as sandbox:
        assert (await ran(sandbox, "return 1")).isolation == "bubblewrap+seccomp+rlimits"


def test_a_folder_that_is_not_there_delegates_nothing(tmp_path: Path) -> None:
    assert Groups.delegated(str(tmp_path / "none")) is None
    (tmp_path / "own").write_text("12:pids:/x\n1:name=systemd:/y\n")
    assert Groups.delegated("auto", own=tmp_path / "own") is None


def test_the_service_leaves_its_own_folder_so_that_it_can_be_divided(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("1:pids:/elsewhere\n0::/slice/tools\n")
    files = CgroupFiles(ROOT / "slice/tools", "memory", "pids", inside=(os.getpid(),))
    assert Groups.delegated("auto", files, own=tmp_path / "own", mount=ROOT) is not None
    assert files.folders[ROOT / "slice/tools/service"].pids == {os.getpid()}
    assert files.folders[ROOT / "slice/tools"].handed_down == {"memory", "pids"}


def test_a_group_that_cannot_be_limited_is_not_used(files: CgroupFiles, groups: Groups) -> None:
    with pytest.raises(OSError, match="no such process"):
        groups.group(Share(64, 1), 2**22 - 1)
    assert list(files.folders) == [ROOT]


@pytest.fixture
def kernel() -> Iterator[Path]:
    place = next((path / f"agentnet-test-{os.getpid()}" for path in KERNELS if os.access(path, os.W_OK)), None)
    if place is None:
        pytest.skip("this host lets nobody make a group of cgroup v2")
    place.mkdir()
    yield place
    place.rmdir()


def test_the_kernels_own_group_takes_a_process_and_ends_it(kernel: Path) -> None:
    """What a host without controllers can show: processes, their end, and that a group in use is not removed."""
    leaving: list[Path] = []
    (kernel / "call").mkdir()
    with subprocess.Popen(["sleep", "60"]) as process:
        files = KernelFiles()
        files.write(kernel / "call" / "cgroup.procs", str(process.pid))
        assert files.read(kernel / "call" / "cgroup.procs").split() == [str(process.pid)]
        with pytest.raises(OSError):
            files.remove(kernel / "call")
        with pytest.raises(OSError):
            files.write(kernel / "call" / "no.such.file", "1")
        Group(kernel / "call", files, leaving).end()
        assert process.wait(timeout=5) == -9
    for place in leaving:
        place.rmdir()
    assert not (kernel / "call").exists()
