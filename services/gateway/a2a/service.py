"""A2A over HTTP, by the official library's dispatchers; and what its gRPC handler is told about a call."""

from __future__ import annotations

import hashlib
from email.utils import formatdate
from typing import Any, Final

from a2a.server.context import ServerCallContext
from a2a.server.request_handlers.grpc_handler import GrpcHandler, GrpcServerCallContextBuilder
from a2a.server.request_handlers.response_helpers import build_error_response
from a2a.server.routes.common import ServerCallContextBuilder
from a2a.server.routes.jsonrpc_dispatcher import JsonRpcDispatcher
from a2a.server.routes.rest_dispatcher import RestDispatcher
from a2a.types import a2a_pb2
from a2a.utils import json_utils
from a2a.utils.errors import ContentTypeNotSupportedError
from google.protobuf import json_format
from starlette.requests import Request

from agentnet.gateway.v1 import a2a_service_pb2 as pb
from agentnet.gateway.v1 import a2a_service_pb2_grpc
from services.gateway.a2a.cards import Cards
from services.gateway.a2a.handler import AGENT, GRPC, A2aHandler
from services.gateway.facades import asgi, http

_CARD_SECONDS: Final = 300
_JSON: Final = frozenset({"", "application/json", "application/a2a+json"})
_SINCE: Final = formatdate(usegmt=True)  # a card changes with the release that serves it


class A2aService(a2a_service_pb2_grpc.A2aServiceServicer):
    """JSON-RPC and HTTP+JSON."""

    def __init__(self, handler: A2aHandler, cards: Cards) -> None:
        self._rpc = JsonRpcDispatcher(handler, _HttpCall())
        self._rest = RestDispatcher(handler, _HttpCall())
        self._cards = cards

    async def GetPublicAgentCard(self, request: pb.GetPublicAgentCardRequest, context: Any) -> http.Bodies:
        yield await _card(self._cards.public(), context, shared=True)

    async def GetAgentCard(self, request: pb.GetAgentCardRequest, context: Any) -> http.Bodies:
        yield await _card(await self._cards.of(request.agent), context, shared=False)

    def PostA2aMessage(self, request: pb.PostA2aMessageRequest, context: Any) -> http.Bodies:
        kind = request.body.content_type.partition(";")[0].strip().lower()
        if kind not in _JSON:
            return _refused(f"a JSON-RPC message is application/json, not {kind}")
        return _answer(self._rpc.handle_requests, request, context, "POST")

    def SendMessage(self, request: pb.SendMessageRequest, context: Any) -> http.Bodies:
        return _answer(self._rest.on_message_send, request, context, "POST")

    def SendStreamingMessage(self, request: pb.SendStreamingMessageRequest, context: Any) -> http.Bodies:
        return _answer(self._rest.on_message_send_stream, request, context, "POST")

    def GetTask(self, request: pb.GetTaskRequest, context: Any) -> http.Bodies:
        return _answer(self._rest.on_get_task, request, context, "GET", id=request.id)

    def ListTasks(self, request: pb.ListTasksRequest, context: Any) -> http.Bodies:
        return _answer(self._rest.list_tasks, request, context, "GET")

    def CancelTask(self, request: pb.CancelTaskRequest, context: Any) -> http.Bodies:
        return _answer(self._rest.on_cancel_task, request, context, "POST", id=request.id)

    def SubscribeToTask(self, request: pb.SubscribeToTaskRequest, context: Any) -> http.Bodies:
        return _answer(self._rest.on_subscribe_to_task, request, context, "GET", id=request.id)

    def CreateTaskPushNotificationConfig(
        self, request: pb.CreateTaskPushNotificationConfigRequest, context: Any
    ) -> http.Bodies:
        return _answer(self._rest.set_push_notification, request, context, "POST", id=request.task_id)

    def GetTaskPushNotificationConfig(
        self, request: pb.GetTaskPushNotificationConfigRequest, context: Any
    ) -> http.Bodies:
        path = {"id": request.task_id, "push_id": request.id}
        return _answer(self._rest.get_push_notification, request, context, "GET", **path)

    def ListTaskPushNotificationConfigs(
        self, request: pb.ListTaskPushNotificationConfigsRequest, context: Any
    ) -> http.Bodies:
        return _answer(self._rest.list_push_notifications, request, context, "GET", id=request.task_id)

    def DeleteTaskPushNotificationConfig(
        self, request: pb.DeleteTaskPushNotificationConfigRequest, context: Any
    ) -> http.Bodies:
        path = {"id": request.task_id, "push_id": request.id}
        return _answer(self._rest.delete_push_notification, request, context, "DELETE", **path)

    def GetExtendedAgentCard(self, request: pb.GetExtendedAgentCardRequest, context: Any) -> http.Bodies:
        return _answer(self._rest.handle_authenticated_agent_card, request, context, "GET")


def grpc_service(handler: A2aHandler) -> GrpcHandler:
    """The official library's, over the same tasks."""
    return GrpcHandler(handler, _GrpcCall())


class _HttpCall(ServerCallContextBuilder):
    def build(self, request: Request) -> ServerCallContext:
        return ServerCallContext(state={"headers": dict(request.headers), AGENT: request.path_params[AGENT]})


class _GrpcCall(GrpcServerCallContextBuilder):
    def build(self, context: Any) -> ServerCallContext:
        return ServerCallContext(state={GRPC: context})


def _answer(endpoint: asgi.Endpoint, request: Any, context: Any, verb: str, **path: str) -> http.Bodies:
    body = request.body.data if "body" in request.DESCRIPTOR.fields_by_name else b""
    return asgi.answer(endpoint, context, verb=verb, path={AGENT: request.agent, **path}, body=body)


async def _refused(why: str) -> http.Bodies:
    yield http.document(build_error_response(None, ContentTypeNotSupportedError(why)))


async def _card(card: a2a_pb2.AgentCard, context: Any, *, shared: bool) -> Any:
    """With what caches need to know."""
    body = json_format.MessageToDict(card)
    digest = hashlib.sha256(json_utils.dumps(body).encode()).hexdigest()
    scope = "public" if shared else "private"
    headers = (
        ("cache-control", f"{scope}, max-age={_CARD_SECONDS}"),
        ("etag", f'"{digest[:32]}"'),
        *((("last-modified", _SINCE),) if shared else ()),
    )
    await context.send_initial_metadata(headers)
    return http.document(body)
