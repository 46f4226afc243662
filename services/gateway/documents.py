"""Gateway's service of documents: made once from the contract; the tools' from what the tenant has registered."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from google.api import httpbody_pb2
from google.protobuf import json_format
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from agentnet.gateway.v1 import document_service_pb2 as pb
from agentnet.gateway.v1 import document_service_pb2_grpc
from agentnet.tools.v1 import tool_pb2, tool_service_pb2
from services.gateway import docs
from services.gateway.openapi import openapi
from services.gateway.permissions import Permissions

_JSON: Final = "application/json"
_MOST_TOOLS: Final = 500


@dataclass(frozen=True, slots=True)
class Documents:
    """The documents about the contract, as they are sent."""

    openapi: bytes
    page: bytes

    @classmethod
    def read(cls, descriptors: Path, permissions: Permissions) -> Documents:
        """From the descriptor set with comments, as `make gen` writes it."""
        files = FileDescriptorSet.FromString(descriptors.read_bytes())
        document = openapi(files, permissions, version=version("agentnet"))
        return cls(json.dumps(document, ensure_ascii=False).encode(), docs.page(document).encode())


class DocumentService(document_service_pb2_grpc.DocumentServiceServicer):
    """OpenAPI and the docs page."""

    def __init__(self, documents: Documents, tools: Any) -> None:
        self._documents = documents
        self._tools = tools

    async def GetOpenApi(self, request: pb.GetOpenApiRequest, context: Any) -> httpbody_pb2.HttpBody:
        return httpbody_pb2.HttpBody(content_type=_JSON, data=self._documents.openapi)

    async def GetDocs(self, request: pb.GetDocsRequest, context: Any) -> httpbody_pb2.HttpBody:
        await context.send_initial_metadata((("content-security-policy", docs.POLICY),))
        return httpbody_pb2.HttpBody(content_type="text/html; charset=utf-8", data=self._documents.page)

    async def GetToolOpenApi(self, request: pb.GetToolOpenApiRequest, context: Any) -> httpbody_pb2.HttpBody:
        asked = tool_service_pb2.ListToolsRequest(page_size=_MOST_TOOLS, agent=request.agent)
        found = await self._tools.ListTools(asked)
        document = tools_openapi(found.tools)
        return httpbody_pb2.HttpBody(content_type=_JSON, data=json.dumps(document, ensure_ascii=False).encode())


def tools_openapi(tools: Sequence[tool_pb2.Tool]) -> dict[str, Any]:
    """One operation that invokes any of these tools."""
    schemas = {f"{tool.name}@{tool.version}": _invocation(tool) for tool in tools}
    one_of = [{"$ref": f"#/components/schemas/{name}"} for name in schemas]
    return {
        "openapi": "3.0.3",
        "info": {"title": "agentnet tools", "version": version("agentnet")},
        "paths": {
            "/v1/tools/invoke": {
                "post": {
                    "operationId": "invoke_tool",
                    "requestBody": {"required": True, "content": {_JSON: {"schema": {"oneOf": one_of}}}},
                    "responses": {"200": {"description": "What the tool returned, in `finished.result`."}},
                }
            }
        },
        "components": {"schemas": schemas},
    }


def _invocation(tool: tool_pb2.Tool) -> dict[str, Any]:
    arguments = json_format.MessageToDict(tool.input_schema) or {"type": "object"}
    return {
        "type": "object",
        "title": tool.name,
        "description": tool.description,
        "required": ["name", "arguments"],
        "properties": {
            "name": {"type": "string", "enum": [f"{tool.name}@{tool.version}"]},
            "arguments": arguments,
        },
        "x-agentnet-output": json_format.MessageToDict(tool.output_schema),
    }
