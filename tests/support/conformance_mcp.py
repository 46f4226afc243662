"""What the published conformance suite of MCP asks a server to offer, over the mesh's own transport."""

from __future__ import annotations

import asyncio
import base64
from typing import Any, Final

from mcp import types
from mcp.server.lowlevel import Server
from mcp.server.lowlevel.helper_types import ReadResourceContents
from pydantic import AnyUrl

# The smallest picture and sound there are.
PNG: Final = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
WAV: Final = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAA="
EMPTY: Final = {"type": "object", "properties": {}}
SCHEMA_2020: Final = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {"address": {"type": "object", "properties": {"street": {"type": "string"}, "city": {"type": "string"}}}},
    "properties": {"name": {"type": "string"}, "address": {"$ref": "#/$defs/address"}},
    "additionalProperties": False,
}


def text(said: str) -> types.TextContent:
    return types.TextContent(type="text", text=said)


def image() -> types.ImageContent:
    return types.ImageContent(type="image", data=PNG, mimeType="image/png")


def embedded(uri: str, said: str, kind: str = "text/plain") -> types.EmbeddedResource:
    return types.EmbeddedResource(
        type="resource", resource=types.TextResourceContents(uri=AnyUrl(uri), mimeType=kind, text=said)
    )


CONTENTS: Final[dict[str, list[types.ContentBlock]]] = {
    "test_simple_text": [text("This is a simple text response for testing.")],
    "test_image_content": [image()],
    "test_audio_content": [types.AudioContent(type="audio", data=WAV, mimeType="audio/wav")],
    "test_embedded_resource": [embedded("test://embedded-resource", "This is an embedded resource content.")],
    "test_multiple_content_types": [
        text("Multiple content types test:"), image(),
        embedded("test://mixed-content-resource", '{"test": "data", "value": 123}', "application/json"),
    ],
}  # fmt: skip
NAMES: Final = (*CONTENTS, "test_tool_with_logging", "test_tool_with_progress", "test_error_handling")
ARGUMENT: Final = {
    "test_simple_prompt": (),
    "test_prompt_with_arguments": ("arg1", "arg2"),
    "test_prompt_with_embedded_resource": ("resourceUri",),
    "test_prompt_with_image": (),
}


async def call(server: Server[Any, Any], name: str) -> list[types.ContentBlock]:
    if name in CONTENTS:
        return CONTENTS[name]
    if name == "test_error_handling":
        raise ValueError("This tool intentionally returns an error for testing")
    session, meta = server.request_context.session, server.request_context.meta
    related = str(server.request_context.request_id)
    for step in range(3):
        if name == "test_tool_with_logging":
            said = ("Tool execution started", "Tool processing data", "Tool execution completed")[step]
            await session.send_log_message("info", said, related_request_id=related)
        elif meta and meta.progressToken is not None:
            await session.send_progress_notification(meta.progressToken, step * 50, 100, related_request_id=related)
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


def conformance_server() -> Server[Any, Any]:
    server: Server[Any, Any] = Server("agentnet-conformance", version="1.0.0")

    @server.list_tools()
    async def tools() -> list[types.Tool]:
        made = [types.Tool(name=name, description=name, inputSchema=EMPTY) for name in NAMES]
        return [*made, types.Tool(name="json_schema_2020_12_tool", description="keywords", inputSchema=SCHEMA_2020)]

    @server.call_tool()
    async def called(name: str, arguments: dict[str, Any]) -> list[types.ContentBlock]:
        return await call(server, name)

    @server.list_resources()
    async def resources() -> list[types.Resource]:
        kinds = {"static-text": "text/plain", "static-binary": "image/png", "watched-resource": "text/plain"}
        return [
            types.Resource(uri=AnyUrl(f"test://{name}"), name=name, description=name, mimeType=kind)
            for name, kind in kinds.items()
        ]

    @server.list_resource_templates()
    async def templates() -> list[types.ResourceTemplate]:
        return [
            types.ResourceTemplate(
                uriTemplate="test://template/{id}/data", name="template", mimeType="application/json"
            )
        ]

    @server.read_resource()
    async def read(uri: AnyUrl) -> list[ReadResourceContents]:
        if "binary" in str(uri):
            return [ReadResourceContents(base64.b64decode(PNG), "image/png")]
        if "template" in str(uri):
            name = str(uri).split("/")[3]
            return [ReadResourceContents(f'{{"id": "{name}", "templateTest": true}}', "application/json")]
        return [ReadResourceContents("This is the content of the static text resource.", "text/plain")]

    @server.subscribe_resource()
    async def subscribe(uri: AnyUrl) -> None:
        """Taken; nothing here changes."""

    @server.unsubscribe_resource()
    async def unsubscribe(uri: AnyUrl) -> None:
        """Taken."""

    @server.list_prompts()
    async def prompts() -> list[types.Prompt]:
        return [
            types.Prompt(name=name, description=name, arguments=[types.PromptArgument(name=one, required=True) for one in wanted])
            for name, wanted in ARGUMENT.items()
        ]  # fmt: skip

    @server.get_prompt()
    async def got(name: str, arguments: dict[str, str] | None) -> types.GetPromptResult:
        return prompt(name, arguments or {})

    @server.completion()
    async def complete(ref: Any, argument: Any, context: Any) -> types.Completion:
        return types.Completion(values=["paris", "park"], total=2, hasMore=False)

    @server.set_logging_level()
    async def level(wanted: str) -> None:
        """Taken: all is told."""

    return server
