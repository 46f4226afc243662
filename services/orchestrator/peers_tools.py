"""tools over the mesh: what there is, and calls that have their effect once."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Final

import grpc
from google.protobuf import json_format, struct_pb2

from agentnet.inference.v1 import message_pb2
from agentnet.orchestrator.v1 import turn_pb2
from agentnet.tools.v1 import tool_pb2
from agentnet.tools.v1 import tool_service_pb2 as tools
from agentnet.tools.v1 import tool_service_pb2_grpc as tools_rpc
from services.orchestrator.peers import ToolAnswer, ToolShown
from services.orchestrator.peers_grpc import called, closing, signed
from services.orchestrator.speech import Call
from shared.errors import NotFound, Unavailable, from_failure
from shared.identity import Principal, Signer
from shared.log import log

_KNOWN_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 5.0
# A function may run for ten minutes.
_CALL_SECONDS: Final = 620.0
_STDOUT: Final = "stdout"
_STREAMS: Final = {tools.OUTPUT_STREAM_STDOUT: _STDOUT, tools.OUTPUT_STREAM_STDERR: "stderr"}


class GrpcTools:
    """agentnet.tools.v1."""

    def __init__(self, channel: grpc.aio.Channel, signer: Signer) -> None:
        self._stub = tools_rpc.ToolServiceStub(channel)
        self._signer = signer
        self._known: dict[tuple[str, str], tuple[float, message_pb2.ToolDefinition]] = {}

    async def describe(self, caller: Principal, names: Sequence[str]) -> tuple[message_pb2.ToolDefinition, ...]:
        found = [await self._definition(caller, name) for name in names]
        return tuple(definition for definition in found if definition is not None)

    async def find(self, caller: Principal, reference: str) -> tool_pb2.Tool:
        """See ToolIndex."""
        request = tools.GetToolRequest(name=reference)
        metadata = signed(self._signer, caller)
        found: tools.GetToolResponse = await called(
            self._stub.GetTool(request, metadata=metadata, timeout=_LOOK_SECONDS)
        )
        return found.tool

    async def invoke(
        self, caller: Principal, call: Call, *, agent: str, session_id: str, turn_id: str, override_token: str = ""
    ) -> ToolAnswer:
        request = _request(call, agent, session_id, turn_id, override_token)
        metadata = signed(self._signer, caller)
        answer = await called(self._stub.InvokeTool(request, metadata=metadata, timeout=_CALL_SECONDS))
        return _answer(answer.finished, answer.stdout, answer.invocation_id, replayed=answer.replayed)

    async def stream(
        self, caller: Principal, call: Call, *, agent: str, session_id: str, turn_id: str, override_token: str = ""
    ) -> AsyncGenerator[ToolShown | ToolAnswer, None]:
        invocation = _request(call, agent, session_id, turn_id, override_token)
        request = tools.StreamToolRequest(invocation=invocation)
        streamed = self._stub.StreamTool(request, metadata=signed(self._signer, caller), timeout=_CALL_SECONDS)
        printed: list[str] = []
        async with closing(streamed):
            async for event in streamed:
                if event.HasField("finished"):
                    ended = event.finished
                    yield _answer(ended, "".join(printed), event.invocation_id, replayed=ended.replayed)
                    return
                if shown := _progress(event):
                    printed += [shown.text] if shown.kind == _STDOUT else []
                    yield shown
        raise Unavailable("the tool's stream ended without its end", dependency="tools")

    async def _definition(self, caller: Principal, name: str) -> message_pb2.ToolDefinition | None:
        """A tool as models are told of it; None when it is not there. That is not remembered: it may come."""
        key = (caller.tenant_id, name)
        until, known = self._known.get(key, (0.0, message_pb2.ToolDefinition()))
        if time.monotonic() < until:
            return known
        request = tools.GetToolRequest(name=name)
        try:
            metadata = signed(self._signer, caller)
            found = await called(self._stub.GetTool(request, metadata=metadata, timeout=_LOOK_SECONDS))
            known = _told(found.tool)
        except NotFound:
            log.warning("tool.unknown", tool=name)
            return None
        self._known[key] = (time.monotonic() + _KNOWN_SECONDS, known)
        return known


def _told(tool: tool_pb2.Tool) -> message_pb2.ToolDefinition:
    return message_pb2.ToolDefinition(name=tool.name, description=tool.description, input_schema=tool.input_schema)


def _request(call: Call, agent: str, session_id: str, turn_id: str, override_token: str) -> tools.InvokeToolRequest:
    return tools.InvokeToolRequest(
        name=call.tool,
        arguments=json_format.Parse(call.arguments or "{}", struct_pb2.Struct()),
        agent=agent.partition("@")[0],
        session_id=session_id,
        turn_id=turn_id,
        request_id=call.request_id,
        override_token=override_token,
    )


def _answer(ended: tools.ToolFinished, stdout: str, invocation_id: str, *, replayed: bool) -> ToolAnswer:
    """Raises what it failed with."""
    if ended.HasField("failure"):
        raise from_failure(ended.failure)
    left = tuple(
        turn_pb2.LeftArtefact(invocation_id=one.invocation_id, name=one.name, size=one.size, sha256=one.sha256)
        for one in ended.artefacts
    )
    return ToolAnswer(_shown(ended, stdout), invocation_id, replayed, artefacts=left)


def _progress(event: tools.StreamToolResponse) -> ToolShown | None:
    if event.HasField("output"):
        return ToolShown(_STREAMS.get(event.output.stream, _STDOUT), event.output.text, event.invocation_id)
    if event.HasField("emitted"):
        data = json.dumps(_plain(json_format.MessageToDict(event.emitted.data)), ensure_ascii=False)
        return ToolShown(event.emitted.kind, data, event.invocation_id)
    return None


def _shown(ended: tools.ToolFinished, stdout: str) -> str:
    """A result as a model reads it: text as it is, anything else as JSON; what was printed when there is no result."""
    result: Any = json_format.MessageToDict(ended.result) if ended.HasField("result") else None
    if result is None:
        return stdout
    return result if isinstance(result, str) else json.dumps(_plain(result), ensure_ascii=False)


def _plain(value: Any) -> Any:
    """Whole numbers as they were: a Value knows only floats."""
    match value:
        case float() if value.is_integer():
            return int(value)
        case dict():
            return {name: _plain(part) for name, part in value.items()}
        case list():
            return [_plain(part) for part in value]
        case _:
            return value
