"""One cluster a service: HTTP/2, health checks, outlier ejection, limits."""

from __future__ import annotations

from deploy.envoy.admission import door_cluster
from deploy.envoy.inputs import Config, EnvoyInputs, socket, typed
from deploy.envoy.tls import upstream_socket

_HTTP2 = typed(
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
    explicit_http_config={
        "http2_protocol_options": {
            "connection_keepalive": {"interval": "20s", "timeout": "15s"},
            "max_concurrent_streams": 4096,
        }
    },
)


def clusters(inputs: EnvoyInputs) -> list[Config]:
    """All of them, and the collector when there is one."""
    found = [door_cluster(inputs), *(_cluster(name, inputs) for name in inputs.services)]
    if inputs.otlp:
        found.append(_plain("otlp", socket(inputs.otlp)))
    return found


def _cluster(name: str, inputs: EnvoyInputs) -> Config:
    address = inputs.services[name]
    return (
        _plain(name, socket(address))
        | upstream_socket(inputs, name)
        | {
            "health_checks": [
                {
                    # A process that is gone refuses at once; one that has much to do answers late, and is not gone.
                    "timeout": f"{inputs.health_seconds}s",
                    "interval": "1s",
                    "no_traffic_interval": "1s",
                    "unhealthy_interval": "0.25s",
                    "initial_jitter": "0.1s",
                    "unhealthy_threshold": 2,
                    "healthy_threshold": 1,
                    "grpc_health_check": {},
                }
            ],
            "outlier_detection": {
                "consecutive_5xx": 20,
                "consecutive_gateway_failure": 5,
                "interval": "1s",
                "base_ejection_time": "2s",
                "max_ejection_percent": 50,
            },
            # The last replica is tried whatever checks say: one that has too much to do answers late, and one that is
            # gone refuses, which the caller is told at once. Among less than a hundred 1 % means that none is left.
            "common_lb_config": {"healthy_panic_threshold": {"value": 1}},
            "circuit_breakers": {
                "thresholds": [
                    {
                        "max_connections": 1024,
                        "max_pending_requests": 1024,
                        "max_requests": 8192,
                        "retry_budget": {"budget_percent": {"value": 20}, "min_retry_concurrency": 5},
                    }
                ]
            },
        }
    )


def _plain(name: str, address: Config) -> Config:
    return {
        "name": name,
        "type": "STRICT_DNS",
        "connect_timeout": "1s",
        "lb_policy": "LEAST_REQUEST",
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": _HTTP2},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }
