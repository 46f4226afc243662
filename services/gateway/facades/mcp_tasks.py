"""MCP's extension for tasks (SEP-2663): calls that answer at once with a task, which is asked for until it ends.

Tasks of the mesh are sessions: calls of agents by clients that know of tasks. They outlive any process, and any
replica tells of them. Tools are called while the client waits.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, Protocol

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import StatusCode
from mcp import MCPError, types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server

from agentnet.orchestrator.v1 import input_pb2, input_service_pb2, session_pb2
from agentnet.orchestrator.v1.input_service_pb2_grpc import InputServiceStub
from services.gateway.facades.agents import Agents
from shared.errors import InvalidArgument
from shared.rpc.status import from_rpc

Context = ServerRequestContext[Any, Any]
SERVICE: Final = "agentnet.orchestrator.v1.InputService"
EXTENSION: Final = "io.modelcontextprotocol/tasks"
_NAME_HEADER: Final = "mcp-name"
_POLL_MS: Final = 1000
_ACCEPT: Final = "accept"
_NO_ANSWER: Final = "(They gave no answer.)"


class State(StrEnum):
    WORKING = "working"
    INPUT_REQUIRED = "input_required"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


_STATES: Final = {
    session_pb2.SESSION_STATUS_COMPLETED: State.COMPLETED,
    session_pb2.SESSION_STATUS_FAILED: State.FAILED,
    session_pb2.SESSION_STATUS_CANCELLED: State.CANCELLED,
}


@dataclass(frozen=True, slots=True)
class Task:
    """A call that goes on by itself. `asks` are what the client is asked, each once by a key of its own."""

    id: str
    state: State
    created: datetime
    updated: datetime
    message: str = ""
    result: types.CallToolResult | None = None
    error: Mapping[str, Any] | None = None
    asks: Mapping[str, types.ElicitRequest] = field(default_factory=dict)
    ttl_ms: int | None = None
    """How long it is kept; None: as long as the session."""

    def begun(self) -> dict[str, Any]:
        """As the answer to the call."""
        known = {"taskId": self.id, "status": self.state.value, "pollIntervalMs": _POLL_MS, "ttlMs": self.ttl_ms}
        times = {"createdAt": self.created.isoformat(), "lastUpdatedAt": self.updated.isoformat()}
        return {"resultType": "task", **known, **times, **({"statusMessage": self.message} if self.message else {})}

    def shown(self) -> dict[str, Any]:
        """With what its state brings."""
        found = {**self.begun(), "resultType": "complete"}
        if self.state is State.COMPLETED and self.result:
            found["result"] = _dumped(self.result)
        elif self.state is State.FAILED:
            found["error"] = self.error
        elif self.state is State.INPUT_REQUIRED:
            found["inputRequests"] = {key: _dumped(ask) for key, ask in self.asks.items()}
        return found


class Tasks(Protocol):
    """Tasks of whoever calls. Raises NotFound for those that are not there."""

    async def find(self, task_id: str) -> Task: ...

    async def answer(self, task_id: str, responses: Mapping[str, Any]) -> None:
        """Gives what was asked; keys that wait for nothing are passed over."""

    async def cancel(self, task_id: str) -> None:
        """Ends it, if it has not ended."""


class SessionTasks:
    """Sessions as tasks."""

    def __init__(self, agents: Agents, channel: grpc.aio.Channel) -> None:
        self._agents = agents
        self._inputs = InputServiceStub(channel)

    async def find(self, task_id: str) -> Task:
        return _task(await self._agents.session(task_id))

    async def answer(self, task_id: str, responses: Mapping[str, Any]) -> None:
        session = await self._agents.session(task_id)
        for waiting in session.inputs:
            if (given := responses.get(waiting.id)) is not None:
                await self._give(waiting, given)

    async def cancel(self, task_id: str) -> None:
        await self._agents.end(task_id)

    async def _give(self, waiting: input_pb2.HumanInput, given: Any) -> None:
        accepted = isinstance(given, dict) and given.get("action") == _ACCEPT
        content = given.get("content") if accepted else None
        said = content if isinstance(content, dict) else {}
        approval = waiting.kind == input_pb2.INPUT_KIND_APPROVAL
        answer = said.get("answer", "" if approval or accepted else _NO_ANSWER)
        if not isinstance(answer, str) or not (answer or approval):
            raise InvalidArgument("answer must be a text", field=f"inputResponses.{waiting.id}.content.answer")
        request = input_service_pb2.GiveInputRequest(
            session_id=waiting.session_id, input_id=waiting.id, answer=answer, approved=said.get("approved") is True
        )
        try:
            await self._inputs.GiveInput(request)
        except grpc.aio.AioRpcError as error:
            if error.code() is not StatusCode.NOT_FOUND:  # somebody else answered
                raise from_rpc(error) from error


def declared(context: Context) -> bool:
    """Whether the client says, in this very request, that it knows of tasks: others are never answered with one."""
    meta = (context.params or {}).get("_meta")
    said = meta.get(types.CLIENT_CAPABILITIES_META_KEY) if isinstance(meta, Mapping) else None
    extensions = said.get("extensions") if isinstance(said, Mapping) else None
    return isinstance(extensions, Mapping) and EXTENSION in extensions


def undeclared() -> MCPError:
    """What a client is told that must know of tasks and does not."""
    needed: dict[str, Any] = {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}
    return MCPError(types.MISSING_REQUIRED_CLIENT_CAPABILITY, "this needs the extension for tasks", needed)


class _Named(types.RequestParams):
    """Which task."""

    task_id: str


class _Answered(_Named):
    """What the client answers, by the keys it was asked under."""

    input_responses: dict[str, Any]


def serve(server: Server[Any], tasks: Tasks) -> None:
    """Adds the extension's methods to a server."""

    async def get(_: Context, asked: _Named) -> dict[str, Any]:
        return (await tasks.find(asked.task_id)).shown()

    async def update(_: Context, asked: _Answered) -> dict[str, Any]:
        await tasks.answer(asked.task_id, asked.input_responses)
        return {}

    async def cancel(_: Context, asked: _Named) -> dict[str, Any]:
        await tasks.cancel(asked.task_id)
        return {}

    server.extensions[EXTENSION] = {}
    server.add_request_handler("tasks/get", _Named, _checked(get))
    server.add_request_handler("tasks/update", _Answered, _checked(update))
    server.add_request_handler("tasks/cancel", _Named, _checked(cancel))


