"""The GraphQL facade's service: parse, limit, validate, then one call of the mesh for each field of Query."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final

import grpc
from google.api import httpbody_pb2
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from graphql import ExecutionResult, GraphQLError, execute, parse, validate

from agentnet.gateway.v1 import graphql_service_pb2_grpc
from services.gateway.facades import http
from services.gateway.facades.graphql_limits import Most, check
from services.gateway.facades.graphql_schema import schema
from shared.errors import InvalidArgument, MeshError
from shared.rpc.status import from_rpc

Admit = Callable[[str], Awaitable[None]]
_BAD_REQUEST: Final = 400


class GraphqlService(graphql_service_pb2_grpc.GraphqlServiceServicer):
    """Reads for the caller. `admit` raises when the caller may not call the method at a path, or not so often."""

    def __init__(
        self, services: Iterable[ServiceDescriptor], channel: grpc.aio.Channel, admit: Admit, most: Most | None = None
    ) -> None:
        self._schema = schema(services, self._call)
        self._channel = channel
        self._admit = admit
        self._most = most or Most()

    async def QueryGraph(self, request: httpbody_pb2.HttpBody, context: Any) -> http.Bodies:
        try:
            query, variables, operation = _asked(request.data)
            document = parse(query, max_tokens=self._most.fields * 10)
            check(document, self._most)
            errors = validate(self._schema, document)
        except GraphQLError as error:
            errors = [error]
        except InvalidArgument as error:
            errors = [_told(error)]
        if errors:
            yield await http.fail(context, _BAD_REQUEST, {"errors": [error.formatted for error in errors]}, {})
            return
        found = execute(self._schema, document, variable_values=variables, operation_name=operation)
        result = found if isinstance(found, ExecutionResult) else await found
        yield http.document(result.formatted)

    async def _call(self, method: MethodDescriptor, given: Mapping[str, Any]) -> Any:
        path = f"/{method.containing_service.full_name}/{method.name}"
        try:
            await self._admit(path)
            return await self._read(path, method, given)
        except MeshError as error:
            raise _told(error) from error

    async def _read(self, path: str, method: MethodDescriptor, given: Mapping[str, Any]) -> Any:
        request = message_factory.GetMessageClass(method.input_type)()
        try:
            json_format.ParseDict({name: value for name, value in given.items() if value is not None}, request)
        except json_format.ParseError as error:
            raise InvalidArgument(str(error), field=method.name) from None
        answer = message_factory.GetMessageClass(method.output_type)
        call = self._channel.unary_unary(
            path, request_serializer=type(request).SerializeToString, response_deserializer=answer.FromString
        )
        try:
            found = await call(request)
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error) from error
        return json_format.MessageToDict(found, always_print_fields_with_no_presence=True)


def _asked(data: bytes) -> tuple[str, dict[str, Any], str | None]:
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        raise InvalidArgument("the body is not JSON", field="query") from None
    if not isinstance(body, dict) or not isinstance(body.get("query"), str):
        raise InvalidArgument("the body needs a text `query`", field="query")
    variables = {} if body.get("variables") is None else body["variables"]
    if not isinstance(variables, dict):
        raise InvalidArgument("variables must be an object", field="variables")
    return body["query"], variables, body.get("operationName")


def _told(error: MeshError) -> GraphQLError:
    return GraphQLError(error.message, extensions={"reason": error.reason_name, "code": error.code.name})
