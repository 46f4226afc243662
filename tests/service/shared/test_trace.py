"""A trace goes from caller to handler to whom the handler calls, also where nobody collects spans."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry import trace

from agentnet.gateway.v1 import identity_service_pb2 as pb
from agentnet.gateway.v1 import identity_service_pb2_grpc as rpc
from shared.rpc.channel import mesh_channel
from shared.rpc.server import serving
from shared.settings import MeshSettings
from shared.telemetry import Unrecorded
from tests.support.identity import Keys, make_keys

SERVICES = ("agentnet.gateway.v1.IdentityService",)
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


class Relay(rpc.IdentityServiceServicer):
    """Calls the next one, if there is one, and remembers the trace it was called in."""

    def __init__(self) -> None:
        self.next: Any = None
        self.seen: list[str] = []

    async def GetCaller(self, request: Any, context: Any) -> pb.GetCallerResponse:
        self.seen.append(f"{trace.get_current_span().get_span_context().trace_id:032x}")
        if self.next:
            await self.next.GetCaller(request)
        return pb.GetCallerResponse()


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return make_keys(tmp_path)


@pytest.fixture
async def relays(keys: Keys) -> AsyncIterator[tuple[Any, Relay, Relay]]:
    """A stub of the first, the first and the second."""
    first, second = Relay(), Relay()
    async with AsyncExitStack() as stack:
        stubs = [rpc.IdentityServiceStub(await _served(stack, relay, keys)) for relay in (first, second)]
        first.next = stubs[1]
        yield stubs[0], first, second


async def _served(stack: AsyncExitStack, relay: Relay, keys: Keys) -> grpc.aio.Channel:
    settings = MeshSettings.model_validate(
        {"listen": "127.0.0.1:0", "postgres_dsn": "postgres://nowhere", "identity_keys": keys.jwks, "drain_grace": 0}
    )

    async def register(server: grpc.aio.Server, _stack: AsyncExitStack) -> None:
        rpc.add_IdentityServiceServicer_to_server(relay, server)

    address = await stack.enter_async_context(serving(settings, register, service_names=SERVICES))
    return await stack.enter_async_context(mesh_channel(address, services=SERVICES))


async def test_a_callers_trace_is_handed_on(relays: tuple[Any, Relay, Relay], keys: Keys) -> None:
    stub, first, second = relays
    metadata = (*keys.metadata(), ("traceparent", f"00-{TRACE}-00f067aa0ba902b7-01"))
    await stub.GetCaller(pb.GetCallerRequest(), metadata=metadata)
    assert (first.seen, second.seen) == ([TRACE], [TRACE])


async def test_a_call_without_a_trace_begins_one_of_its_own(relays: tuple[Any, Relay, Relay], keys: Keys) -> None:
    stub, first, second = relays
    for _ in range(2):
        await stub.GetCaller(pb.GetCallerRequest(), metadata=keys.metadata())
    assert first.seen == second.seen
    assert len({*first.seen, "0" * 32}) == 3


def test_what_runs_without_a_caller_has_a_trace_too() -> None:
    tracer = Unrecorded().get_tracer("agentnet")
    with tracer.start_as_current_span("turn") as outer:
        with tracer.start_as_current_span("call") as inner:
            assert inner.get_span_context().trace_id == outer.get_span_context().trace_id != 0
        assert trace.get_current_span() is outer
