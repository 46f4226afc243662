"""Prints the configuration for containers: `AGENTNET_GATEWAY_DOOR_SECRET=… python -m deploy.envoy > envoy.json`."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

from deploy.envoy.config import bootstrap
from deploy.envoy.inputs import EnvoyInputs, cors_origins, edge_folder, tls_wanted
from shared.settings import SERVICES

_GRPC_PORT = 50051
_DOOR_PORT = 50061
_TLS = Path("/etc/agentnet/tls")
_LOCAL = Path("gen/descriptors/agentnet.binpb")


def containers() -> EnvoyInputs:
    """The topology of docker-compose.yml: one host a service, files mounted under /etc/agentnet."""
    return EnvoyInputs(
        edge=("0.0.0.0", 8080),  # noqa: S104 - inside its container; compose publishes it on loopback
        internal=("0.0.0.0", 9090),  # noqa: S104 - reachable only on the compose network
        services={name: (name, _GRPC_PORT) for name in SERVICES},
        door=("gateway", _DOOR_PORT),
        descriptors=Path("/etc/agentnet/agentnet.binpb"),
        edge_jwks=Path("/etc/agentnet/edge.jwks"),
        issuer="agentnet-local",
        audience="agentnet",
        access_log=Path("/dev/stdout"),
        cors_origins=cors_origins(),
        edge_tls=edge_folder(_TLS / "edge") if tls_wanted() else None,
        mesh_tls=_TLS / "envoy" if tls_wanted() else None,
    )


def text(door_secret: str) -> str:
    """The configuration as JSON. The descriptors are read here and mounted there."""
    inputs = replace(containers(), door_secret=door_secret)
    config = bootstrap(replace(inputs, descriptors=_LOCAL))
    return json.dumps(config, indent=1).replace(str(_LOCAL), str(inputs.descriptors)) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text(os.environ.get("AGENTNET_GATEWAY_DOOR_SECRET", "")))
