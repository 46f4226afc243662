"""The sandbox of hosts with gVisor: a kernel of its own for every call, by `runsc`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Self

from services.tools import isolation
from services.tools.answer import Answer, Outcome, Printed
from services.tools.conversation import Conversation, Fetch
from services.tools.errors import SandboxUnavailable
from services.tools.executor import Isolation
from services.tools.orders import SandboxCall, attaches
from services.tools.sandbox import Places
from shared.log import log

NAME: Final = "gvisor+seccomp+rlimits"
_START: Final = "import sys; sys.path.insert(0, '/sandbox'); from services.tools.lone import main; main()"
_INSIDE: Final = ("lone.py", "zygote.py", "runner.py")


class GvisorSandbox:
    """Runs functions, a few at once, each in a container that is made for it and gone afterwards."""

    isolation = Isolation.GVISOR

    def __init__(self, *, at_once: int, runsc: str = "runsc", platform: str = "ptrace") -> None:
        self._places = Places(at_once)
        self._runsc = shutil.which(runsc)
        self._platform = platform
        self._numbers = iter(range(1 << 62))
        self._leaving: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="agentnet-gvisor-"))
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*self._leaving, return_exceptions=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    def check_room(self) -> None:
        """Raises ResourceExhausted when too many wait already."""
        self._places.check_room()

    async def prepare(self) -> None:
        """Says in the log what is missing; without it every call is refused."""
        if self._runsc is None:
            log.warning("sandbox.unavailable", why="runsc is not on the path")

    async def run(self, call: SandboxCall, printed: Printed, fetch: Fetch | None = None) -> Outcome:
        """As Sandbox.run: to an outcome, always. Raises SandboxUnavailable; nothing runs then."""
        async with self._places.taken():
            began = time.monotonic()
            status, found = await self._run(call, printed, fetch, until=began + call.timeout.total_seconds())
            elapsed = timedelta(seconds=time.monotonic() - began)
        texts = {name: found.get(name, "") for name in ("message", "trace")}
        left = found["artefacts"]
        return Outcome(status, result=found.get("result"), elapsed=elapsed, isolation=NAME, artefacts=left, **texts)

    async def _run(self, call: SandboxCall, printed: Printed, fetch: Fetch | None, *, until: float) -> Answer:
        async with self._container(call) as running:
            conversation = Conversation(running, printed, fetch=fetch, replies=running.answer, attaches=attaches(call))
            try:
                status, found = await conversation.heard(call.timeout, until=until)
                return status, found | {"artefacts": conversation.artefacts}
            finally:
                conversation.close()

    @asynccontextmanager
    async def _container(self, call: SandboxCall) -> AsyncIterator[Container]:
        if self._runsc is None:
            raise SandboxUnavailable("this host has no gVisor to run functions in", why="runsc is not on the path")
        name = f"call-{os.getpid()}-{next(self._numbers)}"
        bundle = self._folder / name
        with _bundled(bundle), contextlib.ExitStack() as ends:
            near, far = socket.socketpair()
            ends.callback(far.close)
            pipes = [os.pipe(), os.pipe()]
            for _, write in pipes:
                ends.callback(os.close, write)
            command = self._command("run", "-bundle", str(bundle), name)
            process = await asyncio.create_subprocess_exec(
                *command, stdin=far.fileno(), stdout=pipes[0][1], stderr=pipes[1][1], start_new_session=True
            )
            ends.close()
            near.settimeout(0)
            try:
                await asyncio.get_running_loop().sock_sendall(near, call.order() + b"\n")
                yield Container(pipes[0][0], pipes[1][0], near.detach(), asyncio.ensure_future(process.wait()))
            finally:
                leaving = asyncio.create_task(self._left(name, process))
                self._leaving.add(leaving)
                leaving.add_done_callback(self._leaving.discard)

    async def _left(self, name: str, process: asyncio.subprocess.Process) -> None:
        """Ends the container whatever it is doing. Its caller does not wait for it."""
        quiet = asyncio.subprocess.DEVNULL
        gone = await asyncio.create_subprocess_exec(
            *self._command("delete", "-force", name), stdout=quiet, stderr=quiet
        )
        await gone.wait()
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()

    def _command(self, *what: str) -> list[str]:
        assert self._runsc is not None  # noqa: S101 - asked before
        state = str(self._folder / "state")
        options = ("--root", state, f"--platform={self._platform}", "--network=none", "--ignore-cgroups")
        return [self._runsc, *options, *what]


class Container:
    """One call inside, as a Conversation wants it."""

    def __init__(self, out: int, err: int, answer: int, ended: asyncio.Future[int]) -> None:
        self.out, self.err, self.answer, self.ended = out, err, answer, ended


@contextmanager
def _bundled(folder: Path) -> Iterator[None]:
    """What runsc needs to know, for as long as it needs it: nothing of the host but a read-only Python."""
    inside = folder / "sandbox" / "services" / "tools"
    inside.mkdir(parents=True)
    (folder / "rootfs").mkdir()
    here = Path(__file__).parent
    for name in _INSIDE:
        shutil.copyfile(here / name, inside / name)
    (folder / "sandbox" / "outer").write_bytes(isolation.outer_filter())
    (folder / "sandbox" / "filter").write_bytes(isolation.call_filter(isolation.FUNCTIONS))
    (folder / "config.json").write_text(json.dumps(_config(folder)))
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _config(folder: Path) -> dict[str, Any]:
    read_only = [(path, path) for path in isolation.visible(isolation.FUNCTIONS)]
    mounts: list[dict[str, Any]] = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["size=16m"]},  # noqa: S108 - its own
        *(
            {"destination": path, "type": "bind", "source": source, "options": ["ro"]}
            for source, path in [*read_only, (str(folder / "sandbox"), "/sandbox")]
        ),
        *({"destination": path, "type": "tmpfs", "source": "tmpfs", "options": ["ro"]} for path in isolation.covered()),
    ]
    return {
        "ociVersion": "1.0.0",
        "process": {
            "user": {"uid": 65534, "gid": 65534},
            "args": [isolation.python(), "-I", "-S", "-c", _START],
            "env": ["LANG=C.UTF-8", "PYTHONDONTWRITEBYTECODE=1"],
            "cwd": "/",
            "capabilities": {},
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "sandbox",
        "mounts": mounts,
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")]},
    }
