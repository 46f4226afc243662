"""The MCP facade's service: one JSON-RPC message a call, each in a short session of the official library's."""

from __future__ import annotations

import asyncio
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
        answer = await self._answer(message)
        yield http.document(answer.model_dump(by_alias=True, mode="json", exclude_none=True))

    async def GetMcpStream(self, request: pb.GetMcpStreamRequest, context: Any) -> http.Bodies:
        yield await self._refuse(context)

    async def DeleteMcpSession(self, request: pb.DeleteMcpSessionRequest, context: Any) -> http.Bodies:
        yield await self._refuse(context)

    async def _answer(self, message: types.JSONRPCMessage) -> types.JSONRPCMessage:
        """The message that answers this one; what else the session says on the way is for streams and is dropped."""
        asking, asked = anyio.create_memory_object_stream[SessionMessage | Exception](1)
        saying, said = anyio.create_memory_object_stream[SessionMessage](64)
        async with asking, asked, saying, said:
            options = self._server.create_initialization_options()
            running = asyncio.create_task(self._server.run(asked, saying, options, stateless=True))
            try:
                await asking.send(SessionMessage(message))
                async for found in said:
                    if isinstance(found.message.root, types.JSONRPCResponse | types.JSONRPCError):
                        return found.message
            finally:
                await stopped(running)
        raise Unavailable("the session ended without an answer")

    async def _refuse(self, context: Any) -> httpbody_pb2.HttpBody:
        error = {"code": -32000, "message": "not allowed: this server keeps no stream and no session"}
        body = {"jsonrpc": "2.0", "id": None, "error": error}
        return await http.fail(context, _NOT_ALLOWED, body, {"allow": "POST"})
