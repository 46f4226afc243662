"""The runtime that this replica itself runs under, where an operator says so and it can be seen to be true."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from services.tools.executor import Isolation

_PROC: Final = Path("/proc")
# What gVisor's kernel calls itself, since its first release (gvisor.dev, pkg/sentry/syscalls/linux).
_GVISOR: Final = "#1 SMP Sun Jan 10 15:06:54 PST 2016"


def runtime_isolation(named: str, *, proc: Path = _PROC) -> Isolation:
    """What the class named adds to every sandbox. Raises ValueError when this is not it: it fails closed."""
    match named:
        case "":
            return Isolation.NONE
        case "gvisor" if _GVISOR in (proc / "version").read_text():
            return Isolation.GVISOR
        case "vm" if "hypervisor" in _flags(proc):
            return Isolation.VM
    raise ValueError(f"AGENTNET_TOOLS_RUNTIME_CLASS is {named}, and this replica does not run in it")


def _flags(proc: Path) -> list[str]:
    lines = (proc / "cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
