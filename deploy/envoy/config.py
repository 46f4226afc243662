"""The whole bootstrap, and where it is written."""

from __future__ import annotations

import json
from pathlib import Path

from deploy.envoy.clusters import clusters
from deploy.envoy.contract import methods
from deploy.envoy.edge import edge
from deploy.envoy.inputs import Config, EnvoyInputs
from deploy.envoy.internal import internal

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
        "layered_runtime": {
            "layers": [{"name": "static", "static_layer": {"overload": {"global_downstream_max_connections": 50_000}}}]
        },
    }
    if inputs.admin_socket:
        config["admin"] = {"address": {"pipe": {"path": str(inputs.admin_socket), "mode": 0o600}}}
    return config


def write_config(inputs: EnvoyInputs, path: Path) -> None:
    """Writes it as JSON, replacing the file in one step."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(bootstrap(inputs), indent=1))
    temporary.replace(path)
