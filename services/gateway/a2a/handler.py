"""The eleven methods, as the official library has them called from each of its three transports."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC
from typing import Any, Final

from a2a.server.context import ServerCallContext
from a2a.server.request_handlers.request_handler import RequestHandler
from a2a.types import a2a_pb2
from a2a.utils.errors import InvalidParamsError, TaskNotFoundError, VersionNotSupportedError
from a2a.utils.input_mode_validator import validate_input_modes
from a2a.utils.proto_utils import validate_proto_required_fields

from services.gateway.a2a.cards import PROTOCOL, TEXT, AgentUnknown, Cards
from services.gateway.a2a.push import Push
from services.gateway.a2a.store import A2aStore, Record, Sought
from services.gateway.a2a.tasks import Tasks, Told
from shared.errors import InvalidArgument
from shared.identity import current
from shared.ids import Ids
from shared.paging import next_page_token, page

AGENT: Final = "agent"
GRPC: Final = "grpc_context"
_VERSION: Final = "a2a-version"
_MOST: Final = 100
_ACCEPTED: Final = a2a_pb2.AgentCard(default_input_modes=TEXT)


class A2aHandler(RequestHandler):
    """Checks what comes, asks the tasks, and trims what goes."""

    def __init__(self, tasks: Tasks, cards: Cards, store: A2aStore, push: Push, ids: Ids) -> None:
        self._tasks = tasks
        self._cards = cards
        self._store = store
        self._push = push
        self._ids = ids

    async def on_message_send(
        self, params: a2a_pb2.SendMessageRequest, context: ServerCallContext
    ) -> a2a_pb2.Task | a2a_pb2.Message:
        task_id = ""
        async with aclosing(self._send(params, context)) as updates:
            async for told in updates:
                if isinstance(told, a2a_pb2.Message):
                    return told
                if isinstance(told, a2a_pb2.Task):
                    task_id, begun = told.id, told
                if params.configuration.return_immediately:
                    return _trimmed(begun, params.configuration)
        return _trimmed((await self._tasks.find(task_id)).read(), params.configuration)

    async def on_message_send_stream(
        self, params: a2a_pb2.SendMessageRequest, context: ServerCallContext
    ) -> AsyncGenerator[Told, None]:
        async with aclosing(self._send(params, context)) as updates:
            async for told in updates:
                yield _trimmed(told, params.configuration) if isinstance(told, a2a_pb2.Task) else told

    async def on_get_task(self, params: a2a_pb2.GetTaskRequest, context: ServerCallContext) -> a2a_pb2.Task:
        _entered(params, context)
        if params.HasField("history_length") and params.history_length < 0:
            raise InvalidParamsError("historyLength must not be negative")
        return _trimmed((await self._tasks.find(params.id)).read(), params)

    async def on_list_tasks(
        self, params: a2a_pb2.ListTasksRequest, context: ServerCallContext
    ) -> a2a_pb2.ListTasksResponse:
        _entered(params, context)
        sought = _sought(params, _agent(context))
        size = params.page_size if params.HasField("page_size") else 50
        if not 1 <= size <= _MOST:
            raise InvalidParamsError(f"pageSize must be from 1 to {_MOST}")
        if params.HasField("history_length") and params.history_length < 0:
            raise InvalidParamsError("historyLength must not be negative")
        scope = f"a2a:{sought}"
        try:
            asked = page(size, params.page_token, scope=scope)
        except InvalidArgument as error:
            raise InvalidParamsError(error.message) from error
        found, total = await self._tasks.search(sought, asked)
        shown = [_listed(record, params) for record in found[: asked.size]]
        more = found[asked.size - 1] if len(found) > asked.size else None
        cursor = (more.updated_at.isoformat(timespec="microseconds"), more.id) if more else None
        token = next_page_token(cursor, scope=scope)
        return a2a_pb2.ListTasksResponse(tasks=shown, next_page_token=token, page_size=size, total_size=total)

    async def on_cancel_task(self, params: a2a_pb2.CancelTaskRequest, context: ServerCallContext) -> a2a_pb2.Task:
        _entered(params, context)
        return (await self._tasks.cancel(params.id)).read()

    async def on_subscribe_to_task(
        self, params: a2a_pb2.SubscribeToTaskRequest, context: ServerCallContext
    ) -> AsyncGenerator[Told, None]:
        _entered(params, context)
        async with aclosing(self._tasks.follow(params.id)) as updates:
            async for told in updates:
                yield told

    async def on_create_task_push_notification_config(
        self, params: a2a_pb2.TaskPushNotificationConfig, context: ServerCallContext
    ) -> a2a_pb2.TaskPushNotificationConfig:
        _entered(params, context)
        await self._tasks.find(params.task_id)
        config = self._address(params)
        await self._store.put_address(current().tenant_id, config.task_id, config.id, config.SerializeToString())
        return config

    async def on_get_task_push_notification_config(
        self, params: a2a_pb2.GetTaskPushNotificationConfigRequest, context: ServerCallContext
    ) -> a2a_pb2.TaskPushNotificationConfig:
        _entered(params, context)
        for config in await self._addresses(params.task_id):
            if config.id == params.id:
                return config
        raise TaskNotFoundError(f"the task {params.task_id} has no address {params.id}")

    async def on_list_task_push_notification_configs(
        self, params: a2a_pb2.ListTaskPushNotificationConfigsRequest, context: ServerCallContext
    ) -> a2a_pb2.ListTaskPushNotificationConfigsResponse:
        _entered(params, context)
        return a2a_pb2.ListTaskPushNotificationConfigsResponse(configs=await self._addresses(params.task_id))

    async def on_delete_task_push_notification_config(
        self, params: a2a_pb2.DeleteTaskPushNotificationConfigRequest, context: ServerCallContext
    ) -> None:
        _entered(params, context)
        await self._tasks.find(params.task_id)
        await self._store.delete_address(current().tenant_id, params.task_id, params.id)

    async def on_get_extended_agent_card(
        self, params: a2a_pb2.GetExtendedAgentCardRequest, context: ServerCallContext
    ) -> a2a_pb2.AgentCard:
        _entered(params, context)
        try:
            return await self._cards.of(_agent(context))
        except AgentUnknown as error:
            raise InvalidParamsError(error.message) from error

    async def _send(self, params: a2a_pb2.SendMessageRequest, context: ServerCallContext) -> AsyncGenerator[Told, None]:
        _entered(params, context)
        _require_message(params.message)
        if params.configuration.HasField("history_length") and params.configuration.history_length < 0:
            raise InvalidParamsError("historyLength must not be negative")
        try:
            agent = await self._cards.named(_agent(context))
        except AgentUnknown as error:
            raise InvalidParamsError(error.message) from error
        address = b""
        if params.configuration.HasField("task_push_notification_config"):
            address = self._address(params.configuration.task_push_notification_config).SerializeToString()
        async with aclosing(self._tasks.send(agent, params.message, address)) as updates:
            async for told in updates:
                yield told

    def _address(self, given: a2a_pb2.TaskPushNotificationConfig) -> a2a_pb2.TaskPushNotificationConfig:
        config = a2a_pb2.TaskPushNotificationConfig()
        config.CopyFrom(given)
        config.id = config.id or self._ids.new("push")
        try:
            self._push.check(config)
        except InvalidArgument as error:
            raise InvalidParamsError(error.message) from error
        return config

    async def _addresses(self, task_id: str) -> list[a2a_pb2.TaskPushNotificationConfig]:
        await self._tasks.find(task_id)
        found = await self._store.addresses(current().tenant_id, task_id)
        return [a2a_pb2.TaskPushNotificationConfig.FromString(config) for config in found]


def _entered(params: Any, context: ServerCallContext) -> None:
    """The version, over gRPC too, where the library leaves it to us; and the fields a request must have."""
    if (call := context.state.get(GRPC)) is not None:
        given = dict(call.invocation_metadata() or ()).get(_VERSION, "")
        if given.split(".")[:1] != PROTOCOL.split(".")[:1]:
            raise VersionNotSupportedError(f"this mesh speaks A2A {PROTOCOL}; send the header A2A-Version")
    validate_proto_required_fields(params)


def _agent(context: ServerCallContext) -> str:
    """From the path, or the request's tenant."""
    return str(context.state.get(AGENT) or context.tenant)


def _require_message(message: a2a_pb2.Message) -> None:
    if not message.parts:
        raise InvalidParamsError("message.parts must not be empty")
    if not message.message_id:
        raise InvalidParamsError("message.messageId must not be empty")
    if any(part.WhichOneof("content") in {"raw", "url"} and not part.media_type for part in message.parts):
        raise InvalidParamsError("a file needs its mediaType")
    validate_input_modes(message, _ACCEPTED)


def _trimmed(task: a2a_pb2.Task, limit: Any) -> a2a_pb2.Task:
    """With no more messages than asked for, the latest ones."""
    if limit.HasField("history_length"):
        kept = list(task.history)[-limit.history_length :] if limit.history_length else []
        del task.history[:]
        task.history.extend(kept)
    return task


def _listed(record: Record, params: a2a_pb2.ListTasksRequest) -> a2a_pb2.Task:
    task = _trimmed(record.read(), params)
    if not params.include_artifacts:
        del task.artifacts[:]
    return task


def _sought(params: a2a_pb2.ListTasksRequest, agent: str) -> Sought:
    since = params.status_timestamp_after.ToDatetime(UTC) if params.HasField("status_timestamp_after") else None
    return Sought(agent, params.context_id, params.status, since)
