"""The local mesh from the command line. These commands need the mesh's own `deploy` package beside the client."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from grpc import StatusCode
from rich.console import Console

from agentnet.client import AgentNetError

if TYPE_CHECKING:
    from deploy.local.mesh import EmbeddedMesh
    from deploy.local.state import State

_START_SECONDS = 240.0
_STOP_SECONDS = 30.0

Job = Callable[[str], Awaitable[bool]]


def up_mesh(out: Console, *, job: Job | None, serve: bool, tls: bool = False) -> int:
    """Starts the mesh, does the job, serves until a signal. Returns the exit status."""
    from deploy.local.process import StartFailed  # noqa: PLC0415 - remote users have no deploy package
    from deploy.local.state import AlreadyRunning  # noqa: PLC0415

    try:
        return asyncio.run(_up(out, job=job, serve=serve, tls=tls))
    except (AlreadyRunning, StartFailed, OSError) as error:
        raise _failed(str(error)) from None


async def _up(out: Console, *, job: Job | None, serve: bool, tls: bool) -> int:
    from deploy.local.mesh import Options, embedded_mesh  # noqa: PLC0415

    began = time.monotonic()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)

    def report(step: str) -> None:
        out.print(f"[dim]{time.monotonic() - began:6.1f} s[/]  {step}")

    starting = embedded_mesh(Options(_state(), report, tls=tls))
    entering = asyncio.ensure_future(starting.__aenter__())
    await asyncio.wait({entering, asyncio.ensure_future(stop.wait())}, return_when=asyncio.FIRST_COMPLETED)
    if not entering.done():
        entering.cancel()
        await asyncio.gather(entering, return_exceptions=True)
        return 130
    mesh = entering.result()
    try:
        return await _serve(out, mesh, stop, job=job, serve=serve)
    finally:
        await starting.__aexit__(None, None, None)


async def _serve(out: Console, mesh: EmbeddedMesh, stop: asyncio.Event, *, job: Job | None, serve: bool) -> int:
    status = 0
    if job:
        working = asyncio.ensure_future(job(mesh.edge))
        await asyncio.wait({working, asyncio.ensure_future(stop.wait())}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            status = 0 if working.result() else 1
        else:
            working.cancel()
            return 130
    if serve:
        _print_urls(out, mesh.plan.edge_url)
        await stop.wait()
        out.print("stopping ...")
    return status


def detach(out: Console, *, tls: bool = False) -> None:
    """Starts the mesh in the background and waits until it serves."""
    state = _state()
    if state.running():
        raise _failed(f"a mesh is already running in {state.folder}")
    state.folder.mkdir(parents=True, exist_ok=True)
    with (state.folder / "supervisor.log").open("wb") as log:
        process = subprocess.Popen(
            (sys.executable, "-m", "agentnet.cli.main", "up", *(("--tls",) if tls else ())),
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    deadline = time.monotonic() + _START_SECONDS
    with out.status("starting the mesh"):
        while process.poll() is None and time.monotonic() < deadline:
            found = local_status()
            if found.get("running") and found.get("ready"):
                _print_urls(out, found["url"])
                return
            time.sleep(0.2)
    said = (state.folder / "supervisor.log").read_text(errors="replace").splitlines()
    why = [line.removeprefix("error: ") for line in said if line.startswith("error: ")]
    raise _failed(why[-1] if why else f"the mesh did not start; see {state.folder / 'supervisor.log'}")


def down_mesh(out: Console) -> None:
    """Stops the mesh and waits until it is gone."""
    state = _state()
    running = state.running()
    if not running:
        out.print("no mesh is running here")
        return
    os.kill(running["supervisor_pid"], signal.SIGTERM)
    deadline = time.monotonic() + _STOP_SECONDS
    while state.running() and time.monotonic() < deadline:
        time.sleep(0.1)
    out.print("the mesh is down")


def local_status() -> dict[str, Any]:
    """What the local mesh says of itself, and what Envoy measured of each service."""
    from deploy.local.figures import figures  # noqa: PLC0415

    state = _state()
    found = state.running()
    if not found:
        return {"running": False, "state": str(state.folder)}
    measured = figures(state)
    for part in found["processes"]:
        part.update(measured.get(part["name"], {}))
    return {"running": True, **found}


def local_token(tenant: str, subject: str, roles: tuple[str, ...], ttl_seconds: int) -> str:
    """A token of the local mesh's own issuer."""
    from deploy.local.tokens import mint  # noqa: PLC0415

    try:
        return mint(_state(), tenant=tenant, subject=subject, roles=roles, ttl=timedelta(seconds=ttl_seconds))
    except OSError:
        raise _failed("no mesh was started here yet, so there is no key to sign a token with") from None


def _state() -> State:
    try:
        from deploy.local.state import State  # noqa: PLC0415
    except ImportError:
        raise _failed("this installation has only the client; the local mesh needs agentnet[local]") from None
    return State.default()


def _print_urls(out: Console, url: str) -> None:
    trusting = f" --cacert {_state().folder / 'tls' / 'ca.crt'}" if url.startswith("https") else ""
    out.print(f"\n[bold green]the mesh serves[/] on [bold]{url}[/] (gRPC, gRPC-Web, REST)", soft_wrap=True)
    out.print(f'  agentnet status   ·   agentnet run "..."   ·   curl{trusting} {url}/health', soft_wrap=True)
    out.print(f"  dashboard {url}/dashboard   ·   sign in with what `agentnet token` prints", soft_wrap=True)
    out.print("  Ctrl-C or `agentnet down` stops it")


def _failed(message: str) -> AgentNetError:
    return AgentNetError(message, code=StatusCode.FAILED_PRECONDITION, reason="LOCAL_MESH")
