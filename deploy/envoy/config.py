"""The whole bootstrap, and where it is written."""

from __future__ import annotations

import json
from pathlib import Path

from deploy.envoy.clusters import clusters
from deploy.envoy.contract import methods
from deploy.envoy.edge import edge
from deploy.envoy.inputs import Config, EnvoyInputs, typed
from deploy.envoy.internal import internal
from deploy.envoy.tls import secrets

_MAX_CONNECTIONS = 50_000

__all__ = ["EnvoyInputs", "bootstrap", "write_config"]


def bootstrap(inputs: EnvoyInputs) -> Config:
    """Envoy's static configuration."""
    found = list(methods(inputs.descriptors))
    config: Config = {
        "node": {"id": "agentnet", "cluster": "agentnet"},
        "static_resources": {
            "listeners": [edge(inputs, found), internal(inputs, found)],
            "clusters": clusters(inputs),
        },
        "overload_manager": {"resource_monitors": [_connections()]},
    }
    if inputs.admin_socket:
        config["admin"] = {"address": {"pipe": {"path": str(inputs.admin_socket), "mode": 0o600}}}
    return config


def _connections() -> Config:
    kind = "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"
    limit = typed(kind, max_active_downstream_connections=_MAX_CONNECTIONS)
    return {"name": "envoy.resource_monitors.global_downstream_max_connections", "typed_config": limit}


def write_config(inputs: EnvoyInputs, path: Path) -> None:
    """Writes it as JSON, replacing the file in one step; the secrets it names go where the inputs say."""
    for name, secret in secrets(inputs).items():
        (inputs.secrets / name).write_text(secret)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(bootstrap(inputs), indent=1))
    temporary.replace(path)
