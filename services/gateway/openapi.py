"""The OpenAPI document of the whole mesh, written from the contract: paths, comments, permissions, errors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from google.api import annotations_pb2, http_pb2
from google.protobuf.descriptor_pb2 import (
    FieldDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)

from services.gateway.comments import comments
from services.gateway.permissions import Permission, Permissions
from services.gateway.schemas import Schema, Schemas

_STATUS: Final = "google.rpc.Status"
_BODY: Final = "google.api.HttpBody"
_VARIABLE: Final = re.compile(r"\{([^}=]+)(?:=[^}]*)?\}")
_CODE: Final = re.compile(r"\b([A-Z]+(?:_[A-Z]+)*)\b")
HTTP: Final[Mapping[str, int]] = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}


@dataclass(frozen=True, slots=True)
class Operation:
    """One way to call one method over REST."""

    service: str
    method: MethodDescriptorProto
    verb: str
    path: str
    body: str
    number: int

    @property
    def name(self) -> str:
        return f"{self.service}.{self.method.name}"


def openapi(files: FileDescriptorSet, allowed: Permissions, *, version: str) -> dict[str, Any]:
    """OpenAPI 3.0 for everything callers may call from outside."""
    told = comments(files)
    schemas = Schemas(files, told)
    paths: dict[str, dict[str, Any]] = {}
    tags: dict[str, str] = {}
    for operation in operations(files):
        permission = allowed[f"/{operation.service}/{operation.method.name}"]
        if permission.roles:
            tags[_tag(operation)] = told.get(operation.service, "")
            described = _operation(operation, permission, schemas, told)
            paths.setdefault(_VARIABLE.sub(r"{\1}", operation.path), {})[operation.verb] = described
    status = schemas.reference(_STATUS)
    return {
        "openapi": "3.0.3",
        "info": {"title": "agentnet", "version": version, "description": "A mesh of services for teams of AI agents."},
        "security": [{"bearer": []}, {"apiKey": []}],
        "tags": [{"name": name, "description": text} for name, text in sorted(tags.items())],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": dict(sorted(schemas.used.items())),
            "responses": {"Error": {"description": "What went wrong.", "content": _json(status)}},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def operations(files: FileDescriptorSet) -> Iterator[Operation]:
    """Every binding of every method of the mesh's own contract."""
    for file in files.file:
        if not file.package.startswith("agentnet."):
            continue
        for service in file.service:
            for method in service.method:
                rule = method.options.Extensions[annotations_pb2.http]
                for number, binding in enumerate((rule, *rule.additional_bindings)):
                    if verb := binding.WhichOneof("pattern"):
                        name = f"{file.package}.{service.name}"
                        yield Operation(name, method, verb, getattr(binding, verb), _body(binding), number)


def _body(binding: http_pb2.HttpRule) -> str:
    return str(binding.body)


def _operation(operation: Operation, permission: Permission, schemas: Schemas, told: Mapping[str, str]) -> Schema:
    comment = told.get(operation.name, "")
    request = operation.method.input_type.lstrip(".")
    suffix = f"_{operation.number}" if operation.number else ""
    found: Schema = {
        "operationId": f"{operation.service.rpartition('.')[2]}_{operation.method.name}{suffix}",
        "tags": [_tag(operation)],
        "summary": comment.partition(". ")[0].rstrip("."),
        "description": comment,
        "parameters": [*_parameters(operation, request, schemas)],
        "responses": _responses(operation, permission, schemas, comment),
        "x-agentnet-roles": sorted(permission.roles),
        "x-agentnet-scope": permission.scope,
    }
    if permission.open:
        found["security"] = []
    if operation.body:
        found["requestBody"] = {"required": True, "content": _json(_body_schema(operation, request, schemas))}
    return found


def _body_schema(operation: Operation, request: str, schemas: Schemas) -> Schema:
    if operation.body == "*":
        return schemas.reference(request)
    return schemas.field(request, _field(schemas, request, operation.body))


def _parameters(operation: Operation, request: str, schemas: Schemas) -> Iterator[Schema]:
    in_path = _VARIABLE.findall(operation.path)
    for name in in_path:
        yield {"name": name, "in": "path", "required": True, "schema": _at(schemas, request, name)}
    if operation.body == "*" or request == _BODY:
        return
    for field in schemas.message(request).field:
        if field.name not in in_path and field.name != operation.body:
            yield {"name": field.name, "in": "query", "schema": schemas.field(request, field)}


def _at(schemas: Schemas, message: str, path: str) -> Schema:
    """The field at a dotted path."""
    head, dot, rest = path.partition(".")
    field = _field(schemas, message, head)
    return _at(schemas, field.type_name.lstrip("."), rest) if dot else schemas.field(message, field)


def _field(schemas: Schemas, message: str, name: str) -> FieldDescriptorProto:
    return next(field for field in schemas.message(message).field if field.name == name)


def _responses(operation: Operation, permission: Permission, schemas: Schemas, comment: str) -> Schema:
    schema = schemas.reference(operation.method.output_type.lstrip("."))
    kind = "text/event-stream" if operation.method.server_streaming else "application/json"
    good = {"description": "It went well.", "content": {kind: {"schema": schema}}}
    named = {HTTP[word] for word in _CODE.findall(comment.partition("Errors:")[2]) if word in HTTP}
    always = set() if permission.open else {401, 403, 429}
    errors = {str(code): {"$ref": "#/components/responses/Error"} for code in sorted(named | always)}
    return {"200": good, **errors, "default": {"$ref": "#/components/responses/Error"}}


def _tag(operation: Operation) -> str:
    return operation.service.rpartition(".")[2].removesuffix("Service")


def _json(schema: Schema) -> Schema:
    return {"application/json": {"schema": schema}}
