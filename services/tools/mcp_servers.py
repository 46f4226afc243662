"""exec_mode "mcp": a tool of an MCP server, over streamable HTTP or from a server's source in the sandbox."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final

import anyio
import httpx2
from mcp import Client, ClientSession, MCPError
from mcp.client._transport import TransportStreams
from mcp.client.client import ConnectMode
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import SessionMessage
from mcp.types import CONNECTION_CLOSED, CallToolResult, PaginatedRequestParams, TextContent, jsonrpc_message_adapter
from mcp.types import Tool as RemoteTool
from pydantic import ValidationError

from services.tools import answer, egress
from services.tools.answer import Outcome, Printed, Status
from services.tools.errors import ToolSchemaChanged
from services.tools.executor import Isolation, Work
from services.tools.http_api import target_of
from services.tools.orders import ScriptCall
from services.tools.registry import schema_hash
from services.tools.sandbox import Sandbox
from services.tools.secrets import Secrets
from shared.errors import MeshError

_MEMORY_MIB: Final = 256
_PAGES: Final = 20
_MESSAGES: Final = 64


class McpExecutor:
    """Calls MCP servers with the official client, one session a call."""

    isolation = Isolation.NAMESPACES
    reaches_out = True

    def __init__(self, sandbox: Sandbox, allowed: egress.Egress, secrets: Secrets) -> None:
        self._sandbox = sandbox
        self._allowed = allowed
        self._secrets = secrets

    def check_room(self) -> None:
        self._sandbox.check_room()

    async def execute(self, work: Work, printed: Printed) -> Outcome:
        """Raises ToolSchemaChanged when the server's tool is not the one that was registered."""
        target = target_of(work)
        began = time.monotonic()
        progress = _Progress()
        try:
            async with asyncio.timeout(target["timeout"]):
                outcome = await self._called(work, target, progress)
        except TimeoutError:
            outcome = progress.cut("the server gave no answer in time", safe=work.tool.idempotent)
        except (MCPError, ValidationError) as error:
            outcome = _refused(error, progress, safe=work.tool.idempotent)
        except (httpx2.HTTPError, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError) as error:
            outcome = progress.cut(f"the server is gone: {type(error).__name__}", safe=work.tool.idempotent)
        except BaseExceptionGroup as group:
            outcome = _of_group(group, progress, safe=work.tool.idempotent)
        elapsed = timedelta(seconds=time.monotonic() - began)
        kept = "bubblewrap+seccomp+rlimits" if target["stdio_code"] else "none"
        return Outcome(outcome.status, outcome.result, outcome.message, elapsed=elapsed, isolation=kept)

    async def _called(self, work: Work, target: Mapping[str, Any], progress: _Progress) -> Outcome:
        name = target["tool"] or work.tool.name
        # A server's source speaks with the handshake, which all do; one that is reached says what it speaks.
        mode: ConnectMode = "legacy" if target["stdio_code"] else "auto"
        async with Client(self._streams(work, target), mode=mode, cache=None) as client:
            _check_pin(work, await _remote(client.session, name))
            progress.sent = True
            return _read(await client.session.call_tool(name, dict(work.arguments)))

    @asynccontextmanager
    async def _streams(self, work: Work, target: Mapping[str, Any]) -> AsyncIterator[TransportStreams]:
        if target["stdio_code"]:
            call = ScriptCall(target["stdio_code"], _MEMORY_MIB, timedelta(seconds=target["timeout"]))
            async with self._sandbox.talking(call) as pipes, _bridged(*pipes) as streams:
                yield streams
            return
        headers = {}
        if work.tool.auth:
            headers["Authorization"] = f"Bearer {self._secrets.use(work, work.tool.auth['key_id'])}"
        async with (
            egress.client(self._allowed, timeout=target["timeout"], headers=headers) as client,
            streamable_http_client(target["url"], http_client=client) as streams,
        ):
            yield streams


class _Progress:
    """Whether the call itself was on its way when it was cut."""

    def __init__(self) -> None:
        self.sent = False

    def cut(self, message: str, *, safe: bool) -> Outcome:
        if not self.sent:
            return Outcome(Status.UNREACHABLE, message=message)
        return Outcome(Status.UPSTREAM_ERROR if safe else Status.UNKNOWN, message=message)


async def _remote(session: ClientSession, name: str) -> RemoteTool | None:
    cursor: str | None = None
    for _ in range(_PAGES):
        page = await session.list_tools(params=PaginatedRequestParams(cursor=cursor))
        for found in page.tools:
            if found.name == name:
                return found
        cursor = page.next_cursor
        if not cursor:
            return None
    return None


def _check_pin(work: Work, remote: RemoteTool | None) -> None:
    """A server may describe its tool in other words, and not change what it takes and gives."""
    if remote is None:
        raise ToolSchemaChanged(f"the server has no tool for {work.tool.reference} any more", state="quarantined")
    promised = remote.output_schema if work.tool.output_schema else None
    if schema_hash(remote.input_schema, promised) != work.tool.schema_hash:
        raise ToolSchemaChanged(f"the server changed the schema of {work.tool.reference}", state="quarantined")


def _read(found: CallToolResult) -> Outcome:
    texts = [part.text for part in found.content if isinstance(part, TextContent)]
    if found.is_error:
        return Outcome(Status.UPSTREAM_REFUSED, message="\n".join(texts)[:1000] or "the server's tool failed")
    result: Any = found.structured_content
    if result is None:
        result = {"content": [part.model_dump(mode="json", by_alias=True, exclude_none=True) for part in found.content]}
    if problem := answer.flaw(result):
        return Outcome(Status.UPSTREAM_REFUSED, message=f"the server's result {problem}")
    return Outcome(Status.OK, result=result)


def _refused(error: MCPError | ValidationError, progress: _Progress, *, safe: bool) -> Outcome:
    if isinstance(error, MCPError) and error.error.code == CONNECTION_CLOSED:
        return progress.cut("the server closed the connection", safe=safe)
    return Outcome(Status.UPSTREAM_REFUSED, message=f"the server refused: {error}"[:500])


def _of_group(group: BaseExceptionGroup[BaseException], progress: _Progress, *, safe: bool) -> Outcome:
    """The client's tasks fail together; the first of our own errors says why. Anything unknown goes on up."""
    for error in _leaves(group):
        if isinstance(error, MeshError):
            raise error from None
    if group.split((httpx2.HTTPError, OSError, anyio.BrokenResourceError, anyio.ClosedResourceError, MCPError))[1]:
        raise group
    return progress.cut("the server does not answer", safe=safe)


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


@asynccontextmanager
async def _bridged(reader: asyncio.StreamReader, writer: asyncio.WriteTransport) -> AsyncIterator[TransportStreams]:
    """Messages as lines of JSON."""
    to_client, from_server = anyio.create_memory_object_stream[SessionMessage | Exception](_MESSAGES)
    to_server, from_client = anyio.create_memory_object_stream[SessionMessage](_MESSAGES)

    async def read() -> None:
        async with to_client:
            with contextlib.suppress(ValueError, ConnectionError):  # a line without end ends the conversation
                while line := await reader.readline():
                    await to_client.send(SessionMessage(jsonrpc_message_adapter.validate_json(line)))

    async def write() -> None:
        async for message in from_client:
            writer.write(message.message.model_dump_json(by_alias=True, exclude_none=True).encode() + b"\n")

    async with to_client, from_server, to_server, from_client, anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        tasks.start_soon(write)
        yield from_server, to_server
        tasks.cancel_scope.cancel()
