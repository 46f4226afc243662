"""ToolService: convert in, one call of the registry, convert out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from agentnet.tools.v1 import tool_service_pb2 as pb
from agentnet.tools.v1 import tool_service_pb2_grpc as rpc
from services.tools import convert
from services.tools.answer import Status
from services.tools.registry import Registry, Request
from shared import fields
from shared.clock import Clock
from shared.identity import current


class ToolService(rpc.ToolServiceServicer):
    """Do it, safely."""

    def __init__(self, registry: Registry, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock

    async def RegisterTool(self, request: pb.RegisterToolRequest, context: Any) -> pb.RegisterToolResponse:
        tool = convert.new_tool(request.tool, self._clock.now())
        return pb.RegisterToolResponse(tool=convert.tool(await self._registry.register(current().tenant_id, tool)))

    async def GetTool(self, request: pb.GetToolRequest, context: Any) -> pb.GetToolResponse:
        found = await self._registry.find(current().tenant_id, *convert.reference(request.name))
        return pb.GetToolResponse(tool=convert.tool(found))

    async def ListTools(self, request: pb.ListToolsRequest, context: Any) -> pb.ListToolsResponse:
        found = await self._registry.every(current().tenant_id, agent=request.agent, exec_mode=request.exec_mode)
        return convert.list_response(request, found)

    async def InvokeTool(self, request: pb.InvokeToolRequest, context: Any) -> pb.InvokeToolResponse:
        asked = await self._asked(request)
        invocation_id = self._registry.new_invocation()
        printed: dict[str, str] = {"stdout": "", "stderr": ""}

        def keep(stream: str, text: str) -> None:
            printed[stream] += text

        outcome = await self._registry.run(current(), asked, invocation_id, keep)
        if outcome.status is not Status.OK:
            raise convert.failed(outcome)
        return pb.InvokeToolResponse(invocation_id=invocation_id, finished=convert.finished(outcome), **printed)

    async def StreamTool(self, request: pb.StreamToolRequest, context: Any) -> AsyncIterator[pb.StreamToolResponse]:
        asked, caller = await self._asked(request.invocation), current()
        invocation_id = self._registry.new_invocation()
        events: asyncio.Queue[tuple[str, str] | None] = asyncio.Queue()

        def printed(stream: str, text: str) -> None:
            events.put_nowait((stream, text))

        work = asyncio.create_task(self._registry.run(caller, asked, invocation_id, printed))
        work.add_done_callback(lambda _: events.put_nowait(None))
        sequence = 1
        try:
            started = pb.ToolStarted(tool=asked.tool.reference)
            yield pb.StreamToolResponse(invocation_id=invocation_id, sequence=sequence, started=started)
            while event := await events.get():
                sequence += 1
                output = pb.ToolOutput(stream=convert.STREAMS[event[0]], text=event[1])
                yield pb.StreamToolResponse(invocation_id=invocation_id, sequence=sequence, output=output)
            finished = convert.finished(await work)
            yield pb.StreamToolResponse(invocation_id=invocation_id, sequence=sequence + 1, finished=finished)
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    async def _asked(self, request: pb.InvokeToolRequest) -> Request:
        tool = await self._registry.find(current().tenant_id, *convert.reference(request.name))
        asked = Request(
            tool=tool,
            arguments=convert.arguments(request),
            agent=fields.text(request.agent, "agent", limit=100),
            session_id=fields.text(request.session_id, "session_id", limit=64),
            turn_id=fields.text(request.turn_id, "turn_id", limit=64),
        )
        self._registry.admit(current(), asked)
        return asked
