"""The edge for tests: a real Envoy before a gateway in this process; whatever else the mesh has is served beside it."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import envoy
import grpc

from deploy.envoy.config import EnvoyInputs, write_config
from deploy.local.authority import Authority
from deploy.local.parts import door_socket
from deploy.local.state import State
from deploy.local.tokens import AUDIENCE, ISSUER, mint
from services.gateway import main as gateway
from services.gateway.a2a.store_memory import MemoryA2aStore
from services.gateway.a2a.work import Work
from services.gateway.audit_memory import MemoryAuditStore
from services.gateway.buckets_local import LocalBuckets
from services.gateway.bus.store_memory import MemoryEventStore, MemoryWebhookStore
from services.gateway.directory_memory import MemoryDirectoryStore
from services.gateway.responses.store_memory import MemoryResponseStore
from services.gateway.settings import GatewaySettings
from services.gateway.store_memory import MemoryKeyStore
from shared.clock import SystemClock
from shared.rpc.server import serving
from shared.settings import SERVICES
from tests.support.valkey import free_port

ROOT = Path(__file__).resolve().parents[2]
Serve = Callable[[grpc.aio.Server], None]


@dataclass(frozen=True)
class Answer:
    """What came back over REST."""

    status: int
    headers: Any
    text: str

    @property
    def body(self) -> Any:
        return json.loads(self.text)

    @property
    def reason(self) -> str:
        return next(str(one["reason"]) for one in self.body["details"] if one["@type"].endswith("ErrorInfo"))


@dataclass(frozen=True)
class Edge:
    """An address to call, and what lies behind it; `behind` is gateway's own address."""

    address: str
    state: State
    stores: gateway.Stores
    behind: str
    authority: Authority | None = None
    internal: str = ""

    @property
    def url(self) -> str:
        return f"{'https' if self.authority else 'http'}://{self.address}"

    def token(self, *roles: str, tenant: str = "acme", subject: str = "ada", ttl: timedelta | None = None) -> str:
        """A token of the edge's own issuer; an admin's unless told."""
        ends = ttl or timedelta(minutes=10)
        return mint(self.state, tenant=tenant, subject=subject, roles=roles or ("admin",), ttl=ends)

    async def rest(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """A call as its headers say; names are given with `_` for `-`."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        trusted = ssl.create_default_context(cafile=str(self.authority.certificate)) if self.authority else True
        async with aiohttp.ClientSession() as session:
            asked = session.request(
                method, self.url + path, json=body, headers=given, ssl=trusted, allow_redirects=False
            )
            async with asked as answer:
                return Answer(answer.status, answer.headers, await answer.text())

    async def bearer(self, method: str, path: str, token: str, body: Any = None) -> Answer:
        return await self.rest(method, path, body, authorization=f"Bearer {token}")

    async def ok(self, method: str, path: str, token: str, body: Any = None) -> Any:
        """The body of a call that must go well."""
        answer = await self.bearer(method, path, token, body)
        assert answer.status == 200, answer.text
        return answer.body


def memory_stores() -> gateway.Stores:
    return gateway.Stores(
        keys=MemoryKeyStore(),
        directory=MemoryDirectoryStore(),
        audit=MemoryAuditStore(),
        buckets=LocalBuckets(SystemClock()),
        events=MemoryEventStore(),
        webhooks=MemoryWebhookStore(),
        a2a=MemoryA2aStore(),
        responses=MemoryResponseStore(),
        redis=None,
        probes={},
    )


@asynccontextmanager
async def running_edge(
    folder: Path,
    *,
    stores: gateway.Stores | None = None,
    serve: Serve = lambda _server: None,
    work: Work | None = None,
    mcp: Any = None,
    tls: Sequence[str] = (),
    **settings: Any,
) -> AsyncIterator[Edge]:
    """Starts both and waits until Envoy routes. `serve` adds the rest of the mesh to gateway's server. `tls`
    names the services whose certificate it has; without any all is in the clear.
    """
    state, kept = State(folder / "state"), stores or memory_stores()
    state.prepare()
    authority = _certified(state, tls) if tls else None
    edge, internal = free_port(), free_port()
    given = {
        "listen": "127.0.0.1:0",
        "door": f"unix:{door_socket(state)}",
        "postgres_dsn": "postgres://nowhere",
        "identity_keys": state.key("mesh.jwks"),
        "identity_private_key": state.key("gateway.pem"),
        "public_url": f"http://127.0.0.1:{edge}",
        "mesh_address": f"127.0.0.1:{internal}",
        "key_pepper": "pepper",
        "drain_grace": 0.2,
        "key_cache_ttl": 0,
        "directory_cache_ttl": 0,
        "tls_folder": authority.of_party("gateway") if authority else None,
    }
    loaded = GatewaySettings.model_validate(given | settings)

    async def register(server: grpc.aio.Server, stack: AsyncExitStack) -> None:
        serve(server)
        await gateway.build(loaded, kept, server, stack, work=work, mcp=mcp)

    async with serving(loaded, register, service_names=gateway.SERVICES, open_to_all=gateway.OPEN) as address:
        inputs = inputs_of(state, address, edge=edge, internal=internal, authority=authority)
        async with running_envoy(inputs, folder):
            running = Edge(f"127.0.0.1:{edge}", state, kept, address, authority, f"127.0.0.1:{internal}")
            await _routes(running, folder / "envoy.log")
            yield running


def _certified(state: State, names: Sequence[str]) -> Authority:
    """One process is all services here, so gateway's certificate has these names of theirs."""
    authority = Authority.of(state)
    authority.renew()
    authority.issue("gateway", (*names, "127.0.0.1"))
    return authority


def inputs_of(
    state: State, address: str, *, edge: int, internal: int, authority: Authority | None = None
) -> EnvoyInputs:
    """One process, at this address, is all services."""
    host, _, port = address.rpartition(":")
    return EnvoyInputs(
        edge=("127.0.0.1", edge),
        internal=("127.0.0.1", internal),
        services={name: (host, int(port)) for name in SERVICES},
        door=door_socket(state),
        descriptors=ROOT / "gen" / "descriptors" / "agentnet.binpb",
        edge_jwks=state.key("edge.jwks"),
        issuer=ISSUER,
        audience=AUDIENCE,
        access_log=state.logs / "access.log",
        edge_tls=authority.of_party("edge") if authority else None,
        mesh_tls=authority.of_party("envoy") if authority else None,
        secrets=state.folder,
    )


@asynccontextmanager
async def running_envoy(
    inputs: EnvoyInputs, folder: Path, change: Callable[[Any], None] = lambda _config: None
) -> AsyncIterator[None]:
    """Envoy as the mesh configures it, with a `change` of the test's own; it may not listen yet."""
    file = folder / "envoy.json"
    write_config(inputs, file)
    config = json.loads(file.read_text())
    change(config)
    file.write_text(json.dumps(config))
    binary = Path(envoy.__file__).parent / "_bin" / "envoy"
    command = (str(binary), "-c", str(file), "--concurrency", "1", "--log-level", "warning", "--disable-hot-restart")
    with (folder / "envoy.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ})
    try:
        yield
    finally:
        process.kill()
        process.wait()


async def _routes(edge: Edge, log: Path) -> None:
    for _ in range(200):
        try:
            if (await edge.rest("GET", "/healthz")).status == 200:
                return
        except aiohttp.ClientError:
            pass
        await asyncio.sleep(0.05)
    raise TimeoutError(log.read_text())
