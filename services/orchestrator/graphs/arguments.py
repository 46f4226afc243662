"""Whether the arguments of a node can fit the input schema of its tool, before anything is called.

Only what is cheap to know and holds whatever the expressions come to; tools checks the whole at the call.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import jsonschema
from google.protobuf import json_format

from agentnet.orchestrator.v1 import task_graph_pb2
from agentnet.tools.v1 import tool_pb2
from services.orchestrator.errors import GraphInvalid

# Words of a schema that cost nothing to check, however the schema was made.
_SIMPLE: Final = ("type", "enum", "const", "minimum", "maximum", "minLength", "maxLength")


def check(node: task_graph_pb2.TaskNode, tool: tool_pb2.Tool) -> None:
    """Raises GraphInvalid, which names the argument."""
    for name, trouble in _troubles(node, json_format.MessageToDict(tool.input_schema)):
        told = f"{node.id} cannot call {tool.name}: {name} {trouble}"
        raise GraphInvalid(told[:1000], fault="arguments", path=f"{node.id}.{name}"[:1000])


def _troubles(node: task_graph_pb2.TaskNode, schema: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    given = {*node.arguments, *node.argument_expressions}
    known: Mapping[str, Any] = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in given:
            yield name, "is required"
    if schema.get("additionalProperties") is False and "patternProperties" not in schema:
        yield from ((name, "is none of its arguments") for name in sorted(given - known.keys()))
    for name, value in json_format.MessageToDict(node.arguments).items():
        part = known.get(name)
        simple = {word: part[word] for word in _SIMPLE if word in part} if isinstance(part, dict) else {}
        error = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(simple).iter_errors(value))
        if error is not None:
            yield name, error.message[:300]
