"""What the contract says about methods: which service owns them, which may be tried again, which stream."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from google.api import annotations_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorSet, MethodDescriptorProto, MethodOptions

from agentnet.common.v1 import permission_pb2

Template = str
BYTES = ".google.api.HttpBody"
_SAFE = (MethodOptions.NO_SIDE_EFFECTS, MethodOptions.IDEMPOTENT)


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC. `owner` is the service of the mesh that serves it, as "cost"; an open one asks no credential."""

    owner: str
    service: str
    name: str
    idempotent: bool
    streaming: bool
    open: bool
    output: str
    # Where it takes a body over REST, as "/v1/tools/{name}".
    bodies: tuple[Template, ...] = ()

    @property
    def path(self) -> str:
        return f"/{self.service}/{self.name}"


def served_beside(descriptors: Path) -> Iterator[Method]:
    """Methods of other protocols' gRPC services that a service of the contract is also served as."""
    files = FileDescriptorSet.FromString(descriptors.read_bytes()).file
    others = {
        f"{file.package}.{service.name}": service.options.Extensions[permission_pb2.also_as]
        for file in files
        for service in file.service
    }
    for method in methods(descriptors):
        if (other := others[method.service]) and not method.open:
            yield replace(method, service=other, output="", bodies=())


def methods(descriptors: Path) -> Iterator[Method]:
    """Every RPC of the contract."""
    files = FileDescriptorSet.FromString(descriptors.read_bytes()).file
    for file in files:
        if not file.package.startswith("agentnet."):
            continue
        for service in file.service:
            for method in service.method:
                yield Method(
                    owner=file.package.split(".")[1],
                    service=f"{file.package}.{service.name}",
                    name=method.name,
                    idempotent=method.options.idempotency_level in _SAFE,
                    streaming=method.server_streaming,
                    open=method.options.Extensions[permission_pb2.permission] == permission_pb2.PERMISSION_OPEN,
                    output=method.output_type,
                    bodies=tuple(_bodies(method)),
                )


def _bodies(method: MethodDescriptorProto) -> Iterator[Template]:
    rule = method.options.Extensions[annotations_pb2.http]
    for binding in (rule, *rule.additional_bindings):
        if binding.body:
            yield getattr(binding, binding.WhichOneof("pattern"))
