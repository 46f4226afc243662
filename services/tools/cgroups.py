"""Limits that the kernel counts for a call as a whole: a control group (cgroup v2) each, where hosts delegate them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final, Protocol, Self

from shared.log import log

NAME: Final = "cgroup"
_NEEDED: Final = ("memory", "pids")
_USEFUL: Final = "cpu"
_MIB: Final = 1024 * 1024
# What is counted beside a call's own memory: its scratch folder, page tables, what the interpreter has already.
_BESIDE_MIB: Final = 48
_ONE_CORE: Final = "100000 100000"
_MOUNT: Final = Path("/sys/fs/cgroup")
_OWN: Final = Path("/proc/self/cgroup")


class Files(Protocol):
    """The control groups of a host, as its kernel shows them: folders whose files are there by themselves."""

    def make(self, group: Path) -> None:
        """Raises OSError."""

    def write(self, file: Path, text: str) -> None:
        """Raises OSError for what the kernel does not take, and where the file is not."""

    def read(self, file: Path) -> str:
        """Raises OSError."""

    def remove(self, group: Path) -> None:
        """Raises OSError while a process is in it."""


class KernelFiles:
    """Those of this host. No file is ever created: the kernel makes them."""

    def make(self, group: Path) -> None:
        group.mkdir()

    def write(self, file: Path, text: str) -> None:
        descriptor = os.open(file, os.O_WRONLY)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)

    def read(self, file: Path) -> str:
        return file.read_text()

    def remove(self, group: Path) -> None:
        group.rmdir()


@dataclass(frozen=True, slots=True)
class Share:
    """What a call may have, all its processes together."""

    memory_mib: int
    processes: int


class Groups:
    """The folder that was delegated, and a group in it for every call."""

    def __init__(self, root: Path, files: Files, *, cpu: bool) -> None:
        self._root = root
        self._files = files
        self._cpu = cpu
        self._numbers = count()
        self._leaving: list[Path] = []

    @classmethod
    def delegated(
        cls, named: str, files: Files | None = None, *, own: Path = _OWN, mount: Path = _MOUNT
    ) -> Self | None:
        """Those in the folder named, or with "auto" in this process's own group where it is alone in it.

        None, and the log says why, where the host does not delegate them: then limits are those of each process alone.
        """
        kernel = files or KernelFiles()
        try:
            root = Path(named) if named != "auto" else mount / _own_group(own.read_text()).lstrip("/")
            return cls(root, kernel, cpu=_USEFUL in _taken(root, kernel))
        except (OSError, ValueError) as error:
            log.info("sandbox.cgroups.none", why=str(error)[:200])
            return None

    def group(self, share: Share, pid: int) -> Group:
        """A new group with a process in it. Raises OSError."""
        self._sweep()
        place = self._root / f"call-{os.getpid()}-{next(self._numbers)}"
        self._files.make(place)
        group = Group(place, self._files, self._leaving)
        try:
            self._files.write(place / "memory.max", str((share.memory_mib + _BESIDE_MIB) * _MIB))
            with contextlib.suppress(OSError):  # a kernel that counts no swap has none of these
                self._files.write(place / "memory.swap.max", "0")
            self._files.write(place / "memory.oom.group", "1")
            self._files.write(place / "pids.max", str(share.processes))
            if self._cpu:
                self._files.write(place / "cpu.max", _ONE_CORE)
            self._files.write(place / "cgroup.procs", str(pid))
        except OSError:
            group.end()
            raise
        return group

    def _sweep(self) -> None:
        """Groups whose processes had not quite ended when their calls did."""
        for place in self._leaving[:]:
            with contextlib.suppress(OSError):
                self._files.remove(place)
                self._leaving.remove(place)

    def close(self) -> None:
        self._sweep()


class Group:
    """One call's."""

    def __init__(self, place: Path, files: Files, leaving: list[Path]) -> None:
        self._place = place
        self._files = files
        self._leaving = leaving

    @property
    def ran_out_of_memory(self) -> bool:
        """Whether the kernel ended the call because all of it together took too much."""
        try:
            events = dict(line.split() for line in self._files.read(self._place / "memory.events").splitlines())
        except OSError:
            return False
        return int(events.get("oom_kill", 0)) > 0

    def end(self) -> None:
        """Ends every process in it, and removes it, now or with the next call."""
        with contextlib.suppress(OSError):
            self._files.write(self._place / "cgroup.kill", "1")
        try:
            self._files.remove(self._place)
        except OSError:
            self._leaving.append(self._place)


def _own_group(text: str) -> str:
    """Raises ValueError where the host has no cgroup v2 for this process."""
    for line in text.splitlines():
        if line.startswith("0::"):
            return line[3:]
    raise ValueError("this process is in no group of cgroup v2")


def _taken(root: Path, files: Files) -> Iterable[str]:
    """The controllers of the folder, handed down to the groups in it. Raises OSError and ValueError."""
    there = files.read(root / "cgroup.controllers").split()
    if missing := [name for name in _NEEDED if name not in there]:
        raise ValueError(f"{root} has no {' and no '.join(missing)} controller")
    inside = files.read(root / "cgroup.procs").split()
    if inside not in ([], [str(os.getpid())]):
        raise ValueError(f"other processes are in {root}")
    if inside:  # no group with groups that count has processes itself
        with contextlib.suppress(FileExistsError):
            files.make(root / "service")
        files.write(root / "service" / "cgroup.procs", inside[0])
    wanted = [*_NEEDED, *({_USEFUL} & set(there))]
    files.write(root / "cgroup.subtree_control", " ".join(f"+{name}" for name in wanted))
    return wanted
