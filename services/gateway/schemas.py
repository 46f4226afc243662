"""JSON Schemas of the contract's messages, as Envoy's transcoder reads and writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet

Schema = dict[str, Any]

_LABEL: Final = FieldDescriptorProto.LABEL_REPEATED
_SCALARS: Final[Mapping[int, Schema]] = {
    FieldDescriptorProto.TYPE_DOUBLE: {"type": "number", "format": "double"},
    FieldDescriptorProto.TYPE_FLOAT: {"type": "number", "format": "float"},
    FieldDescriptorProto.TYPE_INT32: {"type": "integer", "format": "int32"},
    FieldDescriptorProto.TYPE_UINT32: {"type": "integer", "format": "int64", "minimum": 0},
    # 64-bit numbers do not fit a JavaScript number: they travel as text.
    FieldDescriptorProto.TYPE_INT64: {"type": "string", "format": "int64"},
    FieldDescriptorProto.TYPE_UINT64: {"type": "string", "format": "uint64"},
    FieldDescriptorProto.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptorProto.TYPE_STRING: {"type": "string"},
    FieldDescriptorProto.TYPE_BYTES: {"type": "string", "format": "byte"},
}
_KNOWN: Final[Mapping[str, Schema]] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?\d+(\.\d+)?s$", "example": "1.5s"},
    "google.protobuf.Struct": {"type": "object", "additionalProperties": True},
    "google.protobuf.Value": {},
    "google.protobuf.ListValue": {"type": "array", "items": {}},
    "google.protobuf.Any": {
        "type": "object",
        "properties": {"@type": {"type": "string"}},
        "additionalProperties": True,
    },
    "google.api.HttpBody": {},
}


class Schemas:
    """All messages and enums, and which of them were asked for."""

    def __init__(self, files: FileDescriptorSet, comments: Mapping[str, str]) -> None:
        self._comments = comments
        self._messages: dict[str, DescriptorProto] = {}
        self._enums: dict[str, EnumDescriptorProto] = {}
        self.used: dict[str, Schema] = {}
        for file in files.file:
            for message in file.message_type:
                self._add(message, f"{file.package}.{message.name}")
            self._enums |= {f"{file.package}.{enum.name}": enum for enum in file.enum_type}

    def message(self, name: str) -> DescriptorProto:
        """By full name."""
        return self._messages[name]

    def reference(self, name: str) -> Schema:
        """A reference to a message or enum, which is then among those used."""
        if name in _KNOWN:
            return dict(_KNOWN[name])
        short = name.removeprefix("agentnet.")
        if short not in self.used:
            self.used[short] = {}
            self.used[short].update(self._enum(name) if name in self._enums else self._object(name))
        return {"$ref": f"#/components/schemas/{short}"}

    def field(self, owner: str, field: FieldDescriptorProto) -> Schema:
        """One field of the message named `owner`, with its comment."""
        schema = self._value(field)
        comment = self._comments.get(f"{owner}.{field.name}")
        if comment and "$ref" in schema:
            return {"allOf": [schema], "description": comment}
        return schema | ({"description": comment} if comment else {})

    def _value(self, field: FieldDescriptorProto) -> Schema:
        one = dict(_SCALARS[field.type]) if field.type in _SCALARS else self._typed(field.type_name.lstrip("."))
        if field.label != _LABEL or ("additionalProperties" in one and self._is_map(field)):
            return one
        return {"type": "array", "items": one}

    def _typed(self, name: str) -> Schema:
        message = self._messages.get(name)
        if message is not None and message.options.map_entry:
            return {"type": "object", "additionalProperties": self._value(message.field[1])}
        return self.reference(name)

    def _is_map(self, field: FieldDescriptorProto) -> bool:
        message = self._messages.get(field.type_name.lstrip("."))
        return message is not None and message.options.map_entry

    def _object(self, name: str) -> Schema:
        properties = {field.name: self.field(name, field) for field in self._messages[name].field}
        return self._described(name) | {"type": "object", "properties": properties}

    def _enum(self, name: str) -> Schema:
        values = self._enums[name].value
        told = [f"{value.name}: {self._comments.get(f'{name}.{value.name}', '')}" for value in values]
        whole = "\n\n".join(filter(None, (self._comments.get(name, ""), "\n".join(told))))
        return {"type": "string", "enum": [value.name for value in values], "description": whole}

    def _described(self, name: str) -> Schema:
        return {"description": self._comments[name]} if name in self._comments else {}

    def _add(self, message: DescriptorProto, name: str) -> None:
        self._messages[name] = message
        for nested in message.nested_type:
            self._add(nested, f"{name}.{nested.name}")
        self._enums |= {f"{name}.{enum.name}": enum for enum in message.enum_type}
