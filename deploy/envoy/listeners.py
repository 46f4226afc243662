"""What the edge and the internal listener share: connection settings, logs, traces, answers of Envoy's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from deploy.envoy.contract import Method
from deploy.envoy.inputs import Address, Config, EnvoyInputs, socket, typed
from deploy.envoy.replies import local_replies

_LOG_FIELDS = {
    "time": "%START_TIME%",
    "listener": None,
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH):512%",
    "protocol": "%PROTOCOL%",
    "status": "%RESPONSE_CODE%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "flags": "%RESPONSE_FLAGS%",
    "cluster": "%UPSTREAM_CLUSTER%",
    "received_bytes": "%BYTES_RECEIVED%",
    "sent_bytes": "%BYTES_SENT%",
    "elapsed_ms": "%DURATION%",
    "upstream_ms": "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "correlation_id": "%REQ(X-AGENTNET-SESSION-ID)%",
}
NOTHING_HERE = '{"code": 12, "message": "there is nothing at this path", "details": []}'
# What answers when a model has spoken, once or more often.
_PATIENT = frozenset({"PlanTasks", "RunAgent", "Dispatch"})


def listener(
    name: str,
    address: Address,
    inputs: EnvoyInputs,
    *,
    filters: list[Config],
    routes: Config,
    streams: int,
    transport: Config,
    logs: Sequence[Config] = (),
    **more: Any,
) -> Config:
    """A listener that speaks HTTP/1.1 and HTTP/2, over TLS by `transport`; at most so many streams a connection. It has
    `logs` beside the access log.
    """
    manager = typed(
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=name,
        codec_type="AUTO",
        http2_protocol_options={
            "max_concurrent_streams": streams,
            "connection_keepalive": {"interval": "20s", "timeout": "15s"},
        },
        stream_idle_timeout=f"{inputs.stream_idle_seconds}s",
        request_headers_timeout="10s",
        max_request_headers_kb=inputs.max_header_kilobytes,
        common_http_protocol_options={
            "idle_timeout": "3600s",
            "headers_with_underscores_action": "REJECT_REQUEST",
            "max_headers_count": inputs.max_headers,
        },
        normalize_path=True,
        merge_slashes=True,
        use_remote_address=True,
        generate_request_id=True,
        preserve_external_request_id=True,
        request_id_extension={"typed_config": _kept_request_id()},
        always_set_request_id_in_response=True,
        access_log=[_access_log(name, inputs), *logs],
        http_filters=filters,
        route_config=routes,
        local_reply_config=local_replies(),
        **_tracing(inputs),
        **more,
    )
    return {
        "name": name,
        "address": socket(address),
        "per_connection_buffer_limit_bytes": 1024 * 1024,
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}], **transport}],
    }


def _kept_request_id() -> Config:
    """A caller's own id stays as it is: nothing is written into it, and no trace hangs on it."""
    kind = "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig"
    return typed(kind, pack_trace_reason=False, use_request_id_for_trace_sampling=False)


def router() -> Config:
    return {"name": "router", "typed_config": typed("envoy.extensions.filters.http.router.v3.Router")}


def route(method: Method, inputs: EnvoyInputs, *, retries: bool) -> Config:
    """To the service that owns the method. Only idempotent methods are tried again, only before an answer began."""
    action: Config = {"cluster": method.owner}
    if method.streaming:
        action |= {"timeout": "0s", "idle_timeout": f"{inputs.stream_idle_seconds}s"}
        action["max_stream_duration"] = {"max_stream_duration": f"{inputs.stream_seconds}s"}
    else:
        seconds = inputs.patient_seconds if method.name in _PATIENT else inputs.unary_seconds
        action |= {"timeout": f"{seconds}s", "idle_timeout": f"{seconds}s"}
    if retries and method.idempotent:
        action["retry_policy"] = {
            "retry_on": "connect-failure,refused-stream,unavailable,reset-before-request",
            "num_retries": 2,
            "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.25s"},
        }
    return {"match": {"path": method.path}, "route": action}


def _access_log(name: str, inputs: EnvoyInputs) -> Config:
    form = _LOG_FIELDS | {"listener": name}
    return {
        "name": "file",
        "typed_config": typed(
            "envoy.extensions.access_loggers.file.v3.FileAccessLog",
            path=str(inputs.access_log),
            log_format={"json_format": form},
        ),
    }


def _tracing(inputs: EnvoyInputs) -> Config:
    if not inputs.otlp:
        return {}
    service = {"envoy_grpc": {"cluster_name": "otlp"}, "timeout": "1s"}
    provider = typed("envoy.config.trace.v3.OpenTelemetryConfig", grpc_service=service, service_name="envoy")
    return {"tracing": {"provider": {"name": "otlp", "typed_config": provider}, "random_sampling": {"value": 100}}}
