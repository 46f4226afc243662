"""MCP tools: a server of the official library over HTTP, and a server's source in the sandbox."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from google.protobuf import json_format
from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

from agentnet.tools.v1 import governance_pb2 as gov
from agentnet.tools.v1 import tool_pb2
from services.tools.egress import Egress
from services.tools.executor import Executor
from services.tools.mcp_servers import McpExecutor
from services.tools.sandbox import Sandbox
from services.tools.secrets import Secrets
from tests.service.tools.api import Api, bomb
from tests.service.tools.attacking import LITTLE, resident
from tests.service.tools.calls import Code, invocation, refusal, register, said
from tests.support.identity import Keys


@dataclass
class Served:
    """A running server and what its tool was called with."""

    url: str
    called: list[tuple[int, int]] = field(default_factory=list)
    tools: list[Any] = field(default_factory=list)
    server: Any = None

    @property
    def schema(self) -> dict[str, Any]:
        schema: dict[str, Any] = self.server._tool_manager.get_tool("add").parameters
        return schema


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        found = Served(f"http://127.0.0.1:{listener.getsockname()[1]}/mcp")
        found.server = server = MCPServer("sums", log_level="ERROR")

        @server.tool(structured_output=False)
        def add(a: int, b: int) -> str:
            """Adds."""
            if b == 0:
                raise ToolError("b is zero")
            found.called.append((a, b))
            return str(a + b)

        config = uvicorn.Config(
            server.streamable_http_app(json_response=True), log_level="error", ws="none", lifespan="on"
        )
        running = uvicorn.Server(config)
        serving = asyncio.create_task(running.serve(sockets=[listener]))
        while not running.started:
            await asyncio.sleep(0.01)
        yield found
        running.should_exit = running.force_exit = True
        await serving


@pytest.fixture
def executors(sandbox: Sandbox, tmp_path: Path) -> dict[str, Executor]:
    return {"mcp": McpExecutor(sandbox, Egress(["127.0.0.1"]), Secrets(tmp_path))}


def tool(schema: dict[str, Any], **mcp: Any) -> tool_pb2.Tool:
    given = {"name": "add", "exec_mode": "mcp", "allowed_agents": ["*"], "input_schema": schema}
    return json_format.ParseDict(given | {"mcp": {"timeout": "10s"} | mcp}, tool_pb2.Tool())


def call(stub: Any, keys: Keys, a: int = 2, b: int = 3, **asked: Any) -> Any:
    return stub.InvokeTool(invocation("add", {"a": a, "b": b}, **asked), metadata=keys.metadata())


async def test_a_tool_of_a_server_is_called_over_http(stub: Any, keys: Keys, served: Served) -> None:
    await register(stub, keys, tool(served.schema, url=served.url))
    result = json_format.MessageToDict((await call(stub, keys)).finished.result)
    assert result == {"content": [{"type": "text", "text": "5"}]}
    assert served.called == [(2, 3)]


async def test_what_the_servers_tool_raises_is_told(stub: Any, keys: Keys, served: Served) -> None:
    await register(stub, keys, tool(served.schema, url=served.url))
    error = await refusal(call(stub, keys, b=0))
    assert (*said(error), error.facts["status"]) == (Code.FAILED_PRECONDITION, "TOOL_FAILED", "UPSTREAM_REFUSED")
    assert "b is zero" in error.message


async def test_a_changed_schema_is_quarantined_and_not_called(stub: Any, keys: Keys, served: Served) -> None:
    pinned = {**served.schema, "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "title": "older"}
    await register(stub, keys, tool(pinned, url=served.url))
    for _ in range(2):
        error = await refusal(call(stub, keys))
        assert (*said(error), error.facts["state"]) == (Code.FAILED_PRECONDITION, "TOOL_STATE_INVALID", "quarantined")
    assert not served.called
    audit = await stub.ListToolAudit(gov.ListToolAuditRequest(name="add"), metadata=keys.metadata())
    assert [(one.action, one.to_state) for one in audit.entries] == [
        ("registered", "active"), ("quarantined", "quarantined"),
    ]  # fmt: skip
    request = gov.SetToolStateRequest(name="add", state=tool_pb2.TOOL_STATE_TESTING)
    assert (await stub.SetToolState(request, metadata=keys.metadata())).tool.state == tool_pb2.TOOL_STATE_TESTING


async def test_a_tool_that_is_gone_is_quarantined_too(stub: Any, keys: Keys, served: Served) -> None:
    await register(stub, keys, tool(served.schema, url=served.url, tool="subtract"))
    assert said(await refusal(call(stub, keys))) == (Code.FAILED_PRECONDITION, "TOOL_STATE_INVALID")


async def test_a_server_that_may_not_be_reached_is_refused(stub: Any, keys: Keys, served: Served) -> None:
    await register(stub, keys, tool(served.schema, url="http://169.254.169.254/mcp"))
    assert said(await refusal(call(stub, keys))) == (Code.FAILED_PRECONDITION, "EGRESS_REFUSED")


async def test_a_server_that_is_away_is_unreachable(stub: Any, keys: Keys, served: Served) -> None:
    await register(stub, keys, tool(served.schema, url="http://127.0.0.1:1/mcp"))
    assert said(await refusal(call(stub, keys))) == (Code.UNAVAILABLE, "DEPENDENCY_UNAVAILABLE")


SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}
SERVER = """
import json, os, sys
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}
for line in sys.stdin:
    asked = json.loads(line)
    if "id" not in asked:
        continue
    if asked["method"] == "initialize":
        result = {"protocolVersion": asked["params"]["protocolVersion"], "capabilities": {"tools": {}},
                  "serverInfo": {"name": "sums", "version": "1"}}
    elif asked["method"] == "tools/list":
        result = {"tools": [{"name": "add", "inputSchema": SCHEMA}]}
    else:
        given = asked["params"]["arguments"]
        REACTION
        result = {"content": [], "structuredContent": {"sum": given["a"] + given["b"], "outside": os.path.exists("/etc/passwd")}}
    print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}), flush=True)
