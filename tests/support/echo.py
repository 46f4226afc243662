"""A mesh that keeps what each call of the contract asked, and answers with nothing said; and messages to ask with."""

from __future__ import annotations

import random
from typing import Any

import grpc
from google.api import annotations_pb2
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor

from services.gateway import contract

_BYTES = "google.api.HttpBody"
_DEEPEST = 3
_FREE = {"a": 1.0, "NotOurs": {"level": ["x", None, True]}}


def methods_with_body() -> list[MethodDescriptor]:
    """All whose body over REST is a message of the contract's own."""
    every = (method for service in contract.services() for method in service.methods)
    return [one for one in every if rule(one).body and one.output_type.full_name != _BYTES]


def rule(method: MethodDescriptor) -> Any:
    return method.GetOptions().Extensions[annotations_pb2.http]


class Echo(grpc.GenericRpcHandler):
    """Serves every method of the contract but the bytes', as one that was asked and answers empty."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        every = (method for service in contract.services() for method in service.methods)
        self._methods = {
            f"/{one.containing_service.full_name}/{one.name}": one
            for one in every
            if one.output_type.full_name != _BYTES
        }

    def serve(self, server: grpc.aio.Server) -> None:
        server.add_generic_rpc_handlers((self,))

    def service(self, call: grpc.HandlerCallDetails) -> Any:
        method = self._methods.get(call.method)
        if method is None or method.name in {"GetHealth", "GetLiveness"}:
            return None
        answer = message_factory.GetMessageClass(method.output_type)()

        async def one(request: Any, _context: Any) -> Any:
            self.asked.append(request)
            return answer

        async def several(request: Any, context: Any) -> Any:
            for _ in range(2):
                yield await one(request, context)

        codec = {
            "request_deserializer": message_factory.GetMessageClass(method.input_type).FromString,
            "response_serializer": lambda message: message.SerializeToString(),
        }
        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(several, **codec)
        return grpc.unary_unary_rpc_method_handler(one, **codec)


def filled(descriptor: Descriptor, chance: random.Random, depth: int = 0) -> Any:
    """A message with every field set, as deep as it is sensible; of a oneof, one."""
    message: Any = message_factory.GetMessageClass(descriptor)()
    if descriptor.full_name in {"google.protobuf.Struct", "google.protobuf.Value"}:
        (message if descriptor.name == "Struct" else message.struct_value).update(_FREE)
    elif descriptor.full_name not in {"google.protobuf.Any", "google.protobuf.FieldMask"}:
        chosen = {chance.choice(one.fields).name for one in descriptor.oneofs}
        for field in descriptor.fields:
            if field.containing_oneof is None or field.name in chosen:
                _fill(message, field, chance, depth)
    return message


def _fill(message: Any, field: FieldDescriptor, chance: random.Random, depth: int) -> None:
    kind = field.message_type
    if kind and (depth == _DEEPEST and not kind.full_name.startswith("google.protobuf.")):
        return
    if kind and kind.GetOptions().map_entry:
        _fill_map(getattr(message, field.name), kind, chance, depth)
    elif field.is_repeated:
        getattr(message, field.name).extend([_value(field, chance, depth + 1) for _ in range(2)])
    elif kind:
        getattr(message, field.name).CopyFrom(filled(kind, chance, depth + 1))
    else:
        setattr(message, field.name, _value(field, chance, depth))


def _fill_map(held: Any, entry: Descriptor, chance: random.Random, depth: int) -> None:
    key, value = _value(entry.fields_by_name["key"], chance, depth), entry.fields_by_name["value"]
    if value.message_type:
        held[key].CopyFrom(filled(value.message_type, chance, depth + 1))
    else:
        held[key] = _value(value, chance, depth)


def _value(field: FieldDescriptor, chance: random.Random, depth: int) -> Any:
    if field.message_type:
        return filled(field.message_type, chance, depth)
    if field.enum_type:
        return chance.choice(field.enum_type.values).number
    plain = {
        FieldDescriptor.CPPTYPE_STRING: b"\x00\xff" if field.type == FieldDescriptor.TYPE_BYTES else 'wörd "quoted" \\',
        FieldDescriptor.CPPTYPE_BOOL: True,
        FieldDescriptor.CPPTYPE_DOUBLE: 0.5,
        FieldDescriptor.CPPTYPE_FLOAT: 0.5,
    }
    return plain.get(field.cpp_type, chance.randint(1, 59))
