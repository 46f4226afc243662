"""exec_mode "grpc": a unary method of a server that answers reflection."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any, Final

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from grpc import StatusCode
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from services.tools import answer
from services.tools.answer import Outcome, Printed, Status
from services.tools.egress import Egress
from services.tools.executor import Isolation, Work
from services.tools.http_api import target_of
from services.tools.secrets import Secrets

_MAX_ANSWER: Final = 1024 * 1024
_MAX_FILES: Final = 200
# After these nobody knows whether the server did it.
_LOST: Final = frozenset(
    {StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED, StatusCode.UNKNOWN, StatusCode.CANCELLED}
)


class GrpcExecutor:
    """Calls methods by what the server says of them."""

    isolation = Isolation.VM
    reaches_out = True

    def __init__(self, allowed: Egress, secrets: Secrets) -> None:
        self._allowed = allowed
        self._secrets = secrets

    def check_room(self) -> None:
        """A call needs no place of its own."""

    async def execute(self, work: Work, printed: Printed) -> Outcome:
        target = target_of(work)
        host, _, port = target["address"].rpartition(":")
        address = await self._allowed.address(host.strip("[]"), int(port))
        metadata: tuple[tuple[str, str], ...] = ()
        if work.tool.auth:
            metadata = (("authorization", f"Bearer {self._secrets.use(work, work.tool.auth['key_id'])}"),)
        began = time.monotonic()
        where = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        options = (("grpc.default_authority", target["address"]), ("grpc.max_receive_message_length", _MAX_ANSWER))
        async with grpc.aio.insecure_channel(where, options=options) as channel:
            outcome = await _called(channel, work, metadata)
        elapsed = timedelta(seconds=time.monotonic() - began)
        return Outcome(outcome.status, outcome.result, outcome.message, elapsed=elapsed, isolation="none")


async def _called(channel: grpc.aio.Channel, work: Work, metadata: tuple[tuple[str, str], ...]) -> Outcome:
    target = target_of(work)
    service, _, name = target["method"].partition("/")
    try:
        async with asyncio.timeout(target["timeout"]):
            pool = await _described(channel, service)
            method = pool.FindServiceByName(service).methods_by_name[name]
            request = json_format.ParseDict(
                dict(work.arguments), message_factory.GetMessageClass(method.input_type)(), descriptor_pool=pool
            )
    except (grpc.aio.AioRpcError, TimeoutError) as error:
        return Outcome(Status.UNREACHABLE, message=f"{target['address']} does not describe itself: {_said(error)}")
    except (KeyError, TypeError, json_format.ParseError) as error:
        return Outcome(Status.UPSTREAM_REFUSED, message=f"{target['method']} cannot be called so: {error}"[:500])
    reply = message_factory.GetMessageClass(method.output_type)
    call: Any = channel.unary_unary(
        f"/{service}/{name}",
        request_serializer=lambda sent: sent.SerializeToString(),
        response_deserializer=reply.FromString,
    )
    try:
        found = await call(request, timeout=target["timeout"], metadata=metadata)
    except grpc.aio.AioRpcError as error:
        return _refused(error, safe=work.tool.idempotent)
    result = json_format.MessageToDict(found, preserving_proto_field_name=True, descriptor_pool=pool)
    if problem := answer.flaw(result):
        return Outcome(Status.UPSTREAM_REFUSED, message=f"the answer {problem}")
    return Outcome(Status.OK, result=result)


async def _described(channel: grpc.aio.Channel, service: str) -> descriptor_pool.DescriptorPool:
    """The service and all it needs. Raises KeyError when the server does not have it."""
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[arg-type] # typed for the sync one
    stream = stub.ServerReflectionInfo()
    files: dict[str, descriptor_pb2.FileDescriptorProto] = {}
    wanted = [reflection_pb2.ServerReflectionRequest(file_containing_symbol=service)]
    while wanted and len(files) < _MAX_FILES:
        await stream.write(wanted.pop())
        found = await stream.read()
        if found is grpc.aio.EOF or found.HasField("error_response"):
            raise KeyError(f"the server has no {service}")
        for data in found.file_descriptor_response.file_descriptor_proto:
            file = descriptor_pb2.FileDescriptorProto.FromString(data)
            files[file.name] = file
        missing = {name for file in files.values() for name in file.dependency} - set(files)
        wanted = [reflection_pb2.ServerReflectionRequest(file_by_filename=name) for name in sorted(missing)]
    await stream.done_writing()
    return _pooled(files)


def _pooled(files: dict[str, descriptor_pb2.FileDescriptorProto]) -> descriptor_pool.DescriptorPool:
    pool, added = descriptor_pool.DescriptorPool(), set[str]()

    def add(name: str) -> None:
        if name in added or name not in files:
            return
        added.add(name)
        for dependency in files[name].dependency:
            add(dependency)
        pool.Add(files[name])

    for name in files:
        add(name)
    return pool


def _refused(error: grpc.aio.AioRpcError, *, safe: bool) -> Outcome:
    if error.code() not in _LOST:
        return Outcome(Status.UPSTREAM_REFUSED, message=_said(error))
    return Outcome(Status.UPSTREAM_ERROR if safe else Status.UNKNOWN, message=_said(error))


def _said(error: grpc.aio.AioRpcError | TimeoutError) -> str:
    if isinstance(error, TimeoutError):
        return "it took too long"
    return f"{error.code().name}: {error.details()}"[:500]
