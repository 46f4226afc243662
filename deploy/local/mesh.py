"""The embedded mesh as one thing: start it in order, know how it is, stop it without a trace."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from deploy.local import parts
from deploy.local.authority import Authority
from deploy.local.figures import routable
from deploy.local.parts import Plan
from deploy.local.process import Part, Supervised
from deploy.local.state import State, reserved_ports, write_private
from deploy.local.tokens import forget_client_file, write_client_file
from shared.migrate import migrate, migrations
from shared.settings import SERVICES

_RENEWAL_SECONDS = 3600
Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    """How to run a mesh. `report` is told each step, for people."""

    state: State
    report: Report = lambda _step: None
    # Whether the edge and everything behind it speaks TLS, by certificates of an authority in the state folder.
    tls: bool = False


class EmbeddedMesh:
    """A running mesh."""

    def __init__(self, plan: Plan, report: Report) -> None:
        self.plan = plan
        self._report = report
        self._parts: dict[str, Supervised] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._ready = False

    @property
    def edge(self) -> str:
        """Where clients go."""
        return self.plan.edge

    async def start(self) -> None:
        """Starts everything in order; what does not depend on one another at once. Raises StartFailed."""
        plan = self.plan
        if plan.tls:
            Authority.of(plan.state).renew()
            self._tasks.append(asyncio.create_task(self._renew(), name="certificates"))
        self._launch(parts.model(plan))
        await asyncio.gather(self._up(parts.forkserver(plan)), self._stores(), self._up(parts.valkey_store(plan)))
        services = [self._launch(parts.service(plan, name)) for name in SERVICES]
        services.append(self._launch(parts.evaluation_worker(plan)))
        self._launch(parts.envoy_proxy(plan))
        await asyncio.gather(*(supervised.ready() for supervised in services), self._parts["envoy"].ready())
        while not await asyncio.to_thread(routable, plan.state):  # noqa: ASYNC110 - Envoy has no event for it
            await asyncio.sleep(0.1)
        self._report("services and Envoy are up")
        await self._parts["model"].ready()
        self._report("the model is loaded")
        write_client_file(plan.state, self.edge, authority=Authority.of(plan.state).certificate if plan.tls else None)
        self._ready = True
        self.write_status()

    async def stop(self) -> None:
        """Stops in reverse order and waits until every process is gone."""
        self._ready = False
        forget_client_file(self.plan.state)
        running = list(self._parts.values())
        by_name = {supervised.part.name: supervised for supervised in running}
        for names in (("envoy", "evaluation"), (*SERVICES, "model"), ("valkey", "postgres", "forkserver")):
            await asyncio.gather(*(by_name[name].stop() for name in names if name in by_name))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.write_status()

    def status(self) -> dict[str, Any]:
        """Every address, process and health."""
        return {
            "ready": self._ready,
            "edge": self.edge,
            "url": self.plan.edge_url,
            "internal": self.plan.address("internal"),
            "supervisor_pid": os.getpid(),
            "state": str(self.plan.state.folder),
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "processes": [_describe(self.plan, supervised) for supervised in self._parts.values()],
        }

    def write_status(self) -> None:
        """Tells other processes, through mesh.json."""
        write_private(self.plan.state.mesh_file, json.dumps(self.status(), indent=1))

    async def _stores(self) -> None:
        cluster = self.plan.cluster
        await asyncio.to_thread(cluster.initialise)
        await self._up(parts.postgres(self.plan))
        while not await cluster.ready():  # noqa: ASYNC110 - the port is open a moment before connections are taken
            await asyncio.sleep(0.05)
        await cluster.bootstrap()
        applied = await migrate(cluster.dsn("owner"), migrations())
        self._report(f"Postgres is up, {len(applied)} migrations applied")

    async def _renew(self) -> None:
        """Every process takes what is new by itself."""
        while True:
            await asyncio.sleep(_RENEWAL_SECONDS)
            if issued := await asyncio.to_thread(Authority.of(self.plan.state).renew):
                self._report(f"new certificates for {', '.join(issued)}")

    async def _up(self, part: Part) -> None:
        await self._launch(part).ready()

    def _launch(self, part: Part) -> Supervised:
        log = self.plan.state.logs / f"{part.name}.log"
        if log.exists():
            log.replace(log.with_suffix(".log.1"))
        supervised = Supervised(part, log=log, on_change=self.write_status)
        self._parts[part.name] = supervised
        self._tasks.append(asyncio.create_task(supervised.run(), name=part.name))
        return supervised


@asynccontextmanager
async def embedded_mesh(options: Options) -> AsyncIterator[EmbeddedMesh]:
    """A mesh that runs inside the block. Raises AlreadyRunning and StartFailed."""
    state = options.state
    with state.lock(), reserved_ports() as ports:
        state.prepare()
        mesh = EmbeddedMesh(Plan(state=state, ports=ports, tls=options.tls), options.report)
        try:
            await mesh.start()
            yield mesh
        finally:
            await mesh.stop()


def _describe(plan: Plan, supervised: Supervised) -> dict[str, Any]:
    name = supervised.part.name
    return {
        "name": name,
        "address": supervised.part.address,
        "pid": supervised.pid,
        "health": supervised.health.value,
        "restarts": supervised.restarts,
        "log": str(plan.state.logs / f"{name}.log"),
    }
