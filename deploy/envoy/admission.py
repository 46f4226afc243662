"""How the edge asks gateway whether a call may come in: one HTTP/1.1 request, with no more of the call than is read."""

from __future__ import annotations

from pathlib import Path

from deploy.envoy.inputs import Config, EnvoyInputs, socket, typed
from deploy.envoy.tls import upstream_socket

CLAIMS = "x-agentnet-claims"
BODY = "agentnet.rest"
DOOR = "door"
IDENTIFY = "agentnet.identify"
_IDENTITY = "x-agentnet-identity"
_AUTHZ = "envoy.filters.http.ext_authz"
_JWT = "envoy.filters.http.jwt_authn"
# Set between Envoy and gateway alone, as services/gateway/question.py reads them.
_ADDED = {
    # Never under its own name: Envoy takes a question of type application/grpc for a gRPC call, writes its own errors
    # (no connection, no answer in time) as 200 with a grpc-status, and lets the call by for the 200.
    "x-agentnet-content-type": "%REQ(CONTENT-TYPE)%",
    "x-agentnet-address": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "x-agentnet-token-failure": f"%DYNAMIC_METADATA({_JWT}:failure:message)%",
    "x-agentnet-body": f"%DYNAMIC_METADATA({BODY}:body)%",
}
_SHOWN = "x-agentnet-door"
OURS = (_IDENTITY, CLAIMS, _SHOWN, *_ADDED)
CREDENTIALS = ("authorization", "x-api-key")
# The last three are a browser's that signed in to the dashboard.
_ASKED = (*CREDENTIALS, CLAIMS, "x-request-id", "x-envoy-original-path", "traceparent", "tracestate",
          "cookie", "origin", "x-agentnet-page")  # fmt: skip
_LIMITS = (
    "ratelimit", "ratelimit-policy", "x-ratelimit-limit-requests", "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests",
)  # fmt: skip
_REFUSED = (*_LIMITS, "retry-after", "content-type", "grpc-status", "grpc-status-details-bin", "location")
# HTTP/1.1 carries one question a connection; what comes beside so many waits in Envoy.
CONNECTIONS = 256
_WAITING = 8192


def jwt_filter(inputs: EnvoyInputs) -> Config:
    """Verifies a bearer JWT. It refuses nothing itself: gateway reads the claims, or why they are not trusted, and
    answers with the reason.
    """
    provider = {
        "issuer": inputs.issuer,
        "audiences": [inputs.audience],
        "forward": False,
        "forward_payload_header": CLAIMS,
        "local_jwks": {"filename": str(inputs.edge_jwks)},
        "failed_status_in_metadata": "failure",
        "clock_skew_seconds": 5,
        # A signature is verified once; whether the token has ended is looked at on every call.
        "jwt_cache_config": {"jwt_cache_size": 1000},
    }
    rules = [{"match": {"prefix": "/"}, "requires": {"requires_any": {"requirements": [
        {"provider_name": "edge"}, {"allow_missing_or_failed": {}}]}}}]  # fmt: skip
    kind = "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication"
    return {"name": _JWT, "typed_config": typed(kind, providers={"edge": provider}, rules=rules)}


def admit_filter(inputs: EnvoyInputs) -> Config:
    """Whether the call may be made."""
    return {"name": _AUTHZ, "typed_config": _asked(inputs, "/admit")}


def identify_filter(inputs: EnvoyInputs) -> Config:
    """Only who makes it, before much of it is read. Off, but on routes that turn it on."""
    return {"name": IDENTIFY, "disabled": True, "typed_config": _asked(inputs, "/identify")}


def unasked() -> Config:
    """On a route: nobody is asked."""
    return {_AUTHZ: typed("envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute", disabled=True)}


def identified() -> Config:
    """On a route: the caller must be one who may come in at all."""
    kind = "envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute"
    return {IDENTIFY: typed(kind, check_settings={})}


def door_cluster(inputs: EnvoyInputs) -> Config:
    """Gateway's door. The last one is asked whatever checks say: one that is gone refuses at once."""
    http1 = typed("envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                  explicit_http_config={"http_protocol_options": {}})  # fmt: skip
    address = {"pipe": {"path": str(inputs.door)}} if isinstance(inputs.door, Path) else socket(inputs.door)
    tls = {} if isinstance(inputs.door, Path) else upstream_socket(inputs, "gateway", protocol="http/1.1")
    return {
        "name": DOOR,
        "type": "STATIC" if isinstance(inputs.door, Path) else "STRICT_DNS",
        "connect_timeout": "1s",
        "lb_policy": "LEAST_REQUEST",
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http1},
        "load_assignment": {
            "cluster_name": DOOR,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
        "health_checks": [
            {
                "timeout": f"{inputs.health_seconds}s",
                "interval": "1s",
                "no_traffic_interval": "1s",
                "unhealthy_interval": "0.25s",
                "unhealthy_threshold": 2,
                "healthy_threshold": 1,
                "tcp_health_check": {},
            }
        ],
        "common_lb_config": {"healthy_panic_threshold": {"value": 1}},
        "circuit_breakers": {
            "thresholds": [{"max_connections": CONNECTIONS, "max_pending_requests": _WAITING, "max_requests": _WAITING}]
        },
        **tls,
    }


def shown(inputs: EnvoyInputs) -> dict[str, str]:
    """The header that a door at an address wants to see."""
    return {_SHOWN: inputs.door_secret.replace("%", "%%")} if inputs.door_secret else {}


def _asked(inputs: EnvoyInputs, prefix: str) -> Config:
    """One that has much to do answers late, as to health checks; one that is gone refuses at once."""
    added = _ADDED | shown(inputs)
    return typed(
        "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
        transport_api_version="V3",
        http_service={
            "server_uri": {"uri": "http://door", "cluster": DOOR, "timeout": f"{inputs.health_seconds}s"},
            "path_prefix": prefix,
            "authorization_request": {"headers_to_add": [{"key": key, "value": added[key]} for key in added]},
            "authorization_response": {
                "allowed_upstream_headers": _exactly(_IDENTITY),
                "allowed_client_headers": _exactly(*_REFUSED),
                "allowed_client_headers_on_success": _exactly(*_LIMITS),
            },
            # The longest pause is also what one try may take.
            "retry_policy": {"retry_back_off": {"base_interval": "0.025s", "max_interval": f"{inputs.health_seconds}s"},
                             "num_retries": 2, "retry_on": "connect-failure,reset-before-request"},
        },
        failure_mode_allow=False,
        status_on_error={"code": "ServiceUnavailable"},
        clear_route_cache=False,
        allowed_headers=_exactly(*_ASKED),
    )  # fmt: skip


def _exactly(*names: str) -> Config:
    return {"patterns": [{"exact": name} for name in names]}
