"""What holds for the whole contract and the whole repository."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from deploy.envoy.__main__ import containers
from deploy.envoy.config import bootstrap
from deploy.envoy.contract import methods
from services.gateway import contract
from services.gateway.permissions import permissions
from shared.settings import SERVICES

ROOT = Path(__file__).resolve().parents[2]
DESCRIPTORS = ROOT / "gen" / "descriptors" / "agentnet.binpb"
CONTRACT = list(methods(DESCRIPTORS))
SEED_ENDPOINTS = [
    ("post", "/v1/agents"), ("get", "/v1/agents/{name}"), ("post", "/v1/agents/{name}/infer"), ("post", "/v1/sessions"),
    ("post", "/v1/sessions/{session_id}/advance"), ("get", "/v1/sessions/{session_id}"),
    ("get", "/v1/sessions/{session_id}/turns"), ("post", "/v1/tasks/plan"), ("post", "/v1/tasks/execute"),
    ("post", "/v1/policies"), ("get", "/v1/violations"), ("post", "/v1/eval/run"), ("get", "/v1/cost/summary"),
    ("post", "/v1/tools"), ("post", "/v1/tools/invoke"), ("get", "/v1/metrics/health"),
]  # fmt: skip


def test_every_service_of_the_mesh_has_a_contract_and_code() -> None:
    assert {method.owner for method in CONTRACT} == set(SERVICES)
    for service in SERVICES:
        assert (ROOT / "services" / service / "service.py").is_file()
        assert (ROOT / "services" / service / "convert.py").is_file()


def test_every_rpc_has_roles_that_may_call_it_or_is_closed_on_purpose() -> None:
    paths = {method.path for method in CONTRACT}
    ours = {path for path in permissions(contract.services()) if path.startswith("/agentnet.")}
    assert paths == ours


@pytest.mark.parametrize(("verb", "path"), SEED_ENDPOINTS)
def test_the_seeds_endpoint_is_in_the_contract(verb: str, path: str) -> None:
    text = "".join(file.read_text() for file in (ROOT / "protos").rglob("*.proto"))
    assert f'{verb}: "{path}"' in text


# Lists that come whole: the register that the mesh was delivered with, and a walk that is as long as the caller says.
WHOLE = {"ListRisks", "ListRelatedFacts"}


def test_every_list_comes_by_pages_but_those_that_are_named_here() -> None:
    paged, whole = 0, set()
    for method in (one for service in contract.services() for one in service.methods if one.name.startswith("List")):
        asked, told = ({field.name for field in kind.fields} for kind in (method.input_type, method.output_type))
        if {"page_size", "page_token"} <= asked and "next_page_token" in told:
            paged += 1
        elif method.full_name.startswith("agentnet.") and method.output_type.full_name != "google.api.HttpBody":
            whole.add(method.name)
    assert whole == WHOLE
    assert paged > 30


def test_no_service_reads_a_cursor_as_it_came() -> None:
    """Tokens can be forged; the properties of `shared.paging.Page` parse and refuse."""
    raw = re.compile(r"\b(?:page|paging|asked|listing)(?:\.page)?\.cursor\b")
    found = [file.name for file in (ROOT / "services").rglob("*.py") if raw.search(file.read_text())]
    assert not found


def test_times_that_callers_give_are_read_where_bad_ones_are_refused() -> None:
    """A Timestamp or Duration beyond its limits raises in Python; `shared.fields` says which field it was."""
    raw = re.compile(r"request\.\w+\.(?:ToDatetime|ToTimedelta)\(")
    found = [file.name for file in (ROOT / "services").rglob("*.py") if raw.search(file.read_text())]
    assert not found


def test_every_rpc_comment_ends_with_its_errors() -> None:
    silent = []
    for file in (ROOT / "protos").rglob("*_service.proto"):
        for comment, name in re.findall(r"((?:^ +//.*\n)+) +rpc (\w+)\(", file.read_text(), re.MULTILINE):
            if "Errors:" not in comment:
                silent.append(f"{file.name}: {name}")
    assert not silent


def test_protos_and_modules_stay_short() -> None:
    protos = [file for file in (ROOT / "protos").rglob("*.proto") if len(file.read_text().splitlines()) > 300]
    code = [
        file for folder in ("services", "shared", "deploy") for file in (ROOT / folder).rglob("*.py")
        if len(file.read_text().splitlines()) > 400
    ]  # fmt: skip
    assert not protos
    assert not code


def test_the_descriptor_set_has_the_error_details_envoy_prints() -> None:
    files = {file.name for file in FileDescriptorSet.FromString(DESCRIPTORS.read_bytes()).file}
    assert "google/rpc/error_details.proto" in files


def test_compose_starts_the_same_topology_with_a_health_check_each() -> None:
    from dataclasses import replace

    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert {*SERVICES, "evaluation", "postgres", "redis", "envoy", "init"} == set(compose)
    assert "HEALTHCHECK" in (ROOT / "deploy" / "docker" / "Dockerfile").read_text()
    for name in ("postgres", "redis", "envoy"):
        assert "healthcheck" in compose[name]
    config = bootstrap(replace(containers(), descriptors=DESCRIPTORS))
    clusters = {cluster["name"]: cluster for cluster in config["static_resources"]["clusters"]}
    assert set(clusters) == {*SERVICES, "door"}
    assert all(cluster["health_checks"] for cluster in clusters.values())
    for cluster in clusters.values():
        address = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]
        assert address["socket_address"]["address"] in compose
    assert compose["envoy"]["ports"] == ["127.0.0.1:${AGENTNET_EDGE_PORT:-8080}:8080"]


def test_only_idempotent_methods_are_tried_again_by_envoy() -> None:
    from dataclasses import replace

    config = bootstrap(replace(containers(), descriptors=DESCRIPTORS))
    safe = {method.path for method in CONTRACT if method.idempotent}
    for listener in config["static_resources"]["listeners"]:
        manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
        routes = manager["route_config"]["virtual_hosts"][0]["routes"]
        retried = {route["match"].get("path") for route in routes if "retry_policy" in route.get("route", {})}
        assert retried <= safe
        assert retried


def test_the_sample_bundle_and_the_sample_agents_load() -> None:
    from services.orchestrator.agents import read_agents
    from services.policy.document import parse

    rules = parse((ROOT / "services/policy/bundles/default.yaml").read_text())
    agents = read_agents(ROOT / "services/orchestrator/agents.yaml")
    assert rules[0].name == "no_pii"
    assert [agent.name for agent in agents] == ["Athena", "Apollo", "Hermes"]
