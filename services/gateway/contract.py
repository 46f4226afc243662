"""The services of the mesh's contract, as descriptors: what the edge serves and admission decides on."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from importlib import import_module

from google.protobuf.descriptor import FileDescriptor, ServiceDescriptor

from shared.settings import SERVICES

_SERVICE_FILES = "_service_pb2"


def services() -> Iterator[ServiceDescriptor]:
    """Every service of agentnet.<service>.v1, of all seven."""
    for owner in SERVICES:
        package = import_module(f"agentnet.{owner}.v1")
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            if module.name.endswith(_SERVICE_FILES):
                file: FileDescriptor = import_module(module.name).DESCRIPTOR
                yield from file.services_by_name.values()
