"""PromptService over real gRPC with a memory store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc

from agentnet.inference.v1 import prompt_pb2
from agentnet.inference.v1 import prompt_service_pb2 as pb
from agentnet.inference.v1 import prompt_service_pb2_grpc as rpc
from services.inference.prompts.registry import PromptRegistry
from services.inference.prompts.service import NAME, PromptService
from services.inference.prompts.store_memory import MemoryPromptStore
from shared.clock import FakeClock
from shared.rpc.channel import mesh_channel
from shared.rpc.server import serving
from shared.settings import MeshSettings
from tests.support.identity import Keys


@asynccontextmanager
async def prompt_service(keys: Keys) -> AsyncIterator[tuple[Any, PromptRegistry]]:
    """The stub and the registry behind it."""
    registry = PromptRegistry(MemoryPromptStore(), FakeClock())
    settings = MeshSettings.model_validate(
        {"listen": "127.0.0.1:0", "postgres_dsn": "postgres://nowhere", "identity_keys": keys.jwks, "drain_grace": 0}
    )

    async def register(server: grpc.aio.Server, _stack: AsyncExitStack) -> None:
        rpc.add_PromptServiceServicer_to_server(PromptService(registry), server)

    async with (
        serving(settings, register, service_names=(NAME,)) as address,
        mesh_channel(address, services=(NAME,)) as channel,
    ):
        yield rpc.PromptServiceStub(channel), registry


def creates(template: str, name: str = "greeting", **changes: Any) -> pb.CreatePromptRequest:
    """A prompt of one system message and this one, with the variable `topic`."""
    request = pb.CreatePromptRequest(name=name, **changes)
    request.content.messages.add(role="ROLE_SYSTEM", template="Be kind.")
    request.content.messages.add(role="ROLE_USER", template=template)
    if "topic" in template:
        request.content.variables.add(name="topic", type=prompt_pb2.PROMPT_VARIABLE_TYPE_STRING)
    return request