def _checked(handler: Callable[[Context, Any], Awaitable[dict[str, Any]]]) -> Any:
    """For clients that know of tasks alone; the header by which others route must name the task (SEP-2243)."""

    async def handled(context: Context, asked: Any) -> dict[str, Any]:
        if not declared(context):
            raise undeclared()
        if context.request is not None and context.request.headers.get(_NAME_HEADER) != asked.task_id:
            raise MCPError(types.HEADER_MISMATCH, f"{_NAME_HEADER} header does not match the request body's task")
        return await handler(context, asked)

    return handled


def _task(session: session_pb2.Session) -> Task:
    created = _instant(session.start_time)
    waiting = [one for one in session.inputs if not session.HasField("end_time")]
    state = State.INPUT_REQUIRED if waiting else _STATES.get(session.status, State.WORKING)
    updated = max([created, *(_instant(one.request_time) for one in waiting)])
    failed = session.failure
    return Task(
        session.id,
        state,
        created,
        _instant(session.end_time) if session.HasField("end_time") else updated,
        message=failed.message if state is State.FAILED else "",
        result=types.CallToolResult(content=[types.TextContent(type="text", text=session.result)]),
        error={"code": types.INTERNAL_ERROR, "message": failed.message or "the session failed"},
        asks={one.id: _ask(one) for one in waiting},
    )


def _ask(waiting: input_pb2.HumanInput) -> types.ElicitRequest:
    words = {"answer": {"type": "string", "title": "Answer"}}
    if waiting.kind == input_pb2.INPUT_KIND_APPROVAL:
        message = waiting.question or f"May {waiting.agent} call {waiting.tool} with {waiting.arguments}?"
        leave = {"approved": {"type": "boolean", "title": "It may"}}
        schema: dict[str, Any] = {"type": "object", "properties": {**leave, **words}, "required": ["approved"]}
    else:
        message, schema = waiting.question, {"type": "object", "properties": words, "required": ["answer"]}
    return types.ElicitRequest(params=types.ElicitRequestFormParams(message=message, requested_schema=schema))


def _instant(at: Timestamp) -> datetime:
    return at.ToDatetime(UTC)


def _dumped(model: types.CallToolResult | types.ElicitRequest) -> dict[str, Any]:
    found: dict[str, Any] = model.model_dump(mode="json", by_alias=True, exclude_none=True)
    return found
