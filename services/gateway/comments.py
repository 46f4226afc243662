"""The comments of the contract, by the full name of what they stand at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet

_MESSAGE: Final = 4
_ENUM: Final = 5
_SERVICE: Final = 6
# Within a message: fields, nested messages, nested enums. Within a service or an enum: methods or values.
_NESTED: Final = 3
_NESTED_ENUM: Final = 4
_MEMBER: Final = 2

Path = tuple[int, ...]


def comments(files: FileDescriptorSet) -> Mapping[str, str]:
    """Each comment as one text; lines are joined."""
    found: dict[str, str] = {}
    for file in files.file:
        told = {
            tuple(place.path): " ".join(place.leading_comments.split())
            for place in file.source_code_info.location
            if place.leading_comments
        }
        for path, name in _names(file):
            if path in told:
                found[name] = told[path]
    return found


def _names(file: FileDescriptorProto) -> Iterator[tuple[Path, str]]:
    for number, service in enumerate(file.service):
        name = f"{file.package}.{service.name}"
        yield (_SERVICE, number), name
        yield from _members(service.method, (_SERVICE, number), name)
    for number, message in enumerate(file.message_type):
        yield from _message(message, (_MESSAGE, number), f"{file.package}.{message.name}")
    for number, enum in enumerate(file.enum_type):
        yield from _enum(enum, (_ENUM, number), f"{file.package}.{enum.name}")


def _message(message: DescriptorProto, path: Path, name: str) -> Iterator[tuple[Path, str]]:
    yield path, name
    yield from _members(message.field, path, name)
    for number, nested in enumerate(message.nested_type):
        yield from _message(nested, (*path, _NESTED, number), f"{name}.{nested.name}")
    for number, enum in enumerate(message.enum_type):
        yield from _enum(enum, (*path, _NESTED_ENUM, number), f"{name}.{enum.name}")


def _enum(enum: EnumDescriptorProto, path: Path, name: str) -> Iterator[tuple[Path, str]]:
    yield path, name
    yield from _members(enum.value, path, name)


def _members(members: Any, path: Path, name: str) -> Iterator[tuple[Path, str]]:
    for number, member in enumerate(members):
        yield (*path, _MEMBER, number), f"{name}.{member.name}"
