"""One supervised process: started, probed until ready, started again when it dies, stopped when told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final, Protocol

from deploy.local.forked import Forked, fork
from deploy.local.probes import Probe

_CHILD: Final = Path(__file__).with_name("child.py")
_FIRST_PAUSE_SECONDS: Final = 0.1
_LONGEST_PAUSE_SECONDS: Final = 5.0
_STEADY_SECONDS: Final = 10.0
_PROBE_SECONDS: Final = 0.05
_WATCH_SECONDS: Final = 1.0
_LOG_BYTES: Final = 8192


class Health(StrEnum):
    STARTING = "starting"
    SERVING = "serving"
    NOT_SERVING = "not_serving"
    STOPPED = "stopped"


class StartFailed(Exception):
    """A part did not come up in time, or refused its settings. The message names its log, or the settings."""


@dataclass(frozen=True, slots=True)
class Part:
    """What to run and how to tell that it works.

    A part with a `forkserver`, the path of its socket, is a Python module, the last word of its command; it is forked
    there. `stop` sends a polite request to end, for programs that want another one than SIGTERM.
    """

    name: str
    command: tuple[str, ...]
    probe: Probe
    address: str
    forkserver: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    death_signal: signal.Signals = signal.SIGKILL
    start_seconds: float = 120.0
    stop_seconds: float = 8.0
    stop: Callable[[], Awaitable[None]] | None = None


class Process(Protocol):
    """What a supervisor needs of a running process."""

    @property
    def pid(self) -> int: ...

    @property
    def returncode(self) -> int | None: ...

    def send_signal(self, signal: int) -> None: ...

    async def wait(self) -> int: ...


class Supervised:
    """A part at work."""

    def __init__(self, part: Part, *, log: Path, on_change: Callable[[], None]) -> None:
        self.part = part
        self.health = Health.STARTING
        self.restarts = 0
        self._log = log
        self._on_change = on_change
        self._process: Process | None = None
        self._complaint = ""
        self._stopping = False
        self._ready = asyncio.Event()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process and self._process.returncode is None else None

    async def run(self) -> None:
        """Keeps the part running until `stop`. A process that dies is started again, slower each time it dies young."""
        pause = _FIRST_PAUSE_SECONDS
        loop = asyncio.get_running_loop()
        while not self._stopping:
            born = loop.time()
            self._process = await self._start()
            watch = asyncio.create_task(self._watch())
            await self._process.wait()
            watch.cancel()
            self._ready.clear()
            self._complaint = await asyncio.to_thread(_bad_settings, self._log)
            self._set(Health.STOPPED if self._stopping else Health.NOT_SERVING)
            if not self._stopping:
                pause = _FIRST_PAUSE_SECONDS if loop.time() - born > _STEADY_SECONDS else pause
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
                self.restarts += 1

    async def ready(self) -> None:
        """Waits until the part works. Raises StartFailed."""
        try:
            async with asyncio.timeout(self.part.start_seconds):
                while not self._ready.is_set():
                    if self._complaint:
                        raise StartFailed(f"{self.part.name} did not start: {self._complaint}")
                    await asyncio.sleep(_PROBE_SECONDS)
        except TimeoutError:
            raise StartFailed(f"{self.part.name} did not start; see {self._log}") from None

    async def stop(self) -> None:
        """Ends the process: politely, then by SIGKILL."""
        self._stopping = True
        process = self._process
        if process is None or process.returncode is not None:
            return
        if self.part.stop:
            await self.part.stop()
        else:
            _send(process, signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), self.part.stop_seconds)
        except TimeoutError:
            _send(process, signal.SIGKILL)
            await process.wait()

    async def _start(self) -> Process:
        if self.part.forkserver:
            return await self._fork(self.part.forkserver)
        return await self._spawn()

    async def _fork(self, server: Path) -> Forked:
        module, environment = self.part.command[-1], self.part.environment
        while True:
            with self._log.open("ab") as log, contextlib.suppress(OSError):
                return await fork(server, module, name=self.part.name, environment=environment, log=log.fileno())
            await asyncio.sleep(_PROBE_SECONDS)  # it is starting

    async def _spawn(self) -> asyncio.subprocess.Process:
        wrapper = (sys.executable, "-I", "-S", str(_CHILD), str(os.getpid()), str(int(self.part.death_signal)))
        with self._log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *wrapper,
                *self.part.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(self.part.environment),
                start_new_session=True,  # a Ctrl-C in the terminal is the supervisor's to handle
            )

    async def _watch(self) -> None:
        while True:
            serving = await self.part.probe()
            if serving:
                self._ready.set()
                self._set(Health.SERVING)
            elif self.health is Health.SERVING:
                self._set(Health.NOT_SERVING)
            await asyncio.sleep(_WATCH_SECONDS if serving else _PROBE_SECONDS)

    def _set(self, health: Health) -> None:
        if health is not self.health:
            self.health = health
            self._on_change()


def _send(process: Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)


def _bad_settings(log: Path) -> str:
    """What a process that ended said of its settings, at the end of its log; empty: nothing."""
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _LOG_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
    return "; ".join(dict.fromkeys(line for line in lines if line.startswith("bad setting ")))
