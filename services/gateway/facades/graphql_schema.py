"""The contract's reading side as a GraphQL schema: methods are fields, messages are types."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from graphql import (
    GraphQLArgument,
    GraphQLBoolean,
    GraphQLField,
    GraphQLFloat,
    GraphQLInt,
    GraphQLList,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLResolveInfo,
    GraphQLScalarType,
    GraphQLSchema,
    GraphQLString,
)

Resolve = Callable[[MethodDescriptor, Mapping[str, Any]], Awaitable[Any]]

_JSON: Final = GraphQLScalarType("JSON", description="Any JSON.")
_TEXTS: Final = frozenset({"google.protobuf.Timestamp", "google.protobuf.Duration", "google.protobuf.FieldMask"})
_FREE: Final = frozenset(
    {"google.protobuf.Struct", "google.protobuf.Value", "google.protobuf.ListValue", "google.protobuf.Any"}
)
_BODY: Final = "google.api.HttpBody"
_SCALARS: Final = {
    FieldDescriptor.CPPTYPE_INT32: GraphQLInt,
    FieldDescriptor.CPPTYPE_UINT32: GraphQLInt,
    FieldDescriptor.CPPTYPE_DOUBLE: GraphQLFloat,
    FieldDescriptor.CPPTYPE_FLOAT: GraphQLFloat,
    FieldDescriptor.CPPTYPE_BOOL: GraphQLBoolean,
}


def schema(services: Iterable[ServiceDescriptor], resolve: Resolve) -> GraphQLSchema:
    """One field for each unary method that only reads. Of two with one name the later has its service's before it."""
    types = _Types()
    fields: dict[str, GraphQLField] = {}
    for service in services:
        for method in filter(_reads, service.methods):
            name = method.name[0].lower() + method.name[1:]
            if name in fields:
                name = f"{service.name.removesuffix('Service').lower()}_{name}"
            fields[name] = _field(method, types, resolve)
    return GraphQLSchema(GraphQLObjectType("Query", fields))


def _reads(method: MethodDescriptor) -> bool:
    return (
        method.GetOptions().idempotency_level == MethodOptions.NO_SIDE_EFFECTS
        and not method.server_streaming
        and method.output_type.full_name != _BODY
        and bool(method.output_type.fields)
    )


def _field(method: MethodDescriptor, types: _Types, resolve: Resolve) -> GraphQLField:
    async def resolved(_source: Any, _info: GraphQLResolveInfo[Any], **given: Any) -> Any:
        return await resolve(method, given)

    arguments = {
        field.json_name: GraphQLArgument(kind)
        for field in method.input_type.fields
        if (kind := _input(field)) is not None
    }
    return GraphQLField(types.of(method.output_type), args=arguments, resolve=resolved)


def _input(field: FieldDescriptor) -> Any:
    """Messages other than times are no arguments: questions are small."""
    if field.message_type is not None:
        return GraphQLString if field.message_type.full_name in _TEXTS else None
    kind = _SCALARS.get(field.cpp_type, GraphQLString)
    return GraphQLList(kind) if field.is_repeated else kind


class _Types:
    """Each message once; types may hold one another."""

    def __init__(self) -> None:
        self._known: dict[str, GraphQLObjectType] = {}

    def of(self, message: Descriptor) -> GraphQLObjectType:
        if found := self._known.get(message.full_name):
            return found
        made = GraphQLObjectType(_name(message), lambda: self._fields(message))
        self._known[message.full_name] = made
        return made

    def _fields(self, message: Descriptor) -> dict[str, GraphQLField]:
        return {field.json_name: GraphQLField(self._output(field)) for field in message.fields}

    def _output(self, field: FieldDescriptor) -> GraphQLOutputType:
        inner = self._one(field)
        return GraphQLList(inner) if field.is_repeated and inner is not _JSON else inner

    def _one(self, field: FieldDescriptor) -> GraphQLOutputType:
        message = field.message_type
        if message is None:
            return _SCALARS.get(field.cpp_type, GraphQLString)
        if message.full_name in _TEXTS:
            return GraphQLString
        if message.full_name in _FREE or message.GetOptions().map_entry or not message.fields:
            return _JSON
        return self.of(message)


def _name(message: Descriptor) -> str:
    """agentnet.cost.v1.Budget is CostBudget."""
    _, owner, _, *rest = message.full_name.split(".")
    return owner.capitalize() + "_".join(rest)
