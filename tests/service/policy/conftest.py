"""A served policy service with the store in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import grpc
import pytest

from agentnet.policy.v1 import policy_service_pb2_grpc as rpc
from services.policy.library import Library
from services.policy.main import SERVICES
from services.policy.service import PolicyService
from services.policy.signing import BundleSigner
from services.policy.store_memory import MemoryPolicyStore
from shared.clock import SystemClock
from shared.rpc.channel import mesh_channel
from shared.rpc.server import serving
from shared.settings import MeshSettings
from shared.tasks import supervised
from tests.support.identity import Keys, make_keys

DEFAULT = Path("services/policy/bundles/default.yaml").read_text()


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return make_keys(tmp_path, "policy")


@pytest.fixture
def store() -> MemoryPolicyStore:
    return MemoryPolicyStore()


@pytest.fixture
async def channel(keys: Keys, store: MemoryPolicyStore) -> AsyncIterator[grpc.aio.Channel]:
    settings = MeshSettings.model_validate(
        {"listen": "127.0.0.1:0", "postgres_dsn": "postgres://nowhere", "identity_keys": keys.jwks, "drain_grace": 1}
    )

    async def register(server: grpc.aio.Server, stack: AsyncExitStack) -> None:
        signer = BundleSigner.from_file(keys.private_key)
        library = Library(store, DEFAULT, clock=SystemClock(), poll=timedelta(seconds=30), signer=signer)
        await stack.enter_async_context(supervised("publish", library.publish))
        service = PolicyService(library, clock=SystemClock(), heartbeat=timedelta(seconds=10))
        rpc.add_PolicyServiceServicer_to_server(service, server)

    async with (
        serving(settings, register, service_names=SERVICES) as address,
        mesh_channel(address, services=SERVICES) as opened,
    ):
        yield opened


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> rpc.PolicyServiceStub:
    return rpc.PolicyServiceStub(channel)
