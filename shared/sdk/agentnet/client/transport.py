"""The channel to a mesh's edge and what every call over it carries."""

from __future__ import annotations

from typing import TypedDict

import grpc

from agentnet.client.credentials import Target

DEFAULT_TIMEOUT_SECONDS = 30.0
_MAX_MESSAGE_BYTES = 16 * 1024 * 1024


class CallOptions(TypedDict):
    """Keyword arguments of every stub call."""

    metadata: tuple[tuple[str, str], ...]
    timeout: float | None


def _channel(target: Target, options: list[tuple[str, int]]) -> grpc.aio.Channel:
    scheme, said, address = target.address.rpartition("://")
    if scheme != "https":
        return grpc.aio.insecure_channel(address, options=options)
    if not said or ":" not in address:
        address = f"{address}:443"
    trusted = target.authority.read_bytes() if target.authority else None
    return grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(trusted), options=options)


class Transport:
    """One connection to one mesh, multiplexed."""

    def __init__(self, target: Target) -> None:
        options = [
            ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 2_000),
        ]
        self.target = target
        self.channel = _channel(target, options)

    def options(self, *, timeout: float | None = DEFAULT_TIMEOUT_SECONDS) -> CallOptions:
        """The credential, and a limit in seconds; None for streams."""
        return {"metadata": self.target.metadata(), "timeout": timeout}
