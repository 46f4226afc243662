"""How the supervisor tells that a part works. None needs a client library: they are imported while everybody waits."""

from __future__ import annotations

import asyncio
import http.client
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2

from shared.rpc.tls import channel

PROBE_SECONDS: Final = 2.0
Probe = Callable[[], Awaitable[bool]]


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PROBE_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PROBE_SECONDS)
        self.sock.connect(str(self._path))


def tcp(address: str) -> Probe:
    """Connections are taken."""

    async def probe() -> bool:
        return await _said(address, b"", 0) is not None

    return probe


def valkey(address: str) -> Probe:
    """A PING is answered, be it that a password is asked for."""

    async def probe() -> bool:
        return await _said(address, b"PING\r\n", 1) in {b"+", b"-"}

    return probe


def http_ok(address: str, path: str) -> Probe:
    """A GET is answered with 200."""

    async def probe() -> bool:
        return await _said(address, f"GET {path} HTTP/1.0\r\n\r\n".encode(), 12) in {b"HTTP/1.1 200", b"HTTP/1.0 200"}

    return probe


def health(address: str, certificates: Path | None) -> Probe:
    """grpc.health.v1 says SERVING. With certificates, over mutual TLS."""
    channels: list[grpc.aio.Channel] = []

    async def probe() -> bool:
        if not channels:
            options = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 200)]
            channels.append(channel(address, certificates, options=options))
        try:
            answer = await _check(channels[0])(health_pb2.HealthCheckRequest(), timeout=PROBE_SECONDS)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    return probe


async def _said(address: str, request: bytes, length: int) -> bytes | None:
    """The first bytes of the answer; None when there is none in time."""
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            reader, writer = await asyncio.open_connection(host, int(port))
            try:
                writer.write(request)
                return await reader.readexactly(length)
            finally:
                writer.close()
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return None


def _check(channel: grpc.aio.Channel) -> Any:
    return channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
