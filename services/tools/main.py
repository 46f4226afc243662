"""The composition root of the tools service."""

from __future__ import annotations

from contextlib import AsyncExitStack

import grpc

from agentnet.tools.v1 import tool_service_pb2_grpc as rpc
from services.tools.registry import Registry
from services.tools.sandbox import Sandbox
from services.tools.service import ToolService
from services.tools.settings import ToolsSettings
from services.tools.store_postgres import PostgresToolStore
from shared.clock import SystemClock
from shared.ids import RandomIds
from shared.postgres import open_database
from shared.rpc.server import run

SERVICES = ("agentnet.tools.v1.ToolService",)


def main() -> None:
    settings = ToolsSettings.load()

    async def register(server: grpc.aio.Server, stack: AsyncExitStack) -> None:
        dsn = settings.postgres_dsn.get_secret_value()
        database = await stack.enter_async_context(open_database(dsn, pool=settings.postgres_pool))
        clock = SystemClock()
        sandbox = await stack.enter_async_context(Sandbox(at_once=settings.max_sandboxes))
        await sandbox.prepare()
        registry = Registry(PostgresToolStore(database), sandbox, clock=clock, ids=RandomIds())
        rpc.add_ToolServiceServicer_to_server(ToolService(registry, clock), server)

    run("tools", settings, register, service_names=SERVICES)
