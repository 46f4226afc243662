"""What processes cost: processor time and memory by name, whoever of them comes and goes meanwhile."""

from __future__ import annotations

from contextlib import suppress

import psutil

from deploy.local.mesh import EmbeddedMesh


def spent(pid: int, *, alone: bool = False) -> float:
    """Seconds of processor time of a process and all below it, those that have ended included; `alone`: its own."""
    process = psutil.Process(pid)
    if alone:
        times = process.cpu_times()
        return float(times.user + times.system)
    return sum(_times(one) for one in (process, *process.children(recursive=True)))


def _times(process: psutil.Process) -> float:
    """Its own and those of its children that have ended; of one that has ended itself its parent knows."""
    with suppress(psutil.NoSuchProcess):
        times = process.cpu_times()
        return float(times.user + times.system + times.children_user + times.children_system)
    return 0.0


def resident(pid: int) -> int:
    """Megabytes of a process alone."""
    return int(psutil.Process(pid).memory_info().rss) // 1_000_000


def parts(mesh: EmbeddedMesh) -> dict[str, int]:
    """Every process of a mesh by its name."""
    return {part["name"]: part["pid"] for part in mesh.status()["processes"]}


def spent_by_part(mesh: EmbeddedMesh) -> dict[str, float]:
    """Seconds of processor time so far of each part; what the fork server forked is no part of it."""
    return {name: spent(pid, alone=name == "forkserver") for name, pid in parts(mesh).items()}
