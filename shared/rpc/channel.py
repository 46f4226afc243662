"""The typed way from service to service, by Envoy's internal listener: identity, ids, deadline and retries."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import MethodOptions
from grpc.aio import ClientCallDetails, Metadata, UnaryStreamClientInterceptor, UnaryUnaryClientInterceptor
from opentelemetry.instrumentation.grpc import aio_client_interceptors

from shared import identity
from shared.rpc import deadline, log
from shared.rpc.server import MAX_MESSAGE_BYTES

DEFAULT_UNARY_SECONDS: Final = 10.0
_RETRY: Final = {
    "maxAttempts": 4,
    "initialBackoff": "0.05s",
    "maxBackoff": "1s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
_SAFE: Final = (MethodOptions.NO_SIDE_EFFECTS, MethodOptions.IDEMPOTENT)


@asynccontextmanager
async def mesh_channel(address: str, *, services: tuple[str, ...]) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to the services named in full, for example "agentnet.cost.v1.CostService".

    Calls carry the current caller's identity, the request and session id and the trace, and end with the deadline of
    the call being served; unary ones without a deadline get 10 seconds. Idempotent methods are tried up to four times
    on UNAVAILABLE, jittered, before the first message.
    """
    traced: list[grpc.aio.ClientInterceptor] = aio_client_interceptors()  # type: ignore[no-untyped-call] # untyped library
    interceptors = [*traced, _Unary(), _Stream()]
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
    async with grpc.aio.insecure_channel(address, options=options, interceptors=interceptors) as channel:
        yield channel


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


class _Unary(UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(
        self,
        continuation: Callable[[ClientCallDetails, Any], Any],
        client_call_details: ClientCallDetails,
        request: Any,
    ) -> Any:
        return await continuation(_enriched(client_call_details, default=DEFAULT_UNARY_SECONDS), request)


class _Stream(UnaryStreamClientInterceptor):
    async def intercept_unary_stream(
        self,
        continuation: Callable[[ClientCallDetails, Any], Any],
        client_call_details: ClientCallDetails,
        request: Any,
    ) -> Any:
        return await continuation(_enriched(client_call_details, default=None), request)


def _enriched(details: ClientCallDetails, *, default: float | None) -> ClientCallDetails:
    given = tuple(details.metadata or ())
    metadata = Metadata(*given)
    present = {key for key, _ in given}
    handed_on = (
        (identity.HEADER, identity.current_header()),
        (log.REQUEST_ID, log.request_id()),
        (log.SESSION_ID, log.session_id()),
    )
    for key, value in handed_on:
        if value and key not in present:
            metadata.add(key, value)
    limits = [limit for limit in (details.timeout, deadline.remaining()) if limit is not None]
    timeout = min(limits) if limits else default
    return ClientCallDetails(details.method, timeout, metadata, details.credentials, details.wait_for_ready)
