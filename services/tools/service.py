"""ToolService: convert in, one call of the registry, convert out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

from agentnet.tools.v1 import artefact_pb2 as art
from agentnet.tools.v1 import governance_pb2 as gov
from agentnet.tools.v1 import tool_service_pb2 as pb
from agentnet.tools.v1 import tool_service_pb2_grpc as rpc
from services.tools import convert, sanitise
from services.tools import convert_governance as governance
from services.tools.answer import EMITTED, Status
from services.tools.artefacts import Artefacts
from services.tools.descriptions import described
from services.tools.errors import ArtefactNotFound
from services.tools.flow import Flow, Request
from services.tools.registry import Registry
from services.tools.store import Tool
from shared.clock import Clock
from shared.identity import current

# What stands between a caller and a silent stream takes it for dead after a minute.
_HEARTBEAT_SECONDS: Final = 10.0
_SILENCE: Final = ("", "")


class ToolService(rpc.ToolServiceServicer):
    """Do it, safely."""

    def __init__(self, registry: Registry, flow: Flow, clock: Clock, artefacts: Artefacts | None = None) -> None:
        self._artefacts = artefacts
        self._registry = registry
        self._flow = flow
        self._clock = clock

    async def RegisterTool(self, request: pb.RegisterToolRequest, context: Any) -> pb.RegisterToolResponse:
        tool = convert.new_tool(request.tool, self._clock.now())
        return pb.RegisterToolResponse(tool=convert.tool(await self._registry.register(current(), tool)))

    async def GetTool(self, request: pb.GetToolRequest, context: Any) -> pb.GetToolResponse:
        return pb.GetToolResponse(tool=convert.tool(await self._named(request.name)))

    async def ListTools(self, request: pb.ListToolsRequest, context: Any) -> pb.ListToolsResponse:
        found = await self._registry.every(current().tenant_id, convert.wanted(request))
        return convert.list_response(request, found)

    async def SetToolState(self, request: gov.SetToolStateRequest, context: Any) -> gov.SetToolStateResponse:
        wanted, note = governance.wanted_state(request.state), governance.note(request.note)
        moved = await self._registry.move(current(), await self._named(request.name), wanted, note=note)
        return gov.SetToolStateResponse(tool=convert.tool(moved))

    async def ReviewTool(self, request: gov.ReviewToolRequest, context: Any) -> gov.ReviewToolResponse:
        note, tool = governance.note(request.note), await self._named(request.name)
        reviewed, missing = await self._registry.review(current(), tool, approve=request.approve, note=note)
        return gov.ReviewToolResponse(tool=convert.tool(reviewed), missing=missing)

    async def ListToolAudit(self, request: gov.ListToolAuditRequest, context: Any) -> gov.ListToolAuditResponse:
        tool = await self._named(request.name)
        return governance.audit_response(request, await self._registry.audit(current().tenant_id, tool))

    async def GetToolUsage(self, request: gov.GetToolUsageRequest, context: Any) -> gov.GetToolUsageResponse:
        tool = await self._named(request.name)
        return governance.usage_response(await self._registry.usage(current().tenant_id, tool))

    async def GetToolSchemas(self, request: gov.GetToolSchemasRequest, context: Any) -> gov.GetToolSchemasResponse:
        wanted = governance.description_format(request.format)
        tools = await self._registry.in_use(current().tenant_id, agent=request.agent)
        return governance.schemas_response(described(tools, wanted))

    async def InvokeTool(self, request: pb.InvokeToolRequest, context: Any) -> pb.InvokeToolResponse:
        asked = await self._asked(request)
        invocation_id = self._flow.new_invocation()
        printed: dict[str, str] = {"stdout": "", "stderr": ""}
        emitted: list[pb.ToolEmitted] = []

        def keep(stream: str, text: str) -> None:
            if stream == EMITTED:
                emitted.append(convert.emitted(text))
            else:
                printed[stream] += sanitise.text(text)

        outcome = await self._flow.run(current(), asked, invocation_id, keep)
        if outcome.status is not Status.OK:
            raise convert.failed(outcome)
        finished = await asyncio.to_thread(convert.finished, outcome)
        return pb.InvokeToolResponse(
            invocation_id=invocation_id,
            finished=finished,
            replayed=outcome.replayed,
            cached=outcome.cached,
            emitted=emitted,
            **printed,
        )

    async def StreamTool(self, request: pb.StreamToolRequest, context: Any) -> AsyncIterator[pb.StreamToolResponse]:
        asked, caller = await self._asked(request.invocation), current()
        invocation_id = self._flow.new_invocation()
        events: asyncio.Queue[tuple[str, str] | None] = asyncio.Queue()

        def printed(stream: str, text: str) -> None:
            events.put_nowait((stream, text))

        work = asyncio.create_task(self._flow.run(caller, asked, invocation_id, printed))
        work.add_done_callback(lambda _: events.put_nowait(None))
        sequence = 1
        try:
            started = pb.ToolStarted(tool=asked.tool.reference)
            yield pb.StreamToolResponse(invocation_id=invocation_id, sequence=sequence, started=started)
            while event := await _next(events):
                if event == _SILENCE:
                    yield convert.heartbeat(invocation_id, sequence, self._clock.now())
                    continue
                sequence += 1
                yield convert.streamed(invocation_id, sequence, *event)
            finished = await asyncio.to_thread(convert.finished, await work)
            yield pb.StreamToolResponse(invocation_id=invocation_id, sequence=sequence + 1, finished=finished)
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    async def GetToolArtefact(self, request: art.GetToolArtefactRequest, context: Any) -> art.GetToolArtefactResponse:
        invocation_id, name = convert.artefact(request)
        if self._artefacts is None:
            raise ArtefactNotFound("this mesh keeps no artefacts", tool=invocation_id)
        content = await self._artefacts.read(current().tenant_id, invocation_id, name)
        return art.GetToolArtefactResponse(content=content)

    async def _asked(self, request: pb.InvokeToolRequest) -> Request:
        name, version = convert.reference(request.name)
        tool = await self._registry.select(current().tenant_id, name, version, agent=request.agent)
        asked = convert.asked(request, tool)
        await self._flow.admit(current(), asked, override=convert.override_token(request))
        return asked

    async def _named(self, name: str) -> Tool:
        return await self._registry.find(current().tenant_id, *convert.reference(name))


async def _next(events: asyncio.Queue[tuple[str, str] | None]) -> tuple[str, str] | None:
    """What the call says next; silence when it says nothing for a while, None at its end."""
    try:
        async with asyncio.timeout(_HEARTBEAT_SECONDS):
            return await events.get()
    except TimeoutError:
        return _SILENCE
