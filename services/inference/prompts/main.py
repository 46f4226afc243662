"""How the prompt registry is built into inference's server."""

from __future__ import annotations

import grpc

from agentnet.inference.v1 import prompt_service_pb2_grpc as rpc
from services.inference.prompts.registry import PromptRegistry
from services.inference.prompts.service import NAME as SERVICE
from services.inference.prompts.service import PromptService
from services.inference.prompts.store_postgres import PostgresPromptStore
from shared.clock import Clock
from shared.postgres import Database

__all__ = ("SERVICE", "register_prompts")


def register_prompts(server: grpc.aio.Server, database: Database, clock: Clock) -> PromptRegistry:
    """Serves PromptService over the inference schema; the registry is for whoever ties generations to versions."""
    registry = PromptRegistry(PostgresPromptStore(database), clock)
    rpc.add_PromptServiceServicer_to_server(PromptService(registry), server)
    return registry
