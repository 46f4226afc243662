"""A served ToolService with the store in memory and the real sandbox."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from agentnet.tools.v1 import tool_service_pb2_grpc as rpc
from services.tools.main import SERVICES
from services.tools.registry import Registry
from services.tools.sandbox import Sandbox
from services.tools.service import ToolService
from services.tools.store_memory import MemoryToolStore
from shared.clock import FakeClock
from shared.ids import SequentialIds
from shared.rpc.channel import mesh_channel
from shared.rpc.server import serving
from shared.settings import MeshSettings
from tests.support.identity import Keys, make_keys


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


@pytest.fixture
async def stub(keys: Keys, clock: FakeClock, store: MemoryToolStore, sandbox: Sandbox) -> AsyncIterator[Any]:
    settings = MeshSettings.model_validate(
        {"listen": "127.0.0.1:0", "postgres_dsn": "postgres://nowhere", "identity_keys": keys.jwks, "drain_grace": 1}
    )

    async def register(server: grpc.aio.Server, _stack: AsyncExitStack) -> None:
        registry = Registry(store, sandbox, clock=clock, ids=SequentialIds())
        rpc.add_ToolServiceServicer_to_server(ToolService(registry, clock), server)

    async with (
        serving(settings, register, service_names=SERVICES) as address,
        mesh_channel(address, services=SERVICES) as channel,
    ):
        yield rpc.ToolServiceStub(channel)
