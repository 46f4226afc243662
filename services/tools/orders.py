"""What a sandbox can be ordered to run: functions, programs, scripts and modules, each within its limits."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Protocol

from services.tools.cgroups import Share

_MIB: Final = 1024 * 1024
_SCRATCH: Final = 16 * _MIB
# What the compiler and Python take beside a module's own memory.
_RUNTIME_MIB: Final = 512
_RUNTIME_THREADS: Final = 16


class SandboxCall(Protocol):
    """What a sandbox is asked to run."""

    @property
    def memory_mib(self) -> int:
        """Memory at most."""

    @property
    def timeout(self) -> timedelta:
        """Wall time at most."""

    def order(self) -> bytes:
        """What the program inside reads."""


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """What to run, with what, within which limits."""

    code: str
    entry_point: str
    arguments: Mapping[str, object]
    memory_mib: int
    timeout: timedelta
    allowed_imports: Sequence[str] | None = None  # and no builtin that validation refuses; None: everything there is
    fetches: bool = False
    attaches: bool = False

    def order(self) -> bytes:
        order = {
            "code": self.code,
            "entry_point": self.entry_point,
            "arguments": dict(self.arguments),
            "allowed_imports": None if self.allowed_imports is None else list(self.allowed_imports),
            "fetch": self.fetches,
            "attach": self.attaches,
            "limits": _limits(self.timeout, memory_mib=self.memory_mib, processes=1),
        }
        return json.dumps(order).encode()


@dataclass(frozen=True, slots=True)
class ProgramCall:
    """A program and its arguments. The limit of memory is each process's."""

    command: Sequence[str]
    memory_mib: int
    processes: int
    timeout: timedelta

    def order(self) -> bytes:
        limits = _limits(self.timeout, memory_mib=self.memory_mib, processes=self.processes)
        return json.dumps({"command": list(self.command), "limits": limits}).encode()


@dataclass(frozen=True, slots=True)
class ModuleCall:
    """A WebAssembly module, which reads the arguments and prints the result. `fuel` 0 is no limit of instructions."""

    module: str  # base64
    arguments: Mapping[str, object]
    memory_mib: int
    fuel: int
    timeout: timedelta

    def order(self) -> bytes:
        order = {
            "module": self.module,
            "arguments": json.dumps(dict(self.arguments)),
            "memory": self.memory_mib * _MIB,
            "fuel": self.fuel,
            "limits": _limits(self.timeout, memory_mib=self.memory_mib + _RUNTIME_MIB, processes=_RUNTIME_THREADS),
        }
        return json.dumps(order).encode()


@dataclass(frozen=True, slots=True)
class ScriptCall:
    """Python source that talks over its input and output."""

    code: str
    memory_mib: int
    timeout: timedelta

    def order(self) -> bytes:
        limits = _limits(self.timeout, memory_mib=self.memory_mib, processes=1)
        return json.dumps({"code": self.code, "limits": limits}).encode()


def share(call: SandboxCall) -> Share:
    """What it may have as a whole, where the kernel counts that."""
    match call:
        case ProgramCall():
            return Share(call.memory_mib, call.processes)
        case ModuleCall():
            return Share(call.memory_mib + _RUNTIME_MIB, _RUNTIME_THREADS)
    return Share(call.memory_mib, 1)


def attaches(call: SandboxCall) -> bool:
    """Whether what runs may leave artefacts."""
    return isinstance(call, FunctionCall) and call.attaches


def _limits(timeout: timedelta, *, memory_mib: int, processes: int) -> dict[str, int]:
    return {
        "RLIMIT_AS": memory_mib * _MIB,
        "RLIMIT_CPU": int(timeout.total_seconds()) + 1,
        "RLIMIT_FSIZE": _SCRATCH,
        "RLIMIT_NOFILE": 64,
        "RLIMIT_NPROC": processes,
        "RLIMIT_CORE": 0,
        "RLIMIT_MEMLOCK": 64 * 1024,
        "RLIMIT_MSGQUEUE": 0,
        "RLIMIT_SIGPENDING": 256,
    }
