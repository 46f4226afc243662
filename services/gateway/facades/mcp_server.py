"""The mesh as an MCP server: what it offers, in the protocol's own words (the official library's types and session)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, Final

import grpc
from google.protobuf import json_format, struct_pb2
from mcp import MCPError, types
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel import Server

from agentnet.orchestrator.v1 import session_pb2, session_service_pb2
from agentnet.orchestrator.v1.session_service_pb2_grpc import SessionServiceStub
from agentnet.tools.v1 import tool_pb2, tool_service_pb2
from agentnet.tools.v1.tool_service_pb2_grpc import ToolServiceStub
from services.gateway.facades import mcp_tasks
from services.gateway.facades.agents import PREFIX as AGENT_MODEL
from services.gateway.facades.agents import Agents
from services.gateway.facades.ask import Ask, Message, Role, whole
from services.gateway.facades.mcp_prompts import Prompts
from services.gateway.facades.mcp_tasks import SessionTasks
from shared.errors import InvalidArgument, MeshError, NotFound, Reason
from shared.rpc.status import from_rpc

Context = ServerRequestContext[Any, Any]
AGENT: Final = "agent_"
# Where, in the `_meta` of a call, a token of policy's CreateOverride stands.
OVERRIDE: Final = "agentnet/override_token"
_MOST: Final = 500
_RECENT: Final = 50
_SESSION: Final = re.compile(r"agentnet://sessions/([A-Za-z0-9_-]{1,64})")
_PROMPT: Final = {
    "type": "object",
    "properties": {"prompt": {"type": "string", "description": "What the agent is asked."}},
    "required": ["prompt"],
}


class ResourceUnknown(NotFound):
    """No such resource; sessions are agentnet://sessions/<id>."""

    reason = Reason.ERROR_REASON_SESSION_NOT_FOUND


class Offer:
    """Tools, agents and sessions of whoever calls."""

    def __init__(self, channel: grpc.aio.Channel, agents: Agents) -> None:
        self._tools = ToolServiceStub(channel)
        self._sessions = SessionServiceStub(channel)
        self._agents = agents

    async def tools(self) -> list[types.Tool]:
        """The newest version of each tool, then the agents."""
        found = await _call(self._tools.ListTools(tool_service_pb2.ListToolsRequest(page_size=_MOST)))
        newest = {tool.name: tool for tool in sorted(found.tools, key=_version)}
        agents = {agent.name: agent for agent in await self._agents.agents()}
        asked = [
            types.Tool(name=AGENT + name, description=agents[name].description or None, input_schema=_PROMPT)
            for name in sorted(agents)
        ]
        return [*(_tool(newest[name]) for name in sorted(newest)), *asked]

    async def call(
        self, name: str, arguments: Mapping[str, Any], *, key: str = "", override: str = ""
    ) -> types.CallToolResult:
        """What the tool or the agent answers; its failure is a result too, as the protocol has it. `key` names the
        effect: again, it is the first one's outcome; empty: each call is one of its own. `override` is a token of
        policy's for the call of a tool.
        """
        try:
            if names_agent(name):
                return _said((await whole(self._agents.answer(_asked(name, arguments, key)))).text)
            return await self.invoke(name, arguments, key=key, override=override)
        except MeshError as error:
            return failed(error)

    async def begin(self, name: str, arguments: Mapping[str, Any], *, key: str) -> str:
        """The session in which an agent now answers, whoever waits. Raises MeshError."""
        return (await self._agents.start(_asked(name, arguments, key))).id

    async def finished(self, session_id: str) -> types.CallToolResult:
        """What came of a session that was begun, once it ends; its tokens are counted. Raises MeshError."""
        return _said(await self._agents.finished(session_id))

    async def resources(self) -> list[types.Resource]:
        """The newest sessions."""
        found = await _call(self._sessions.ListSessions(session_service_pb2.ListSessionsRequest(page_size=_RECENT)))
        return [_resource(session) for session in found.sessions]

    async def templates(self) -> list[types.ResourceTemplate]:
        """Any session, by its id."""
        template = "agentnet://sessions/{id}"
        return [types.ResourceTemplate(uri_template=template, name="session", mime_type="application/json")]

    async def read(self, uri: str) -> types.TextResourceContents:
        """A session and its turns, as JSON."""
        named = _SESSION.fullmatch(uri)
        if named is None:
            raise ResourceUnknown("resources are agentnet://sessions/<id>")
        session_id = named[1]
        asked = session_service_pb2.ListTurnsRequest(session_id=session_id, page_size=_MOST)
        session = await _call(self._sessions.GetSession(session_service_pb2.GetSessionRequest(session_id=session_id)))
        turns = await _call(self._sessions.ListTurns(asked))
        data = {
            "session": json_format.MessageToDict(session.session, preserving_proto_field_name=True),
            "turns": [json_format.MessageToDict(turn, preserving_proto_field_name=True) for turn in turns.turns],
        }
        text = json.dumps(data, ensure_ascii=False)
        return types.TextResourceContents(uri=uri, mime_type="application/json", text=text)

    async def invoke(
        self, name: str, arguments: Mapping[str, Any], *, key: str, override: str = ""
    ) -> types.CallToolResult:
        """What a tool answers. Raises MeshError."""
        given = json_format.ParseDict(dict(arguments), struct_pb2.Struct())
        request = tool_service_pb2.InvokeToolRequest(
            name=name, arguments=given, request_id=key, override_token=override
        )
        answer = await _call(self._tools.InvokeTool(request, timeout=60))
        finished = json_format.MessageToDict(answer.finished, preserving_proto_field_name=True)
        result = finished.get("result")
        text = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)
        structured = result if isinstance(result, dict) else None
        content: list[types.ContentBlock] = [types.TextContent(type="text", text=text)]
        return types.CallToolResult(content=content, structured_content=structured)


