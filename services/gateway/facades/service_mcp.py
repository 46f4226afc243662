"""The MCP facade's service: one JSON-RPC message a call, answered by the official library's own transport."""

from __future__ import annotations

from typing import Any, Final

from google.api import httpbody_pb2
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from agentnet.gateway.v1 import mcp_service_pb2 as pb
from agentnet.gateway.v1 import mcp_service_pb2_grpc
from services.gateway.facades import asgi, http
from shared.rpc.server import MAX_MESSAGE_BYTES

_NOT_ALLOWED: Final = 405
_ACCEPT: Final = b"accept"
_EVENTS: Final = "text/event-stream"


class McpService(mcp_service_pb2_grpc.McpServiceServicer):
    """Streamable HTTP without sessions, in every revision the library speaks: with its handshake or without."""

    def __init__(self, server: Server[Any]) -> None:
        self._server = server

    def PostMcpMessage(self, request: httpbody_pb2.HttpBody, context: Any) -> http.Bodies:
        return asgi.answer(self._exchange, context, verb="POST", path={}, body=request.data)

    async def GetMcpStream(self, request: pb.GetMcpStreamRequest, context: Any) -> http.Bodies:
        yield await _refuse(context)

    async def DeleteMcpSession(self, request: pb.DeleteMcpSessionRequest, context: Any) -> http.Bodies:
        yield await _refuse(context)

    async def _exchange(self, request: Request) -> ASGIApp:
        """Events for who asks for them, so that progress comes before the result; JSON for everyone else."""
        events = _EVENTS in request.headers.get("accept", "")
        manager = StreamableHTTPSessionManager(
            self._server, json_response=not events, stateless=True, max_request_body_size=MAX_MESSAGE_BYTES
        )

        async def run(scope: Scope, receive: Receive, send: Send) -> None:
            kept = [header for header in scope["headers"] if events or header[0] != _ACCEPT]
            known = kept if events else [*kept, (_ACCEPT, b"application/json")]
            async with manager.run():
                await manager.handle_request({**scope, "headers": known}, receive, send)

        return run


async def _refuse(context: Any) -> httpbody_pb2.HttpBody:
    error = {"code": -32000, "message": "not allowed: this server keeps no stream and no session"}
    body = {"jsonrpc": "2.0", "id": None, "error": error}
    return await http.fail(context, _NOT_ALLOWED, body, {"allow": "POST"})
