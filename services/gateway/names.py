"""Names of a REST call that the contract does not know. The transcoder drops them, and what they said, without a word;
here they are refused, with the name that was meant.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final
from urllib.parse import parse_qsl

from google.api import annotations_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor, ServiceDescriptor

from agentnet.common.v1 import permission_pb2
from shared.errors import InvalidArgument

_BYTES: Final = "google.api.HttpBody"
# Their JSON is a form of its own, or may hold anything.
_OWN_FORM: Final = "google.protobuf."
_ALL: Final = "*"
_SHOWN: Final = 100


@dataclass(frozen=True, slots=True)
class Form:
    """What a method takes over REST: its message, and the field of it that the body is (`*` for all, "" for none)."""

    message: Descriptor
    body: str


class Names:
    """Every name of the contract's REST calls."""

    def __init__(self, forms: Mapping[str, Form]) -> None:
        self._forms = forms

    @classmethod
    def of(cls, services: Iterable[ServiceDescriptor]) -> Names:
        """Of all methods but those of facades, which take or answer bytes and judge what they are sent themselves;
        documents, open to all, are none.
        """
        methods = [method for service in services for method in service.methods]
        return cls({f"/{one.containing_service.full_name}/{one.name}": _form(one) for one in methods if _typed(one)})

    def check(self, path: str, query: str, body: bytes) -> None:
        """Raises InvalidArgument for the first name that the method of this gRPC path does not know."""
        if (query or body) and (form := self._forms.get(path)):
            for name, _ in parse_qsl(query, keep_blank_values=True):
                _check_parameter(form.message, name)
            if body.strip():
                _check_body(form, body)


def _typed(method: MethodDescriptor) -> bool:
    taken = {method.input_type, *(field.message_type for field in method.input_type.fields if field.message_type)}
    answered = {method.output_type} if not _open(method) else set()
    return _BYTES not in {message.full_name for message in taken | answered}


def _open(method: MethodDescriptor) -> bool:
    return bool(method.GetOptions().Extensions[permission_pb2.permission] == permission_pb2.PERMISSION_OPEN)


def _form(method: MethodDescriptor) -> Form:
    return Form(method.input_type, method.GetOptions().Extensions[annotations_pb2.http].body)


def _check_parameter(message: Descriptor, name: str) -> None:
    inside: Descriptor | None = message
    path = ""
    for part in name.split("."):
        field = _known(inside, part, path, "query parameter")
        inside, path = field.message_type, f"{path}{field.name}."


def _check_body(form: Form, body: bytes) -> None:
    try:
        value = json.loads(body.decode(errors="replace"))
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"the body is not JSON: {error}", field="body") from error
    if form.body == _ALL:
        _walk(value, form.message, "")
    elif form.body:
        _walk(value, form.message.fields_by_name[form.body].message_type, f"{form.body}.")
    elif value:
        raise InvalidArgument("the method takes no body; send none", field="body")


def _walk(value: Any, message: Descriptor | None, path: str) -> None:
    if message is None or not isinstance(value, dict) or message.full_name.startswith(_OWN_FORM):
        return
    for name, held in value.items():
        field = _known(message, name, path, "field")
        if field.message_type and isinstance(held, dict | list):
            for inside, key in _messages(field, held):
                _walk(inside, (_value_of_map(field) or field).message_type, f"{path}{field.name}{key}.")


def _messages(field: FieldDescriptor, held: Any) -> Iterator[tuple[Any, str]]:
    """The messages that a field's value holds, and where in it."""
    if isinstance(held, list):
        yield from ((one, f"[{index}]") for index, one in enumerate(held))
    elif _value_of_map(field):
        yield from ((one, f"[{_shown(key)}]") for key, one in held.items())
    else:
        yield held, ""


def _known(message: Descriptor | None, name: str, path: str, kind: str) -> FieldDescriptor:
    """Raises InvalidArgument; what has no message has no names either."""
    known = _fields(message) if message else {}
    if field := known.get(name):
        return field
    whole = f"{path}{_shown(name)}"
    if near := _nearest(_shown(name), known):
        meant = f"{path}{known[near].name}"
        raise InvalidArgument(f"there is no {kind} {whole}; did you mean {meant}?", field=whole, suggestion=meant)
    own = ", ".join(sorted({one.name for one in known.values()})) or "none"
    raise InvalidArgument(f"there is no {kind} {whole}; known here: {own}", field=whole)


def _nearest(name: str, known: Iterable[str]) -> str | None:
    """The one that ends with it (`level`, of `governance_level`), else the one most like it."""
    ends = [one for one in known if one.endswith(f"_{name}")]
    return ends[0] if ends else next(iter(difflib.get_close_matches(name, known, n=1)), None)


def _shown(name: str) -> str:
    """A name of the caller's as an answer can repeat it."""
    return name[:_SHOWN].encode(errors="replace").decode()


@cache
def _fields(message: Descriptor) -> Mapping[str, FieldDescriptor]:
    """By each name that JSON may use: the contract's own and the one in camel case."""
    return {name: field for field in message.fields for name in (field.name, field.json_name)}


def _value_of_map(field: FieldDescriptor) -> FieldDescriptor | None:
    entry = field.message_type
    return entry.fields_by_name["value"] if entry and entry.GetOptions().map_entry else None
