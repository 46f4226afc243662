"""What the published conformance suite of MCP asks a server to offer, over the mesh's own transport."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from mcp import MCPError, types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity

from services.gateway.facades import mcp_tasks
from services.gateway.facades.mcp_server import told
from tests.support import conformance_mcp_rounds as rounds
from tests.support.conformance_mcp_tasks import TASKS, MemoryTasks

Context = ServerRequestContext[Any, Any]
# The smallest picture and sound there are.
PNG: Final = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
WAV: Final = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAA="
SAMPLING: Final = types.ClientCapabilities(sampling=types.SamplingCapability())
EMPTY: Final = {"type": "object", "properties": {}}
SCHEMA_2020: Final = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef", "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"}, "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"}, "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}  # fmt: skip
REGION: Final = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}


def text(said: str) -> types.TextContent:
    return types.TextContent(type="text", text=said)


def image() -> types.ImageContent:
    return types.ImageContent(type="image", data=PNG, mime_type="image/png")


def embedded(uri: str, said: str, kind: str = "text/plain") -> types.EmbeddedResource:
    return types.EmbeddedResource(
        type="resource", resource=types.TextResourceContents(uri=uri, mime_type=kind, text=said)
    )


CONTENTS: Final[dict[str, list[types.ContentBlock]]] = {
    "test_simple_text": [text("This is a simple text response for testing.")],
    "test_image_content": [image()],
    "test_audio_content": [types.AudioContent(type="audio", data=WAV, mime_type="audio/wav")],
    "test_embedded_resource": [embedded("test://embedded-resource", "This is an embedded resource content.")],
    "test_multiple_content_types": [
        text("Multiple content types test:"), image(),
        embedded("test://mixed-content-resource", '{"test": "data", "value": 123}', "application/json"),
    ],
}  # fmt: skip
NAMES: Final = (
    *CONTENTS,
    "test_tool_with_logging",
    "test_tool_with_progress",
    "test_error_handling",
    "test_missing_capability",
    *rounds.TOOLS,
    *TASKS,
)
ARGUMENT: Final[dict[str, tuple[str, ...]]] = {
    "test_simple_prompt": (),
    "test_prompt_with_arguments": ("arg1", "arg2"),
    "test_prompt_with_embedded_resource": ("resourceUri",),
    "test_prompt_with_image": (),
    rounds.PROMPT: (),
}


async def call(context: Context, name: str) -> list[types.ContentBlock]:
    if name in CONTENTS:
        return CONTENTS[name]
    if name == "test_header":
        return [text("Hello from there.")]
    if name == "test_error_handling":
        raise ValueError("This tool intentionally returns an error for testing")
    if name == "test_missing_capability" and not context.session.check_client_capability(SAMPLING):
        raise MCPError(
            types.MISSING_REQUIRED_CLIENT_CAPABILITY, "needs sampling", {"requiredCapabilities": {"sampling": {}}}
        )
    session, meta = context.session, context.meta or {}
    for step in range(3):
        if name == "test_tool_with_logging":
            said = ("Tool execution started", "Tool processing data", "Tool execution completed")[step]
            params = types.LoggingMessageNotificationParams(level="info", data=said)
            await session.send_notification(types.LoggingMessageNotification(params=params), context.request_id)
        elif (token := meta.get("progress_token")) is not None:
            await session.send_progress_notification(token, step * 50, 100, related_request_id=str(context.request_id))
        await asyncio.sleep(0.02)
    return [text("done")]


def prompt(name: str, given: dict[str, str]) -> types.GetPromptResult:
    said = {
        "test_simple_prompt": [text("This is a simple prompt for testing.")],
        "test_prompt_with_arguments": [text(f"Prompt with arguments: arg1='{given.get('arg1')}', arg2='{given.get('arg2')}'")],
        "test_prompt_with_embedded_resource": [
            embedded(given.get("resourceUri", "test://x"), "Embedded resource content for testing."), text("Please process it."),
        ],
        "test_prompt_with_image": [image(), text("Please analyze the image above.")],
    }[name]  # fmt: skip
    return types.GetPromptResult(messages=[types.PromptMessage(role="user", content=one) for one in said])


async def tools(_: Context, __: object) -> types.ListToolsResult:
    made = [types.Tool(name=name, description=name, input_schema=EMPTY) for name in NAMES]
    keywords = types.Tool(name="json_schema_2020_12_tool", description="keywords", input_schema=SCHEMA_2020)
    named = types.Tool(name="test_header", description="told in a header too", input_schema=REGION)
    return types.ListToolsResult(tools=[*made, keywords, named])


async def called(
    context: Context, asked: types.CallToolRequestParams
) -> types.CallToolResult | types.InputRequiredResult:
    if asked.name in rounds.TOOLS:
        return rounds.still(context, asked) or types.CallToolResult(content=[text(rounds.told(asked))])
    try:
        return types.CallToolResult(content=await call(context, asked.name))
    except ValueError as error:
        return types.CallToolResult(content=[text(str(error))], is_error=True)


async def resources(_: Context, __: object) -> types.ListResourcesResult:
    kinds = {"static-text": "text/plain", "static-binary": "image/png", "watched-resource": "text/plain"}
    found = [
        types.Resource(uri=f"test://{name}", name=name, description=name, mime_type=kind)
        for name, kind in kinds.items()
    ]
    return types.ListResourcesResult(resources=found)


async def templates(_: Context, __: object) -> types.ListResourceTemplatesResult:
    one = types.ResourceTemplate(
        uri_template="test://template/{id}/data", name="template", mime_type="application/json"
    )
    return types.ListResourceTemplatesResult(resource_templates=[one])


async def read(_: Context, asked: types.ReadResourceRequestParams) -> types.ReadResourceResult:
    uri = asked.uri
    if "binary" in uri:
        return types.ReadResourceResult(contents=[types.BlobResourceContents(uri=uri, mime_type="image/png", blob=PNG)])
    kind, said = "text/plain", "This is the content of the static text resource."
    if "template" in uri:
        kind, said = "application/json", f'{{"id": "{uri.split("/")[3]}", "templateTest": true}}'
    elif uri.removeprefix("test://") not in {"static-text", "watched-resource"}:
        raise MCPError(types.INVALID_PARAMS, "there is no such resource", {"uri": uri})
    return types.ReadResourceResult(contents=[types.TextResourceContents(uri=uri, mime_type=kind, text=said)])


async def taken(_: Context, __: object) -> types.EmptyResult:
    """Nothing here changes, and all is told."""
    return types.EmptyResult()


async def prompts(_: Context, __: object) -> types.ListPromptsResult:
    found = [
        types.Prompt(name=name, description=name, arguments=[types.PromptArgument(name=one, required=True) for one in wanted])
        for name, wanted in ARGUMENT.items()
    ]  # fmt: skip
    return types.ListPromptsResult(prompts=found)


async def got(
    context: Context, asked: types.GetPromptRequestParams
) -> types.GetPromptResult | types.InputRequiredResult:
    if asked.name not in ARGUMENT:
        raise MCPError(types.INVALID_PARAMS, f"there is no prompt {asked.name}")
    if asked.name == rounds.PROMPT:
        said = types.PromptMessage(role="user", content=text(rounds.told(asked)))
        return rounds.still(context, asked) or types.GetPromptResult(messages=[said])
    return prompt(asked.name, asked.arguments or {})


async def complete(_: Context, __: object) -> types.CompleteResult:
    return types.CompleteResult(completion=types.Completion(values=["paris", "park"], total=2, has_more=False))


def conformance_server() -> Server[Any]:
    tasks = MemoryTasks()

    async def call_or_begin(context: Context, asked: types.CallToolRequestParams) -> Any:
        return await (tasks.call(context, asked) if asked.name in TASKS else called(context, asked))

    made = Server[Any](
        "agentnet-conformance",
        version="1.0.0",
        on_list_tools=tools,
        on_call_tool=call_or_begin,
        on_list_resources=resources,
        on_list_resource_templates=templates,
        on_read_resource=read,
        on_subscribe_resource=taken,
        on_unsubscribe_resource=taken,
        on_list_prompts=prompts,
        on_get_prompt=got,
        on_completion=complete,
    )
    made.add_request_handler("logging/setLevel", types.SetLevelRequestParams, taken)
    mcp_tasks.serve(made, tasks)
    made.middleware.append(told)
    made.middleware.append(RequestStateBoundary(RequestStateSecurity.ephemeral(), default_audience=made.name))
    return made
