"""The typed way from service to service, by Envoy's internal listener: identity, ids, deadline and retries."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import MethodOptions
from grpc.aio import Metadata
from opentelemetry.instrumentation.grpc import aio_client_interceptors

from shared import identity
from shared.rpc import deadline, log, trace
from shared.rpc.server import MAX_MESSAGE_BYTES
from shared.rpc.tls import channel as channel_to
from shared.rpc.tls import renewal
from shared.rpc.wakeups import never_in_the_way
from shared.telemetry import recorded

DEFAULT_UNARY_SECONDS: Final = 10.0
# A connection that was replaced is kept this long at most for the streams that run over it.
_STREAM_SECONDS: Final = 24 * 3600.0
_RETRY: Final = {
    "maxAttempts": 4,
    "initialBackoff": "0.05s",
    "maxBackoff": "1s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
_SAFE: Final = (MethodOptions.NO_SIDE_EFFECTS, MethodOptions.IDEMPOTENT)


@asynccontextmanager
async def mesh_channel(
    address: str, *, services: tuple[str, ...], tls: Path | None = None
) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to the services named in full, for example "agentnet.cost.v1.CostService".

    Calls carry the current caller's identity, the request and session id and the trace, and end with the deadline of
    the call being served; unary ones without a deadline get 10 seconds. Idempotent methods are tried up to four times
    on UNAVAILABLE, jittered, before the first message. `tls` is the folder of mutual TLS, none: in the clear; when its
    files are replaced, new calls go over a new connection and running ones end where they are.
    """
    never_in_the_way()
    traced: list[grpc.aio.ClientInterceptor] = []
    if recorded():
        traced = aio_client_interceptors()  # type: ignore[no-untyped-call] # untyped library
    options = [
        ("grpc.service_config", json.dumps(retry_config(services))),
        ("grpc.enable_retries", 1),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        ("grpc.keepalive_time_ms", 20_000),
        # Each service process spreads its calls over connections of its own; a shared subchannel would pin them to one.
        ("grpc.use_local_subchannel_pool", 1),
    ]

    def connect() -> grpc.aio.Channel:
        return channel_to(address, tls, options=options, interceptors=traced)

    async with MeshChannel(connect, renewed=renewal(tls) if tls else _never) as enriching:
        yield enriching


def _never() -> bool:
    return False


def retry_config(services: tuple[str, ...]) -> dict[str, Any]:
    """GRPC's service config: which methods may be tried again, from the idempotency_level of the contract."""
    pool = descriptor_pool.Default()
    names = [
        {"service": service, "method": method.name}
        for service in services
        for method in pool.FindServiceByName(service).methods
        if method.GetOptions().idempotency_level in _SAFE
    ]
    return {"methodConfig": [{"name": names, "retryPolicy": _RETRY}]}


def jitter(seconds: float) -> float:
    """A pause between half of `seconds` and all of it."""
    return seconds * random.uniform(0.5, 1)  # noqa: S311 - spreads load, protects nothing


class MeshChannel(grpc.aio.Channel):
    """A channel whose calls take along what the mesh needs. It does so before gRPC sees them: an interceptor of gRPC's
    would make each call several tasks.
    """

    def __init__(self, connect: Callable[[], grpc.aio.Channel], *, renewed: Callable[[], bool] = _never) -> None:
        self._connect = connect
        self._renewed = renewed
        self._channel = connect()
        self._left: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self._channel.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def unary_unary(self, *method: Any, **how: Any) -> Any:
        return self._enriching(lambda over: over.unary_unary(*method, **how), default=DEFAULT_UNARY_SECONDS)

    def unary_stream(self, *method: Any, **how: Any) -> Any:
        return self._enriching(lambda over: over.unary_stream(*method, **how), default=None)

    def stream_unary(self, *method: Any, **how: Any) -> Any:
        return self._channel.stream_unary(*method, **how)

    def stream_stream(self, *method: Any, **how: Any) -> Any:
        return self._channel.stream_stream(*method, **how)

    async def close(self, grace: float | None = None) -> None:
        for leaving in self._left:
            leaving.cancel()
        await asyncio.gather(*self._left, return_exceptions=True)
        await self._channel.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:  # noqa: FBT002 - gRPC's
        return self._channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self._channel.channel_ready()

    def _enriching(self, method: Callable[[grpc.aio.Channel], Any], *, default: float | None) -> Any:
        over = self._channel
        call = method(over)

        def invoke(request: Any, *, timeout: float | None = None, metadata: Any = None, **more: Any) -> Any:
            nonlocal over, call
            if self._newest() is not over:
                over = self._channel
                call = method(over)
            return call(request, timeout=_limit(timeout, default), metadata=_enriched(metadata), **more)

        return invoke

    def _newest(self) -> grpc.aio.Channel:
        if self._renewed():
            leaving = asyncio.ensure_future(self._channel.close(_STREAM_SECONDS))
            self._left.add(leaving)
            leaving.add_done_callback(self._left.discard)
            self._channel = self._connect()
        return self._channel


def _limit(timeout: float | None, default: float | None) -> float | None:
    limits = [limit for limit in (timeout, deadline.remaining()) if limit is not None]
    return min(limits) if limits else default


def _enriched(metadata: Any) -> Metadata:
    given = tuple(metadata or ())
    present = {key for key, _ in given}
    ours = {
        identity.HEADER: identity.current_header(),
        log.REQUEST_ID: log.request_id(),
        log.SESSION_ID: log.session_id(),
        **trace.handed_on(),
    }
    return Metadata(*given, *((key, value) for key, value in ours.items() if value and key not in present))