"""


def server(reaction: str = "pass") -> str:
    return SERVER.replace("REACTION", reaction)


async def test_a_servers_source_runs_in_the_sandbox(stub: Any, keys: Keys) -> None:
    await register(stub, keys, tool(SCHEMA, stdio_code=server()))
    for _ in range(2):
        answer = await call(stub, keys)
        assert json_format.MessageToDict(answer.finished.result) == {"sum": 5, "outside": False}
        assert answer.finished.isolation == "bubblewrap+seccomp+rlimits"


@pytest.mark.parametrize("reaction", ["os._exit(1)", "print('no json', flush=True)", "import time; time.sleep(60)"])
async def test_a_server_that_ends_in_the_middle_leaves_the_outcome_unknown(
    stub: Any, keys: Keys, reaction: str
) -> None:
    await register(stub, keys, tool(SCHEMA, stdio_code=server(reaction), timeout="2s"))
    assert said(await refusal(call(stub, keys))) == (Code.FAILED_PRECONDITION, "TOOL_OUTCOME_UNKNOWN")


async def test_a_server_that_does_not_start_is_unreachable(stub: Any, keys: Keys) -> None:
    await register(stub, keys, tool(SCHEMA, stdio_code="raise SystemExit(1)", timeout="3s"))
    assert said(await refusal(call(stub, keys))) == (Code.UNAVAILABLE, "DEPENDENCY_UNAVAILABLE")


@pytest.mark.parametrize("mcp", [{}, {"url": "http://example.com/mcp", "stdio_code": "pass"}])
async def test_a_server_is_named_in_one_way(stub: Any, keys: Keys, mcp: dict[str, str]) -> None:
    error = await refusal(register(stub, keys, tool(SCHEMA, **mcp)))
    assert (*said(error), error.field) == (Code.INVALID_ARGUMENT, "FIELD_INVALID", "tool.mcp")


async def test_a_server_whose_answer_inflates_without_end_is_cut(stub: Any, keys: Keys, api: Api) -> None:
    api.coded = ("gzip", bomb(256))
    await register(stub, keys, tool(SCHEMA, url=f"http://127.0.0.1:{api.port}/mcp", timeout="1s"))
    before = resident()
    assert said(await refusal(call(stub, keys))) == (Code.UNAVAILABLE, "DEPENDENCY_UNAVAILABLE")
    assert resident() - before < 2 * LITTLE
