"""The internal listener: how services call one another. Identity travels signed; nothing is added or taken off."""

from __future__ import annotations

from collections.abc import Sequence

from deploy.envoy.contract import Method
from deploy.envoy.inputs import Config, EnvoyInputs
from deploy.envoy.listeners import NOTHING_HERE, listener, route, router
from deploy.envoy.tls import internal_socket


def internal(inputs: EnvoyInputs, methods: Sequence[Method]) -> Config:
    """The listener services reach. Callers bring retries of their own, so only the connection is tried again here."""
    refuse = {"match": {"prefix": "/"}, "direct_response": {"status": 404, "body": {"inline_string": NOTHING_HERE}}}
    routes = {
        "name": "internal",
        "virtual_hosts": [
            {
                "name": "internal",
                "domains": ["*"],
                "routes": [*(route(method, inputs, retries=True) for method in methods), refuse],
            }
        ],
    }
    return listener(
        "internal",
        inputs.internal,
        inputs,
        filters=[router()],
        routes=routes,
        streams=4096,
        transport=internal_socket(inputs),
    )
