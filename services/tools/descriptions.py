"""Tools in the words of other systems: OpenAPI 3.1, OpenAI's function calling, MCP's tools/list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from services.tools.store import Tool

FORMATS: Final = ("openapi", "openai", "mcp")
_ANYTHING: Final[dict[str, Any]] = {}


def described(tools: Sequence[Tool], wanted: str) -> dict[str, Any]:
    """The document in one of FORMATS."""
    match wanted:
        case "openai":
            return {"tools": [_openai(tool) for tool in tools]}
        case "mcp":
            return {"tools": [_mcp(tool) for tool in tools]}
        case _:
            return _openapi(tools)


def _openai(tool: Tool) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": dict(tool.input_schema)}
    return {"type": "function", "function": function}


def _mcp(tool: Tool) -> dict[str, Any]:
    promised = dict(tool.output_schema or {})
    output = {"outputSchema": promised} if promised.get("type") == "object" else {}
    return {
        "name": tool.name,
        "description": tool.description,
        "inputSchema": {"type": "object", **tool.input_schema},
        "annotations": {"idempotentHint": tool.idempotent},
        **output,
    }


def _openapi(tools: Sequence[Tool]) -> dict[str, Any]:
    return {
        "openapi": "3.1.0",
        "info": {"title": "Tools", "version": "1.0.0"},
        "paths": {f"/tools/{tool.name}": {"post": _operation(tool)} for tool in tools},
    }


def _operation(tool: Tool) -> dict[str, Any]:
    result = {"description": "The result.", "content": _json(tool.output_schema or _ANYTHING)}
    examples = {
        f"example{place}": {"summary": example["description"], "value": example["arguments"]}
        for place, example in enumerate(tool.examples, start=1)
    }
    body = _json(tool.input_schema)
    if examples:
        body["application/json"]["examples"] = examples
    return {
        "operationId": tool.name,
        "summary": tool.description,
        "tags": list(tool.tags),
        "deprecated": tool.state == "deprecated",
        "requestBody": {"required": True, "content": body},
        "responses": {"200": result},
    }


def _json(schema: Any) -> dict[str, Any]:
    return {"application/json": {"schema": dict(schema)}}
