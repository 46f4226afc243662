"""The Makefile does what it lists, and the containers' topology is the embedded mesh's."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import envoy
import pytest
import yaml

from deploy.docker import init
from deploy.envoy.__main__ import text as envoy_config
from deploy.local.authority import PARTIES, Authority
from deploy.local.state import State
from shared.rpc.tls import Material
from shared.settings import SERVICES, MeshSettings

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    """make as a person calls it, whether or not these tests run under make."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(("make", *arguments), cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def targets() -> list[str]:
    return [line.split()[0] for line in make("help").stdout.splitlines() if line.strip()]


def test_every_target_is_listed_and_can_be_planned() -> None:
    promised = "run demo test check gen bench up down lock setup"
    assert set(promised.split()) <= set(targets())
    for target in targets():
        planned = make("-n", target)
        assert (planned.returncode, target) == (0, target), planned.stderr


def test_every_make_command_in_the_docs_is_a_target() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    named = {
        target
        for page in pages
        for target in re.findall(r"(?:^ {4}|`)make ([a-z][a-z-]*)", page.read_text(), re.MULTILINE)
    }
    assert named
    assert named <= set(targets())


def test_the_stack_is_written_in_flow_order_and_waits_for_what_it_needs() -> None:
    both = [
        name for service in SERVICES for name in ((service, "evaluation") if service == "orchestrator" else (service,))
    ]
    assert list(COMPOSE) == ["postgres", "redis", "init", *both, "envoy"]
    assert COMPOSE["init"]["depends_on"].keys() == {"postgres", "redis"}
    assert set(COMPOSE["envoy"]["depends_on"]) == set(SERVICES)
    for service in SERVICES:
        assert COMPOSE[service]["depends_on"] == {"init": {"condition": "service_completed_successfully"}}
        assert COMPOSE[service]["command"][-1].endswith(f"exec python -m services.{service}")
        kept = {"orchestrator": ["archive:/archive"], "tools": ["artefacts:/artefacts"]}.get(service, [])
        assert COMPOSE[service]["volumes"] == [f"{service}:/etc/agentnet:ro", *kept], "its own secrets and no other's"


def test_the_container_of_tools_lets_bubblewrap_make_its_sandbox() -> None:
    """Without the last, the kernel refuses the sandbox its own /proc: every call would be SANDBOX_UNAVAILABLE."""
    assert set(COMPOSE["tools"]["security_opt"]) == {
        "seccomp=unconfined",
        "apparmor=unconfined",
        "systempaths=unconfined",
    }


def test_only_the_edge_is_published_and_on_loopback_alone() -> None:
    published = {name: service["ports"] for name, service in COMPOSE.items() if "ports" in service}
    assert published == {"envoy": ["127.0.0.1:${AGENTNET_EDGE_PORT:-8080}:8080"]}


def test_no_secret_stands_in_the_file() -> None:
    for service in COMPOSE.values():
        for name, value in service.get("environment", {}).items():
            assert re.fullmatch(r"\$\{\w+(:[-?][^}]*)?\}", value), name


@pytest.mark.parametrize("service", SERVICES)
def test_a_container_s_environment_is_what_its_service_reads(
    service: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = State(tmp_path / "state")
    state.prepare()
    monkeypatch.setenv("REDIS_PASSWORD", "secret")
    monkeypatch.setattr(os, "chown", lambda *_: None)
    monkeypatch.setenv("AGENTNET_TLS", "true")
    Authority.of(state).renew()
    init.write_service(state, tmp_path, service)
    for line in (tmp_path / service / "env").read_text().splitlines():
        name, _, value = shlex.split(line)[1].partition("=")
        monkeypatch.setenv(name, value)
    module = importlib.import_module(f"services.{service}.settings")
    (kind,) = [
        found
        for found in vars(module).values()
        if isinstance(found, type) and issubclass(found, MeshSettings) and found.__module__ == module.__name__
    ]
    settings = kind.load()
    assert settings.listen == "0.0.0.0:50051"
    assert settings.redis_url.get_secret_value() == "redis://:secret@redis:6379/0"
    assert settings.tls_folder == Path("/etc/agentnet/tls")
    assert Material.read(tmp_path / service / "tls") == Material.read(Authority.of(state).of_party(service))
    files = [file for file in (tmp_path / service).rglob("*") if file.is_file()]
    assert {oct(file.stat().st_mode & 0o777) for file in files} == {"0o400"}


@pytest.mark.parametrize("tls", ["", "true"])
def test_the_real_envoy_takes_the_containers_configuration(
    tls: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same generator and the same switch as the embedded mesh; only folders and hosts are others."""
    state, root = State(tmp_path / "state"), tmp_path / "envoy"
    state.prepare()
    root.mkdir()
    monkeypatch.setenv("AGENTNET_TLS", tls)
    text = envoy_config("door%secret")
    if tls:
        Authority.of(state).renew()
        init.write_envoy_tls(state, root)
    shutil.copy(state.key("edge.jwks"), root)
    shutil.copy(ROOT / "gen/descriptors/agentnet.binpb", root)
    for file in (*root.glob("secret-*.json"), root / "envoy.json"):
        written = text if file.name == "envoy.json" else file.read_text()
        file.write_text(written.replace("/etc/agentnet", str(root)))
    binary = Path(envoy.__file__).parent / "_bin" / "envoy"
    checked = subprocess.run(
        (binary, "--mode", "validate", "-c", root / "envoy.json"), capture_output=True, check=False
    )
    assert checked.returncode == 0, checked.stderr.decode()[-2000:]
    sockets = re.findall(r"envoy\.transport_sockets\.tls", text)
    assert len(sockets) == (3 + len(SERVICES) if tls else 0)  # two listeners, the door, each service


def test_the_image_is_built_in_stages_and_runs_as_an_ordinary_user() -> None:
    lines = (ROOT / "deploy/docker/Dockerfile").read_text().splitlines()
    stages = [place for place, line in enumerate(lines) if line.startswith("FROM ")]
    assert len(stages) == 2
    final = lines[stages[1] :]
    assert any(line.startswith("COPY --from=build") for line in final)
    assert any(line == "USER agentnet" for line in final)
    installs = [line for line in lines if "pip install" in line or "pip sync" in line]
    assert all("--require-hashes" in line or "--offline --editable ." in line for line in installs)
    for line in lines:
        if line.startswith("COPY ") and "--from" not in line:
            assert all((ROOT / source).exists() for source in line.split()[1:-1])


def test_the_development_file_runs_every_process_from_the_tree_and_publishes_the_stores_on_loopback() -> None:
    development: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.dev.yml").read_text())["services"]
    assert set(development) == set(COMPOSE) - {"envoy"}
    for name in set(development) - {"postgres", "redis"}:
        for mount in development[name]["volumes"]:
            source, target, how = mount.split(":")
            assert (ROOT / source).is_dir()
            assert (target, how) == (f"/app/{source.removeprefix('./')}", "ro")
    published = [port for name in ("postgres", "redis") for port in development[name]["ports"]]
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_cert_manager_is_asked_for_the_names_that_envoy_and_services_check() -> None:
    found = list(yaml.safe_load_all((ROOT / "deploy/tls/cert-manager.yaml").read_text()))
    leaves = [one["spec"] for one in found if one["kind"] == "Certificate" and not one["spec"].get("isCA")]
    assert {name for leaf in leaves for name in leaf["dnsNames"]} == {*PARTIES} - {"supervisor"}
    for leaf in leaves:
        assert set(leaf["usages"]) == {"server auth", "client auth"}
        assert leaf["issuerRef"]["name"] == "agentnet"
