"""A counterpart of cgroup v2's file system, for hosts that delegate none: the same files behind the same contract."""

from __future__ import annotations

import errno
import os
import signal
from dataclasses import dataclass, field
from pathlib import Path

_OF_CONTROLLER = {
    "memory": {"memory.max": "max", "memory.swap.max": "max", "memory.oom.group": "0", "memory.events": "oom_kill 0\n"},
    "pids": {"pids.max": "max", "pids.current": "0"},
    "cpu": {"cpu.max": "max 100000", "cpu.stat": ""},
}


@dataclass
class _Folder:
    controllers: tuple[str, ...]
    handed_down: set[str] = field(default_factory=set)
    pids: set[int] = field(default_factory=set)
    values: dict[str, str] = field(default_factory=dict)


class CgroupFiles:
    """What Documentation/admin-guide/cgroup-v2.rst promises of the files that are used."""

    def __init__(self, root: Path, *controllers: str, inside: tuple[int, ...] = ()) -> None:
        self.folders = {root: _Folder(controllers, pids=set(inside))}
        self.kept: dict[Path, dict[str, str]] = {}  # of groups that are gone: what was in force

    def make(self, group: Path) -> None:
        if group in self.folders:
            raise OSError(errno.EEXIST, "exists")
        parent = self._folder(group.parent)
        folder = _Folder(tuple(sorted(parent.handed_down)))
        for name in folder.controllers:
            folder.values |= _OF_CONTROLLER[name]
        self.folders[group] = folder

    def write(self, file: Path, text: str) -> None:
        folder = self._folder(file.parent)
        match file.name:
            case "cgroup.procs":
                self._move(folder, int(text))
            case "cgroup.kill":
                self._kill(folder)
            case "cgroup.subtree_control":
                self._hand_down(folder, text.split())
            case name if name in folder.values and name not in ("memory.events", "pids.current", "cpu.stat"):
                folder.values[name] = _valid(name, text)
            case _:
                raise OSError(errno.EACCES, "no file is created")

    def read(self, file: Path) -> str:
        folder = self._folder(file.parent)
        match file.name:
            case "cgroup.controllers":
                return " ".join(folder.controllers) + "\n"
            case "cgroup.procs":
                return "".join(f"{pid}\n" for pid in sorted(self._living(folder)))
            case name if name in folder.values:
                return folder.values[name]
        raise OSError(errno.ENOENT, "no such file")

    def remove(self, group: Path) -> None:
        folder = self._folder(group)
        if self._living(folder) or any(path.parent == group for path in self.folders):
            raise OSError(errno.EBUSY, "in use")
        self.kept[group] = folder.values
        del self.folders[group]

    def _folder(self, path: Path) -> _Folder:
        if path not in self.folders:
            raise OSError(errno.ENOENT, "no such group")
        return self.folders[path]

    def _move(self, folder: _Folder, pid: int) -> None:
        if folder.handed_down:
            raise OSError(errno.EBUSY, "a group that hands controllers down has no processes")
        if not Path(f"/proc/{pid}").exists():
            raise OSError(errno.ESRCH, "no such process")
        for other in self.folders.values():
            other.pids.discard(pid)
        folder.pids.add(pid)

    def _kill(self, folder: _Folder) -> None:
        for pid in self._living(folder):
            os.kill(pid, signal.SIGKILL)

    def _hand_down(self, folder: _Folder, words: list[str]) -> None:
        if self._living(folder):
            raise OSError(errno.EBUSY, "processes are in it")
        for word in words:
            if not word.startswith("+") or word[1:] not in folder.controllers:
                raise OSError(errno.ENOENT, "no such controller")
            folder.handed_down.add(word[1:])

    def _living(self, folder: _Folder) -> set[int]:
        return {pid for pid in folder.pids if _lives(pid)}


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _valid(name: str, text: str) -> str:
    words = text.split()
    numbers = 2 if name == "cpu.max" else 1
    if len(words) != numbers or not all(word.isdigit() or word == "max" for word in words):
        raise OSError(errno.EINVAL, "not a limit")
    return text
