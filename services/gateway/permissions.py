"""Which role may call which method from outside: what the contract says beside each method."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions

from agentnet.common.v1 import permission_pb2 as pb

ADMIN: Final = "admin"
OPERATOR: Final = "operator"
AUDITOR: Final = "auditor"
TENANT_USER: Final = "tenant_user"
ROLES: Final = frozenset({ADMIN, OPERATOR, AUDITOR, TENANT_USER})

_HOLDERS: Final[Mapping[int, frozenset[str]]] = {
    pb.PERMISSION_OPEN: ROLES,
    pb.PERMISSION_EVERYONE: ROLES,
    pb.PERMISSION_WORKERS: frozenset({ADMIN, OPERATOR, TENANT_USER}),
    pb.PERMISSION_OPERATORS: frozenset({ADMIN, OPERATOR}),
    pb.PERMISSION_OVERSEERS: frozenset({ADMIN, OPERATOR, AUDITOR}),
    pb.PERMISSION_ADMINS: frozenset({ADMIN}),
    pb.PERMISSION_MESH: frozenset(),
}
_WORD: Final = re.compile(r"(?<!^)(?=[A-Z])")


class PermissionMissing(Exception):
    """A method of the contract does not say who may call it. Annotate it; the mesh does not start without."""


@dataclass(frozen=True, slots=True)
class Permission:
    """Who may call one method: these roles, and of narrowed credentials those that hold the scope."""

    roles: frozenset[str]
    scope: str
    open: bool = False


Permissions = Mapping[str, Permission]

# Reflection is gRPC's own and tells no more than the repository does.
_REFLECTION: Final = {
    f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo": Permission(ROLES, "reflection:read")
    for version in ("v1", "v1alpha")
}


def permissions(services: Iterable[ServiceDescriptor]) -> Permissions:
    """By gRPC path. What is not in it may not be called. Raises PermissionMissing."""
    found: dict[str, Permission] = {}
    for service in services:
        read = {method.name: _read(method) for method in service.methods}
        found |= {f"/{service.full_name}/{name}": said for name, said in read.items()}
        if other := service.GetOptions().Extensions[pb.also_as]:
            found |= {f"/{other}/{name}": said for name, said in read.items() if not said.open}
    return found | _REFLECTION


def _read(method: MethodDescriptor) -> Permission:
    options = method.GetOptions()
    said = options.Extensions[pb.permission]
    if said not in _HOLDERS:
        raise PermissionMissing(f"{method.full_name} has no option (agentnet.common.v1.permission)")
    noun = _WORD.sub("_", method.containing_service.name.removesuffix("Service")).lower()
    verb = "read" if options.idempotency_level == MethodOptions.NO_SIDE_EFFECTS else "write"
    return Permission(_HOLDERS[said], f"{noun}:{verb}", open=said == pb.PERMISSION_OPEN)
