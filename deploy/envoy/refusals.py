"""What Envoy refuses before it asks anyone is told at the door in batches, so that the audit holds every refusal."""

from __future__ import annotations

from deploy.envoy.admission import DOOR, shown
from deploy.envoy.inputs import Config, EnvoyInputs, typed

_TOLD = {
    "address": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    # A query may hold what is nobody's to read.
    "path": "%PATH(NQ:ORIG_OR_PATH:255)%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "request_id": "%REQ(X-REQUEST-ID):64%",
}
# Those who were refused at the door, or answered by a service, are noted there; what the transcoder cannot read is no
# attack but a mistake.
_OWN = (
    "(response.code >= 400 && response.code < 500 || response.code == 501)"
    ' && response.code_details != "via_upstream" && !response.code_details.startsWith("ext_authz")'
    ' && !response.code_details.startsWith("grpc_json_transcode")'
)


def refusals_log(inputs: EnvoyInputs) -> Config:
    """An access log of OpenTelemetry's form, over the same guarded way as every question."""
    attributes = [{"key": key, "value": {"string_value": value}} for key, value in _TOLD.items()]
    secret = [{"header": {"key": key, "value": value}} for key, value in shown(inputs).items()]
    log = typed(
        "envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig",
        http_service={
            "http_uri": {"uri": "http://door/refused", "cluster": DOOR, "timeout": f"{inputs.health_seconds}s"},
            "request_headers_to_add": secret,
        },
        disable_builtin_labels=True,
        attributes={"values": attributes},
        buffer_flush_interval="1s",
        buffer_size_bytes=65_536,
    )
    own = typed("envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter", expression=_OWN)
    chosen = {"extension_filter": {"name": "envoy.access_loggers.extension_filters.cel", "typed_config": own}}
    return {"name": "envoy.access_loggers.open_telemetry", "filter": chosen, "typed_config": log}