def server(offer: Offer, prompts: Prompts, tasks: SessionTasks) -> Server[Any]:
    """The official library's server over what is offered, for both revisions in use. What is offered depends on who
    asks: no list may be kept for others, which is the library's default.
    """

    async def tools(_: Context, __: object) -> types.ListToolsResult:
        return types.ListToolsResult(tools=await offer.tools())

    async def call(context: Context, asked: types.CallToolRequestParams) -> HandlerResult:
        given = asked.arguments or {}
        if not (names_agent(asked.name) and mcp_tasks.declared(context)):
            return await offer.call(asked.name, given, override=_override(context))
        try:
            return (await tasks.find(await offer.begin(asked.name, given, key=""))).begun()
        except MeshError as error:
            return failed(error)

    async def resources(_: Context, __: object) -> types.ListResourcesResult:
        return types.ListResourcesResult(resources=await offer.resources())

    async def templates(_: Context, __: object) -> types.ListResourceTemplatesResult:
        return types.ListResourceTemplatesResult(resource_templates=await offer.templates())

    async def read(_: Context, asked: types.ReadResourceRequestParams) -> types.ReadResourceResult:
        return types.ReadResourceResult(contents=[await offer.read(asked.uri)])

    async def listed(_: Context, __: object) -> types.ListPromptsResult:
        return types.ListPromptsResult(prompts=await prompts.list())

    async def got(_: Context, asked: types.GetPromptRequestParams) -> types.GetPromptResult:
        return await prompts.get(asked.name, asked.arguments)

    made = Server[Any](
        "agentnet",
        version=version("agentnet"),
        on_list_tools=tools,
        on_list_resources=resources,
        on_list_resource_templates=templates,
        on_read_resource=read,
        on_list_prompts=listed,
        on_get_prompt=got,
    )
    made.middleware.append(told)
    made.add_request_handler("tools/call", types.CallToolRequestParams, call)
    mcp_tasks.serve(made, tasks)
    return made


async def told(ctx: Context, call_next: CallNext) -> HandlerResult:
    """Our errors in the protocol's words; the library keeps what it does not know to itself."""
    try:
        return await call_next(ctx)
    except MeshError as error:
        code = types.INVALID_PARAMS if isinstance(error, InvalidArgument | NotFound) else types.INTERNAL_ERROR
        raise MCPError(code, f"{error.reason_name}: {error.message}") from error


async def _call(call: Any) -> Any:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise from_rpc(error) from error


def _override(context: Context) -> str:
    """The override token that came with a call, beside its arguments: no schema of a tool's knows it."""
    meta = (context.params or {}).get("_meta")
    token = meta.get(OVERRIDE, "") if isinstance(meta, Mapping) else ""
    if not isinstance(token, str):
        raise InvalidArgument("an override token is a text", field=f"_meta.{OVERRIDE}")
    return token


def names_agent(tool: str) -> bool:
    """Whether a tool is an agent."""
    return tool.startswith(AGENT)


def failed(error: MeshError) -> types.CallToolResult:
    """A failure as a result."""
    text = f"{error.reason_name}: {error.message}"
    return types.CallToolResult(content=[types.TextContent(type="text", text=text)], is_error=True)


def _asked(tool: str, arguments: Mapping[str, Any], key: str) -> Ask:
    prompt = arguments.get("prompt")
    if not isinstance(prompt, str) or not prompt:
        raise InvalidArgument("prompt must be a text", field="prompt")
    agent = AGENT_MODEL + tool.removeprefix(AGENT)
    return Ask(agent, (Message(Role.USER, (prompt,)),), generation_id=key, whole=True)


def _said(text: str) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(type="text", text=text)])


def _tool(tool: tool_pb2.Tool) -> types.Tool:
    schema = json_format.MessageToDict(tool.input_schema) or {"type": "object"}
    hints = types.ToolAnnotations(idempotent_hint=tool.idempotent)
    return types.Tool(name=tool.name, description=tool.description or None, input_schema=schema, annotations=hints)


def _resource(session: session_pb2.Session) -> types.Resource:
    return types.Resource(
        uri=f"agentnet://sessions/{session.id}",
        name=session.id,
        description=session.topic_start[:200] or None,
        mime_type="application/json",
    )


def _version(tool: tool_pb2.Tool) -> tuple[int, ...]:
    return tuple(int(part) for part in tool.version.split(".") if part.isdigit())
