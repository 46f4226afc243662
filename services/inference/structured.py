"""Output that must fit a JSON Schema: judged here, whatever the provider promises, and asked for once more."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

import jsonschema
from jsonschema.validators import Draft202012Validator

from services.inference.errors import OutputInvalid
from services.inference.providers.contract import ModelCall, ResponseFormat, Role, said

_SHOWN: Final = 200


def fault(form: ResponseFormat, text: str) -> OutputInvalid | None:
    """What is wrong with an output, by path; None when it fits."""
    try:
        error = _misfit(form, text)
    except ValueError:
        return OutputInvalid("the output is not JSON", path="$")
    if error is None:
        return None
    return OutputInvalid(f"the output does not fit the schema at {error.json_path}", path=error.json_path)


def _misfit(form: ResponseFormat, text: str) -> jsonschema.exceptions.ValidationError | None:
    """Raises ValueError for what is no JSON."""
    errors = Draft202012Validator(dict(form.json_schema)).iter_errors(json.loads(text))
    found: jsonschema.exceptions.ValidationError | None = jsonschema.exceptions.best_match(errors)
    return found


def repair(call: ModelCall, text: str, found: OutputInvalid) -> ModelCall:
    """The call that asks once more, with the output and its fault: to the model in the validator's words, which quote
    the output and are for nobody else.
    """
    why = ""
    with suppress(ValueError):
        error = _misfit(call.response_format, text) if call.response_format else None
        why = f": {error.message[:_SHOWN]}" if error else ""
    asked = f"{found.message[:_SHOWN]}{why}. Answer again, with JSON alone that fits the schema."
    begun = (said(Role.ASSISTANT, text),) if text else ()
    return replace(call, messages=(*call.messages, *begun, said(Role.USER, asked)))


def check_schema(schema: Mapping[str, Any]) -> str | None:
    """Why this is no JSON Schema; None when it is one."""
    try:
        Draft202012Validator.check_schema(schema)
    except jsonschema.exceptions.SchemaError as error:
        return f"{error.json_path}: {error.message[:_SHOWN]}"
    return None
