"""The MCP facade's service: one JSON-RPC message a call, each in a short session of the official library's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final

import anyio
from google.api import httpbody_pb2
from mcp import types
from mcp.server.lowlevel import Server
from mcp.shared.message import SessionMessage
from pydantic import ValidationError

from agentnet.gateway.v1 import mcp_service_pb2 as pb
from agentnet.gateway.v1 import mcp_service_pb2_grpc
from services.gateway.facades import http
from shared.errors import Unavailable
from shared.tasks import stopped

_ACCEPTED: Final = 202
_BAD_REQUEST: Final = 400
_NOT_ALLOWED: Final = 405
_PARSE_ERROR: Final = -32700
_EVENTS: Final = "text/event-stream"
_CALL: Final = "tools/call"


class McpService(mcp_service_pb2_grpc.McpServiceServicer):
    """Streamable HTTP, stateless."""

    def __init__(self, server: Server[Any, Any]) -> None:
        self._server = server

    async def PostMcpMessage(self, request: httpbody_pb2.HttpBody, context: Any) -> http.Bodies:
        try:
            message = types.JSONRPCMessage.model_validate_json(request.data)
        except ValidationError:
            error = {"code": _PARSE_ERROR, "message": "the body is not a JSON-RPC message"}
            yield await http.fail(context, _BAD_REQUEST, {"jsonrpc": "2.0", "id": None, "error": error}, {})
            return
        if not isinstance(message.root, types.JSONRPCRequest):
            await context.send_initial_metadata(((http.STATUS, str(_ACCEPTED)),))
            yield httpbody_pb2.HttpBody(content_type="application/json")
            return
        if _streams(message.root, context):
            async for body in http.stream(self._events(message)):
                yield body
            return
        yield http.document(_json(await self._answer(message)))

    async def GetMcpStream(self, request: pb.GetMcpStreamRequest, context: Any) -> http.Bodies:
        yield await self._refuse(context)

    async def DeleteMcpSession(self, request: pb.DeleteMcpSessionRequest, context: Any) -> http.Bodies:
        yield await self._refuse(context)

    async def _answer(self, message: types.JSONRPCMessage) -> types.JSONRPCMessage:
        async with aclosing(self._told(message)) as told:
            async for one in told:
                if _answers(one):
                    return one
        raise Unavailable("the session ended without an answer")

    async def _events(self, message: types.JSONRPCMessage) -> AsyncGenerator[bytes, None]:
        async with aclosing(self._told(message)) as told:
            async for one in told:
                yield http.event(http.text(_json(one)), name="message")

    async def _told(self, message: types.JSONRPCMessage) -> AsyncGenerator[types.JSONRPCMessage, None]:
        """What the session says on the way, and last the message that answers this one."""
        asking, asked = anyio.create_memory_object_stream[SessionMessage | Exception](1)
        saying, said = anyio.create_memory_object_stream[SessionMessage](64)
        async with asking, asked, saying, said:
            options = self._server.create_initialization_options()
            running = asyncio.create_task(self._server.run(asked, saying, options, stateless=True))
            try:
                await asking.send(SessionMessage(message))
                async for found in said:
                    yield found.message
                    if _answers(found.message):
                        return
            finally:
                await stopped(running)

    async def _refuse(self, context: Any) -> httpbody_pb2.HttpBody:
        error = {"code": -32000, "message": "not allowed: this server keeps no stream and no session"}
        body = {"jsonrpc": "2.0", "id": None, "error": error}
        return await http.fail(context, _NOT_ALLOWED, body, {"allow": "POST"})


def _answers(message: types.JSONRPCMessage) -> bool:
    return isinstance(message.root, types.JSONRPCResponse | types.JSONRPCError)


def _streams(request: types.JSONRPCRequest, context: Any) -> bool:
    """A call of a tool, for a client that reads streams: progress and logs come before the result."""
    accepted = dict(context.invocation_metadata() or ()).get("accept", "")
    return request.method == _CALL and _EVENTS in accepted


def _json(message: types.JSONRPCMessage) -> dict[str, Any]:
    written: dict[str, Any] = message.model_dump(by_alias=True, mode="json", exclude_none=True)
    return written
