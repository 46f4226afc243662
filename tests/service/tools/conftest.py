"""A served ToolService with the store in memory and the real sandbox."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from aiohttp import web

from agentnet.tools.v1 import tool_service_pb2_grpc as rpc
from services.tools.artefacts import Artefacts
from services.tools.egress import Egress
from services.tools.executor import Executor
from services.tools.fetching import Fetching
from services.tools.flow import Flow, Pause
from services.tools.functions import FunctionExecutor
from services.tools.main import SERVICES
from services.tools.permissions import ToolAuthorizer
from services.tools.policy import ArgumentPolicy, Held
from services.tools.rates import LocalRates
from services.tools.registry import Registry
from services.tools.sandbox import Sandbox
from services.tools.secrets import Secrets
from services.tools.service import ToolService
from services.tools.store_memory import MemoryToolStore
from shared.clock import FakeClock
from shared.ids import SequentialIds
from shared.objects import objects
from shared.risks import Tell, untold
from shared.rpc.channel import mesh_channel
from shared.rpc.server import serving
from shared.settings import MeshSettings
from tests.service.tools.api import SECRET, Api
from tests.service.tools.attacking import Besieged, besieged
from tests.support.identity import Keys, make_keys
from tests.support.published import enforcing


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return make_keys(tmp_path)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store() -> MemoryToolStore:
    return MemoryToolStore()


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(at_once=2) as sandbox:
        yield sandbox


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def siege() -> AsyncIterator[Besieged]:
    async with besieged() as found:
        yield found


@pytest.fixture
def artefacts(tmp_path: Path) -> Artefacts:
    return Artefacts(objects((tmp_path / "objects").as_uri()))


@pytest.fixture
def executors(sandbox: Sandbox, artefacts: Artefacts) -> dict[str, Executor]:
    """What runs each mode; a test adds its own."""
    return {"python": FunctionExecutor(sandbox, Fetching(Egress([]), Secrets(None)), artefacts)}


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    served, application = Api(answer={"ok": True}), web.Application()
    application.router.add_route("*", "/{path:.*}", served.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    served.port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    yield served
    await runner.cleanup()


@pytest.fixture
def secrets(tmp_path: Path) -> Secrets:
    for owner, secret in (("shared", SECRET), ("other", "sk-of-another-tenant")):
        (tmp_path / "secrets" / owner).mkdir(parents=True)
        (tmp_path / "secrets" / owner / ("serpapi_key" if owner == "shared" else "mine")).write_text(secret + "\n")
    return Secrets(tmp_path / "secrets")


@pytest.fixture
def narrowed() -> dict[str, Any]:
    """The operator's file of permissions."""
    return {}


@pytest.fixture
async def policy() -> ArgumentPolicy:
    """No rule at all; a test has its own."""
    return ArgumentPolicy(await enforcing(Held.of), strict=True)


@dataclass
class Heard:
    """A bus that keeps what it is told."""

    told: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)

    def emit(self, tenant: str, name: str, *, event_id: str = "", **fields: Any) -> None:
        self.told.append((tenant, name, {"event_id": event_id, **fields}))


@pytest.fixture
def tell() -> Tell:
    """Who hears of risks."""
    return untold


@pytest.fixture
def bus() -> Heard:
    return Heard()


def clock_pause(clock: FakeClock) -> Pause:
    async def pause(seconds: float) -> None:
        clock.advance(timedelta(seconds=seconds))

    return pause


@pytest.fixture
async def channel(
    keys: Keys, clock: FakeClock, store: MemoryToolStore, executors: dict[str, Executor], narrowed: dict[str, Any],
    policy: ArgumentPolicy, bus: Heard, artefacts: Artefacts, tell: Tell,
) -> AsyncIterator[grpc.aio.Channel]:  # fmt: skip
    settings = MeshSettings.model_validate(
        {"listen": "127.0.0.1:0", "postgres_dsn": "postgres://nowhere", "identity_keys": keys.jwks, "drain_grace": 1}
    )

    async def register(server: grpc.aio.Server, _stack: AsyncExitStack) -> None:
        ids, authorizer = SequentialIds(), ToolAuthorizer(narrowed)
        registry = Registry(store, authorizer=authorizer, clock=clock, ids=ids)
        flow = Flow(
            store, executors, authorizer=authorizer, rates=LocalRates(clock), policy=policy, clock=clock, ids=ids,
            pause=clock_pause(clock), quarantine=registry.quarantine, bus=bus, artefacts=artefacts,
            risks=tell,
        )  # fmt: skip
        rpc.add_ToolServiceServicer_to_server(ToolService(registry, flow, clock, artefacts), server)

    async with (
        serving(settings, register, service_names=SERVICES) as address,
        mesh_channel(address, services=SERVICES) as channel,
    ):
        yield channel


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> Any:
    return rpc.ToolServiceStub(channel)
