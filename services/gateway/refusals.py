"""What Envoy tells of calls that it refused by itself: an OTLP export of logs, as deploy/envoy/refusals.py has it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.logs.v1 import logs_pb2
from opentelemetry.proto.resource.v1 import resource_pb2

_NOTHING: Final = "-"
_WORD: Final = re.compile(r"[a-z0-9_.]{1,64}")


@dataclass(frozen=True, slots=True)
class Refusal:
    """One call, and why in Envoy's own words; its path without the query."""

    address: str
    path: str
    details: str
    request_id: str


def refusals(body: bytes) -> list[Refusal]:
    """Raises DecodeError of protobuf."""
    told = _EXPORT.FromString(body)
    records = (one for resource in told.resource_logs for scope in resource.scope_logs for one in scope.log_records)
    return [_refusal({said.key: said.value.string_value for said in record.attributes}) for record in records]


def _refusal(said: Mapping[str, bytes]) -> Refusal:
    """Of the details only the word: what follows it may hold what the call said."""
    given = {name: value.decode(errors="replace").removeprefix(_NOTHING) for name, value in said.items()}
    word = _WORD.match(given["details"])
    return Refusal(given["address"], given["path"], word[0] if word else "refused", given["request_id"])


def _export() -> Any:
    """The export with texts as bytes: a caller's headers may hold what is no UTF-8, and would hide all beside them."""
    pool = DescriptorPool()
    for module in (common_pb2, resource_pb2, logs_pb2, logs_service_pb2):
        file = FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        for message in file.message_type:
            for field in message.field:
                if message.name == "AnyValue" and field.type == FieldDescriptorProto.TYPE_STRING:
                    field.type = FieldDescriptorProto.TYPE_BYTES
        pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName(logs_service_pb2.ExportLogsServiceRequest.DESCRIPTOR.full_name))


_EXPORT: Final = _export()
