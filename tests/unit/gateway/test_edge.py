"""Envoy's configuration, as gateway relies on it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploy.envoy.__main__ import containers
from deploy.envoy.config import bootstrap
from deploy.envoy.inputs import cors_origins

INPUTS = replace(containers(), descriptors=Path(__file__).resolve().parents[3] / "gen/descriptors/agentnet.binpb")


def manager(inputs: Any = INPUTS) -> Any:
    listener = bootstrap(inputs)["static_resources"]["listeners"][0]
    return listener["filter_chains"][0]["filters"][0]["typed_config"]


def test_the_origins_of_browsers_are_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTNET_CORS_ORIGINS", r"https://app\.example, https://[a-z]+\.example")
    host = manager(replace(INPUTS, cors_origins=cors_origins()))["route_config"]["virtual_hosts"][0]
    allowed = host["typed_per_filter_config"]["envoy.filters.http.cors"]["allow_origin_string_match"]
    assert [one["safe_regex"]["regex"] for one in allowed] == [r"https://app\.example", r"https://[a-z]+\.example"]
    monkeypatch.delenv("AGENTNET_CORS_ORIGINS")
    assert cors_origins() == INPUTS.cors_origins


def test_connections_streams_headers_and_bodies_are_limited() -> None:
    config, edge = bootstrap(INPUTS), manager()
    assert config["overload_manager"]["resource_monitors"][0]["typed_config"]["max_active_downstream_connections"]
    assert edge["http2_protocol_options"]["max_concurrent_streams"] == 1000
    assert edge["max_request_headers_kb"] == 32
    assert edge["common_http_protocol_options"]["max_headers_count"] == 100
    assert (edge["request_headers_timeout"], edge["request_timeout"]) == ("10s", "120s")
    transcoder = next(one for one in edge["http_filters"] if "transcoder" in one["name"])["typed_config"]
    assert transcoder["max_request_body_size"] == 16 * 1024 * 1024


def test_what_waits_for_a_model_may_take_as_long_as_our_client_waits() -> None:
    routes = {
        route["match"].get("path", "").rpartition("/")[2]: route.get("route", {})
        for route in manager()["route_config"]["virtual_hosts"][0]["routes"]
    }
    for name, seconds in (("PlanTasks", "300s"), ("RunAgent", "300s"), ("ExecuteTasks", "60s")):
        assert (routes[name]["timeout"], routes[name]["idle_timeout"]) == (seconds, seconds)


def test_every_route_but_the_open_ones_passes_admission() -> None:
    filters = [one["name"].rpartition(".")[2] for one in manager()["http_filters"]]
    assert filters.index("ext_authz") > filters.index("grpc_json_transcoder")
    for route in manager()["route_config"]["virtual_hosts"][0]["routes"]:
        off = route.get("typed_per_filter_config", {}).get("envoy.filters.http.ext_authz")
        path, query = route["match"].get("path", ""), "headers" in route["match"]
        sign_in = ("/GetSignIn", "/GetSignInIssuers", "/SignInWithCode")
        named = ("HealthService/", "/GetOpenApi", "/GetDocs", "/GetPublicAgentCard", *sign_in)
        open_to_all = any(name in path for name in named)
        assert bool(off) == (open_to_all and not query)


def test_a_long_body_is_read_only_of_who_may_come_in() -> None:
    """Whoever gets a body read without being known first has at most 64 KiB of it read."""
    filters = [one["name"] for one in manager()["http_filters"]]
    reads = [filters.index(name) for name in ("envoy.filters.http.buffer", "envoy.filters.http.lua")]
    assert filters.index("envoy.filters.http.jwt_authn") < filters.index("agentnet.identify") < min(reads)
    found = []
    for route in manager()["route_config"]["virtual_hosts"][0]["routes"]:
        more = route.get("typed_per_filter_config", {})
        if buffer := more.get("envoy.filters.http.buffer"):
            found.append(("agentnet.identify" in more, buffer["buffer"]["max_request_bytes"]))
    assert found == [(False, 64 * 1024), (True, 16 * 1024 * 1024)]


def test_no_credential_and_nothing_of_ours_goes_further_than_admission() -> None:
    host = manager()["route_config"]["virtual_hosts"][0]
    assert {"authorization", "x-api-key", "x-agentnet-claims"} <= set(host["request_headers_to_remove"])
    assert "x-agentnet-identity" not in host["request_headers_to_remove"]
