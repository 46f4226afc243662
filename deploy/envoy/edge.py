"""The edge: gRPC, gRPC-Web and REST in, admission before anything else."""

from __future__ import annotations

from collections.abc import Sequence

from deploy.envoy.admission import CREDENTIALS, OURS, admit_filter, identify_filter, jwt_filter, unasked
from deploy.envoy.bodies import buffer_filter, rest_routes, valued
from deploy.envoy.contract import BYTES, Method, served_beside
from deploy.envoy.facades import status_filter, with_status
from deploy.envoy.inputs import Config, EnvoyInputs, typed
from deploy.envoy.listeners import NOTHING_HERE, listener, route, router
from deploy.envoy.refusals import refusals_log
from deploy.envoy.tls import edge_socket

_MCP = "agentnet.gateway.v1.McpService"
# Set by the mesh alone; a client's copies are taken off before anything reads them.
_ALLOWED = (
    "authorization", "content-type", "x-api-key", "x-grpc-web", "x-user-agent", "grpc-timeout", "x-request-id",
    "traceparent", "last-event-id", "anthropic-version", "anthropic-beta", "openai-organization", "openai-project",
    "mcp-session-id", "mcp-protocol-version", "mcp-method", "mcp-name", "a2a-version",
)  # fmt: skip
_EXPOSED = (
    "grpc-status", "grpc-message", "grpc-status-details-bin", "x-request-id", "retry-after", "ratelimit",
    "ratelimit-policy", "mcp-session-id",
)  # fmt: skip
# The API is for programs: browsers are told to guess nothing, frame nothing and keep nothing.
_SECURITY = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "strict-transport-security": "max-age=31536000; includeSubDomains",
    "cache-control": "no-store",
}
_OURS = (*OURS, "x-agentnet-session-id")


def edge(inputs: EnvoyInputs, methods: Sequence[Method]) -> Config:
    """The listener clients reach."""
    filters = [
        _strip(),
        jwt_filter(inputs),
        identify_filter(inputs),
        buffer_filter(inputs),
        status_filter(inputs),
        _grpc_web(),
        _transcoder(inputs, methods),
        # After a REST call got its own route: without one no origin is looked at.
        _cors(),
        admit_filter(inputs),
        router(),
    ]
    return listener(
        "edge",
        inputs.edge,
        inputs,
        filters=filters,
        routes=_routes(inputs, methods),
        streams=inputs.edge_streams,
        transport=edge_socket(inputs),
        logs=[refusals_log(inputs)],
        # A request that trickles in holds a connection no longer than this.
        request_timeout=f"{inputs.request_seconds}s",
        # What is a slash to one and none to another is a way around both.
        path_with_escaped_slashes_action="REJECT_REQUEST",
        server_name="agentnet",
    )


def _routes(inputs: EnvoyInputs, methods: Sequence[Method]) -> Config:
    cors = typed(
        "envoy.extensions.filters.http.cors.v3.CorsPolicy",
        allow_origin_string_match=[{"safe_regex": {"regex": origin}} for origin in inputs.cors_origins],
        allow_methods="GET, POST, PUT, PATCH, DELETE, OPTIONS",
        allow_headers=", ".join(_ALLOWED),
        expose_headers=", ".join(_EXPOSED),
        max_age="600",
    )
    preflight = {
        "match": {"prefix": "/", "headers": [{"name": ":method", "string_match": {"exact": "OPTIONS"}}]},
        "route": {"cluster": "gateway"},
    }
    reflection = {
        "match": {"prefix": "/grpc.reflection."},
        "route": {"cluster": "orchestrator", "timeout": "0s"},
    }
    refuse = {"match": {"prefix": "/"}, "direct_response": {"status": 404, "body": {"inline_string": NOTHING_HERE}}}
    facades = [template for method in methods if method.output == BYTES for template in method.bodies]
    calls = [
        with_status(found, method)
        for method in methods
        for found in _opened(route(method, inputs, retries=True), method)
    ]
    calls += [route(method, inputs, retries=False) for method in served_beside(inputs.descriptors)]
    return {
        "name": "edge",
        "virtual_hosts": [
            {
                "name": "edge",
                "domains": ["*"],
                "typed_per_filter_config": {"envoy.filters.http.cors": cors, **valued()},
                # What says who calls goes no further than admission; nobody behind it reads cookies.
                "request_headers_to_remove": ["cookie", *CREDENTIALS, *OURS[1:]],
                "routes": [
                    preflight,
                    *_strange_pages(inputs, methods),
                    *calls,
                    reflection,
                    *rest_routes(inputs, facades, refuse),
                    refuse,
                ],
            }
        ],
    }


def _strange_pages(inputs: EnvoyInputs, methods: Sequence[Method]) -> list[Config]:
    """MCP's servers refuse pages of origins they do not know: a name that was bound anew leads nowhere."""
    known = "|".join(f"(?:{origin})" for origin in inputs.cors_origins)
    strange = [
        {"name": "origin", "present_match": True},
        {"name": "origin", "string_match": {"safe_regex": {"regex": known}}, "invert_match": True},
    ]
    return [
        {"match": {"path": method.path, "headers": strange}, "direct_response": {"status": 403}}
        for method in methods
        if method.service == _MCP
    ]


def _added(name: str, value: str) -> Config:
    return {"append": {"header": {"key": name, "value": value}, "append_action": "ADD_IF_ABSENT"}}


def _opened(found: Config, method: Method) -> list[Config]:
    """What the contract calls open needs no credential, so nobody is asked; but what a REST call says in a query is
    judged as everywhere.
    """
    if not method.open:
        return [found]
    query = {"name": "x-envoy-original-path", "string_match": {"contains": "?"}}
    asked = found | {"match": found["match"] | {"headers": [query]}}
    return [asked, found | {"typed_per_filter_config": unasked()}]


def _strip() -> Config:
    """First of all filters, so that refusals have the headers of every answer too, also those of no route."""
    mutations = {
        "request_mutations": [{"remove": name} for name in _OURS],
        "response_mutations": [_added(name, value) for name, value in _SECURITY.items()],
    }
    kind = "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation"
    return {"name": "envoy.filters.http.header_mutation", "typed_config": typed(kind, mutations=mutations)}


def _cors() -> Config:
    return {"name": "envoy.filters.http.cors", "typed_config": typed("envoy.extensions.filters.http.cors.v3.Cors")}


def _grpc_web() -> Config:
    kind = "envoy.extensions.filters.http.grpc_web.v3.GrpcWeb"
    return {"name": "envoy.filters.http.grpc_web", "typed_config": typed(kind)}


def _transcoder(inputs: EnvoyInputs, methods: Sequence[Method]) -> Config:
    return {
        "name": "envoy.filters.http.grpc_json_transcoder",
        "typed_config": typed(
            "envoy.extensions.filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder",
            proto_descriptor=str(inputs.descriptors),
            services=sorted({method.service for method in methods}),
            convert_grpc_status=True,
            case_insensitive_enum_parsing=True,
            ignore_unknown_query_parameters=True,
            url_unescape_spec="ALL_CHARACTERS_EXCEPT_SLASH",
            max_request_body_size=inputs.max_request_bytes,
            max_response_body_size=inputs.max_request_bytes,
            # A path of the contract's that is not gRPC and not transcodable is answered here and never passed on.
            request_validation_options={"reject_unknown_method": False, "reject_binding_body_field_collisions": True},
            print_options={
                "always_print_primitive_fields": True,
                "preserve_proto_field_names": True,
                "stream_sse_style_delimited": True,
            },
        ),
    }
