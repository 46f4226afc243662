"""What a prompt says, its canonical text and its digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from services.inference.prompts import template
from services.inference.prompts.errors import PromptInvalid
from services.inference.prompts.template import Each, If, Node, Place
from services.inference.providers.contract import Role


class VariableType(StrEnum):
    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    STRING_LIST = "string_list"
    JSON = "json"


class Required:
    """Stands where a default would: there is none."""


REQUIRED: Final = Required()


@dataclass(frozen=True, slots=True)
class Variable:
    """One thing a template asks for."""

    name: str
    type: VariableType
    description: str = ""
    default: object = REQUIRED


@dataclass(frozen=True, slots=True)
class Template:
    """One message with places for variables."""

    role: Role
    text: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class Content:
    """All a version says. Variables are by name."""

    messages: tuple[Template, ...]
    variables: tuple[Variable, ...] = ()
    config: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A content that was parsed and found whole."""

    content: Content
    nodes: tuple[tuple[Node, ...], ...]


def canonical(content: Content) -> str:
    """The one text of a content: JSON with sorted keys, no spaces, variables by name."""
    return as_json(
        {
            "messages": [_message(message) for message in content.messages],
            "variables": [_variable(one) for one in sorted(content.variables, key=lambda one: one.name)],
            "config": content.config,
        }
    )


def digest(content: Content) -> str:
    """SHA-256 of the canonical text, in hex."""
    return hashlib.sha256(canonical(content).encode()).hexdigest()


def from_canonical(text: str) -> Content:
    """The content a canonical text is of."""
    data: dict[str, Any] = json.loads(text)
    return Content(
        messages=tuple(Template(Role(one["role"]), one["template"], one["name"]) for one in data["messages"]),
        variables=tuple(
            Variable(one["name"], VariableType(one["type"]), one["description"], one.get("default", REQUIRED))
            for one in data["variables"]
        ),
        config=data["config"],
    )


def check(content: Content) -> Prompt:
    """The content with its templates parsed. Raises PromptInvalid, with the position where there is one."""
    nodes = tuple(
        template.parse(message.text, where=f"content.messages[{place}].template")
        for place, message in enumerate(content.messages)
    )
    types = {one.name: one.type for one in content.variables}
    for place, (message, parsed) in enumerate(zip(content.messages, nodes, strict=True)):
        _check_places(message.text, parsed, types, where=f"content.messages[{place}].template")
    used = {node.name for parsed in nodes for node in template.places(parsed)}
    for place, one in enumerate(content.variables):
        if one.name not in used:
            raise PromptInvalid(f"no template uses {one.name}", field=f"content.variables[{place}].name")
    return Prompt(content, nodes)


def as_json(value: object) -> str:
    """JSON that is always the same text for the same value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _check_places(text: str, nodes: Sequence[Node], types: Mapping[str, VariableType], *, where: str) -> None:
    for node in template.places(nodes):
        if problem := _problem(node, types):
            raise template.invalid(problem, text, node.at, where=where)


def _problem(node: Place | If | Each, types: Mapping[str, VariableType]) -> str | None:
    """What is wrong with asking for this variable in this way."""
    kind = types.get(node.name)
    if kind is None:
        return f"{node.name} is not declared; declared are {', '.join(sorted(types)) or 'none'}"
    if isinstance(node, Each) and kind is not VariableType.STRING_LIST:
        return f"#each needs a list of strings and {node.name} is a {kind}"
    if isinstance(node, Place) and kind is VariableType.STRING_LIST:
        return f"{node.name} is a list; repeat it with #each"
    return None


def _message(message: Template) -> dict[str, str]:
    return {"role": message.role.value, "template": message.text, "name": message.name}


def _variable(one: Variable) -> dict[str, object]:
    default = {} if one.default is REQUIRED else {"default": one.default}
    return {"name": one.name, "type": one.type.value, "description": one.description, **default}
