"""Filling a prompt in: every value has its variable's type, or the error names it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from services.inference.prompts import template
from services.inference.prompts.content import REQUIRED, Prompt, Variable, VariableType, as_json
from services.inference.prompts.template import Truth
from services.inference.providers.contract import Role
from shared.errors import FieldRequired, FieldTooLong, InvalidArgument

MAX_ENTRIES: Final = 1000
MAX_RENDERED: Final = 1_048_576
_MAX_INTEGER: Final = 2**53


@dataclass(frozen=True, slots=True)
class RenderedMessage:
    """One message, ready for a model."""

    role: Role
    text: str
    name: str = ""


def fill(prompt: Prompt, given: Mapping[str, object]) -> tuple[RenderedMessage, ...]:
    """The messages. Raises InvalidArgument naming the variable that is missing, unknown or of another type."""
    declared = {one.name: one for one in prompt.content.variables}
    for name in given:
        if name not in declared:
            known = ", ".join(sorted(declared)) or "none"
            raise InvalidArgument(
                f"the prompt has no variable {name[:64]}; it has {known}", field=f"variables.{name[:64]}"
            )
    values = {name: shown(one, _value(one, given), field=f"variables.{name}") for name, one in declared.items()}
    found = tuple(
        RenderedMessage(message.role, template.render(nodes, values, limit=MAX_RENDERED), message.name)
        for message, nodes in zip(prompt.content.messages, prompt.nodes, strict=True)
    )
    if (length := sum(len(message.text) for message in found)) > MAX_RENDERED:
        raise FieldTooLong("messages", length=length, limit=MAX_RENDERED)
    return found


def shown(variable: Variable, value: object, *, field: str) -> str | tuple[str, ...] | Truth:
    """The value as templates show it. Raises InvalidArgument when it is not of the variable's type."""
    match variable.type, value:
        case VariableType.STRING, str():
            return value
        case VariableType.INTEGER, int() if not isinstance(value, bool) and abs(value) <= _MAX_INTEGER:
            return Truth(str(value), bool(value))
        case VariableType.NUMBER, int() | float() if not isinstance(value, bool):
            return Truth(as_json(value), bool(value))
        case VariableType.BOOLEAN, bool():
            return Truth(as_json(value), value)
        case VariableType.STRING_LIST, list() if len(value) <= MAX_ENTRIES:
            if all(isinstance(entry, str) for entry in value):
                return tuple(value)
        case VariableType.JSON, _:
            return Truth(as_json(value), bool(value))
    raise InvalidArgument(f"{variable.name} must be {_FORMS[variable.type]}", field=field)


def _value(variable: Variable, given: Mapping[str, object]) -> object:
    value = given.get(variable.name, variable.default)
    if value is REQUIRED:
        raise FieldRequired(f"variables.{variable.name}")
    return value


_FORMS: Final = {
    VariableType.STRING: "a text",
    VariableType.INTEGER: "a whole number of at most 2^53",
    VariableType.NUMBER: "a number",
    VariableType.BOOLEAN: "true or false",
    VariableType.STRING_LIST: f"a list of at most {MAX_ENTRIES} texts",
    VariableType.JSON: "JSON",
}
