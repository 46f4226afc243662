"""The mesh's prompts as MCP's: what they ask for, and how they read when it is given."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import grpc
from google.protobuf import json_format
from mcp import types

from agentnet.inference.v1 import message_pb2, prompt_pb2, prompt_service_pb2
from agentnet.inference.v1.prompt_service_pb2_grpc import PromptServiceStub
from shared.errors import InvalidArgument
from shared.rpc.status import from_rpc

SERVICE: Final = "agentnet.inference.v1.PromptService"
_MOST: Final = 500
_TEXTS: Final = frozenset({prompt_pb2.PROMPT_VARIABLE_TYPE_UNSPECIFIED, prompt_pb2.PROMPT_VARIABLE_TYPE_STRING})


class Prompts:
    """Prompts of whoever calls. MCP's arguments are texts: those of other types are read as JSON."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._prompts = PromptServiceStub(channel)

    async def list(self) -> list[types.Prompt]:
        found = await _call(self._prompts.ListPrompts(prompt_service_pb2.ListPromptsRequest(page_size=_MOST)))
        return [_prompt(version) for version in found.prompts]

    async def get(self, name: str, arguments: Mapping[str, str] | None) -> types.GetPromptResult:
        """Raises MeshError."""
        found = await _call(self._prompts.GetPrompt(prompt_service_pb2.GetPromptRequest(reference=name)))
        request = prompt_service_pb2.RenderRequest(reference=name)
        known = {variable.name: variable for variable in found.version.content.variables}
        read = {key: _read(known.get(key), value) for key, value in (arguments or {}).items()}
        json_format.ParseDict(read, request.variables)
        rendered = await _call(self._prompts.Render(request))
        return types.GetPromptResult(
            description=found.version.comment or None, messages=[_message(one) for one in rendered.messages]
        )


def _prompt(version: prompt_pb2.PromptVersion) -> types.Prompt:
    arguments = [
        types.PromptArgument(
            name=variable.name,
            description=variable.description or None,
            required=not variable.HasField("default_value"),
        )
        for variable in version.content.variables
    ]
    return types.Prompt(name=version.name, description=version.comment or None, arguments=arguments)


def _read(variable: prompt_pb2.PromptVariable | None, value: str) -> Any:
    if variable is None or variable.type in _TEXTS:
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise InvalidArgument(f"{variable.name} must be JSON", field=variable.name) from None


def _message(message: message_pb2.Message) -> types.PromptMessage:
    """MCP has no messages of the system's: they are the user's, as its specification advises."""
    role: types.Role = "assistant" if message.role == message_pb2.ROLE_ASSISTANT else "user"
    text = "".join(part.text for part in message.content)
    return types.PromptMessage(role=role, content=types.TextContent(type="text", text=text))


async def _call(call: Any) -> Any:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise from_rpc(error) from error
