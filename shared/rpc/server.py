"""The server every service runs: uvloop, interceptors, health, reflection, and a drain before it stops."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import grpc
import uvloop
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import SERVICE_NAME
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection
from opentelemetry.instrumentation.grpc import aio_server_interceptor

from shared import log as logging
from shared.bus import bridged_logs
from shared.clock import SystemClock
from shared.identity import Verifier
from shared.log import log
from shared.rpc.chain import Chain
from shared.rpc.metrics import add_own_metrics
from shared.rpc.middleware import load
from shared.rpc.tls import server_credentials
from shared.rpc.wakeups import never_in_the_way
from shared.settings import BadSetting, MeshSettings
from shared.telemetry import recorded, telemetry

MAX_MESSAGE_BYTES: Final = 16 * 1024 * 1024
_ALWAYS_OPEN: Final = ("/grpc.health.v1.", "/grpc.reflection.")
_OPTIONS: Final = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # As many headers as Envoy takes, each counted with 32 bytes more; gRPC refuses some from the first number on.
    ("grpc.max_metadata_size", 40 * 1024),
    ("grpc.absolute_max_metadata_size", 48 * 1024),
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
]

# Objects more made than freed before a collection of the young, then how many of those before one of older ones.
_COLLECTIONS: Final = (10_000, 20, 20)

Register = Callable[[grpc.aio.Server, AsyncExitStack], Coroutine[Any, Any, None]]


def run(
    name: str,
    settings: MeshSettings,
    register: Register,
    *,
    service_names: tuple[str, ...],
    open_to_all: tuple[str, ...] = (),
) -> None:
    """Runs a service until SIGTERM or SIGINT, then drains it.

    `register` builds the service into the server; what it opens on the stack is closed in reverse when calls have
    ended. `service_names` are the full names health and reflection answer for; methods that start with `open_to_all`
    need no identity.
    """
    logging.configure(name, settings.log_level)
    try:
        with telemetry(name, otlp_endpoint=settings.otlp_endpoint):
            uvloop.run(_run(name, settings, register, service_names, open_to_all))
    except BadSetting as error:
        for fault in str(error).splitlines():
            sys.stderr.write(f"bad setting {error.setting}: {fault}\n")
        sys.exit(2)


async def _run(
    name: str, settings: MeshSettings, register: Register, service_names: tuple[str, ...], open_to_all: tuple[str, ...]
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with (
        bridged_logs(name, settings),
        serving(settings, register, service_names=service_names, open_to_all=open_to_all) as address,
    ):
        settle()
        log.info("service.started", name=name, address=address)
        await stop.wait()
        log.info("service.draining", name=name)
    log.info("service.stopped", name=name)


def settle() -> None:
    """What a started service holds stays: collections look at what came since, and not at every 700 objects."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECTIONS)


@asynccontextmanager
async def serving(
    settings: MeshSettings, register: Register, *, service_names: tuple[str, ...], open_to_all: tuple[str, ...] = ()
) -> AsyncIterator[str]:
    """A served service, as `run` and the tests use it. Yields the bound address.

    On leaving: health says NOT_SERVING, running calls get `drain_grace`, then what they used is closed.
    """
    never_in_the_way()
    verifier = Verifier.from_file(settings.identity_keys, SystemClock())
    chain = Chain(verifier, open_to_all=_ALWAYS_OPEN + open_to_all, middleware=load(settings.middleware))
    interceptors: list[grpc.aio.ServerInterceptor] = [chain]
    if recorded():
        interceptors.insert(0, aio_server_interceptor())  # type: ignore[no-untyped-call] # untyped library
    server = grpc.aio.server(interceptors=interceptors, options=_OPTIONS)
    health = health_aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    reflection.enable_server_reflection((*service_names, SERVICE_NAME, reflection.SERVICE_NAME), server)
    async with AsyncExitStack() as resources:
        add_own_metrics(server)
        await register(server, resources)
        port = _bind(server, settings)
        await server.start()
        await _set_health(health, service_names, health_pb2.HealthCheckResponse.SERVING)
        try:
            yield f"{settings.listen.rpartition(':')[0]}:{port}"
        finally:
            await _set_health(health, service_names, health_pb2.HealthCheckResponse.NOT_SERVING)
            await server.stop(settings.drain_grace.total_seconds())


def _bind(server: grpc.aio.Server, settings: MeshSettings) -> int:
    if settings.tls_folder is None:
        return server.add_insecure_port(settings.listen)
    return server.add_secure_port(settings.listen, server_credentials(settings.tls_folder))


async def _set_health(
    health: health_aio.HealthServicer,
    names: tuple[str, ...],
    status: Any,
) -> None:
    for name in ("", *names):
        await health.set(name, status)
