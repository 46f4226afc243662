"""Answers of a given form: the JSON schema a model is held to, and the strict reading of what it said."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import jsonschema
from google.protobuf import json_format, struct_pb2

from services.orchestrator.errors import TurnOutputInvalid
from services.orchestrator.graphs.conditions import parsed
from shared.errors import MeshError

_SHOWN: Final = 4_000
REASON: Final = {"type": "string", "maxLength": 240}


@dataclass(frozen=True, slots=True)
class Form:
    """What an answer must be. `check` raises a MeshError for what a schema cannot say."""

    name: str
    schema: Mapping[str, Any]
    check: Callable[[str], object] | None = None

    def instruction(self) -> str:
        """What the agent is told, also where the model cannot be held to a schema."""
        return f"Answer with JSON of this schema and nothing else:\n{json.dumps(self.schema, separators=(',', ':'))}"

    def read(self, answer: str) -> Any:
        """The value of an answer. Raises TurnOutputInvalid, which says what is wrong and where."""
        value = parsed(answer)
        if value is None:
            raise TurnOutputInvalid("the answer holds no JSON", form=self.name, path="$")
        error = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(self.schema).iter_errors(value))
        if error is not None:
            raise TurnOutputInvalid(f"{error.json_path}: {error.message}"[:500], form=self.name, path=error.json_path)
        if self.check is not None:
            try:
                self.check(answer)
            except MeshError as fault:
                raise TurnOutputInvalid(fault.message[:500], form=self.name, path="$") from None
        return value


def of(name: str, **properties: Any) -> Form:
    """The form of an object with exactly these properties."""
    schema = {
        "type": "object",
        "required": list(properties),
        "additionalProperties": False,
        "properties": properties,
    }
    return Form(name, schema)


def one_of(values: Sequence[str]) -> dict[str, Any]:
    return {"type": "string", "enum": list(values)}


def from_struct(name: str, schema: struct_pb2.Struct) -> Form:
    """The form an agent's own output schema demands."""
    return Form(name, json_format.MessageToDict(schema))


def value(answer: str) -> Any:
    """The value of an answer that was read before."""
    return parsed(answer) or {}


def repair(answer: str, fault: str) -> str:
    """What an agent is asked after an answer that was not of its form."""
    return (
        f"Your answer was:\n{answer.strip()[:_SHOWN]}\n\nIt is not of the form that was asked for: {fault}\n"
        "Answer again, with the whole corrected JSON and nothing else."
    )
