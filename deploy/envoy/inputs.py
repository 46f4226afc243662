"""What a configuration depends on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Address = tuple[str, int]
Config = dict[str, Any]


_LOCAL_ORIGINS = (r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?",)


def cors_origins() -> tuple[str, ...]:
    """Whose pages may call: AGENTNET_CORS_ORIGINS, regular expressions by comma, or pages of this host alone."""
    said = [origin.strip() for origin in os.environ.get("AGENTNET_CORS_ORIGINS", "").split(",")]
    return tuple(filter(None, said)) or _LOCAL_ORIGINS


def tls_wanted() -> bool:
    """AGENTNET_TLS: whether the mesh makes certificates and speaks TLS, at the edge and inside."""
    return os.environ.get("AGENTNET_TLS", "").lower() in {"1", "true", "yes", "on"}


def edge_folder(own: Path | None) -> Path | None:
    """AGENTNET_EDGE_TLS_FOLDER, certificates the world trusts, where TLS is wanted and they are given; else our own."""
    given = os.environ.get("AGENTNET_EDGE_TLS_FOLDER")
    return Path(given) if own and given else own


@dataclass(frozen=True, slots=True)
class EnvoyInputs:
    """Addresses, files and limits. Times are in seconds."""

    edge: Address
    internal: Address
    services: Mapping[str, Address]
    # Where gateway answers who may enter: a socket's file, or an address.
    door: Path | Address
    descriptors: Path
    edge_jwks: Path
    issuer: str
    audience: str
    access_log: Path
    # Shown at a door that is an address; empty: its certificate is enough.
    door_secret: str = ""
    admin_socket: Path | None = None
    otlp: Address | None = None
    # Folders with tls.crt, tls.key and ca.crt, as Envoy sees them: what clients are shown, and for mutual TLS inside.
    edge_tls: Path | None = None
    mesh_tls: Path | None = None
    # Where the files of secrets lie that name the folders above.
    secrets: Path = Path("/etc/agentnet")
    cors_origins: tuple[str, ...] = _LOCAL_ORIGINS
    max_request_bytes: int = 16 * 1024 * 1024
    max_header_kilobytes: int = 32
    max_headers: int = 100
    edge_streams: int = 1000
    request_seconds: int = 120
    unary_seconds: int = 60
    # For calls that answer when a model has: as long as our client waits at most.
    patient_seconds: int = 300
    stream_idle_seconds: int = 60
    stream_seconds: int = 24 * 3600
    health_seconds: float = 10


def typed(kind: str, **fields: Any) -> Config:
    """An Any of Envoy's own type."""
    return {"@type": f"type.googleapis.com/{kind}", **fields}


def socket(address: Address) -> Config:
    return {"socket_address": {"address": address[0], "port_value": address[1]}}
