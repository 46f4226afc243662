"""What Prometheus, Grafana and Loki are configured to look at is what the services really tell."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "observability"
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"] for rule in group["rules"]
]
ALERTS = [rule for rule in RULES if "alert" in rule]
PANELS: list[dict[str, Any]] = json.loads((FOLDER / "dashboard.json").read_text())["panels"]
EXPRESSIONS = [rule["expr"] for rule in RULES] + [target["expr"] for panel in PANELS for target in panel["targets"]]
# Of the server and of whoever scrapes.
ADDED = {"service", "le"}
# Every instrument of the mesh, made and used once, in one process.
TOLD = """
import json, sys
from shared.telemetry import exposition, meter, telemetry
with telemetry("all", otlp_endpoint=None):
    for kind, name, unit in json.load(sys.stdin):
        made = getattr(meter, kind)(name, unit=unit)
        getattr(made, {"create_counter": "add", "create_histogram": "record", "create_gauge": "set"}[kind])(1)
    print(exposition())
"""


def instruments() -> Iterator[tuple[Path, ast.Call]]:
    for folder in ("services", "shared"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "meter.create_" in (text := path.read_text()):
                for node in ast.walk(ast.parse(text)):
                    if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("meter.create_"):
                        yield path, node


def described(call: ast.Call) -> tuple[str, str, str]:
    """Kind, name and unit."""
    given = {word.arg: ast.literal_eval(word.value) for word in call.keywords if word.arg == "unit"}
    assert isinstance(call.func, ast.Attribute)
    return call.func.attr, ast.literal_eval(call.args[0]), given.get("unit", "")


@pytest.fixture(scope="module")
def told() -> set[str]:
    """The names of all samples that the mesh tells, as Prometheus sees them."""
    made = json.dumps([described(call) for _, call in instruments()])
    done = subprocess.run(
        [sys.executable, "-c", TOLD], input=made, check=True, capture_output=True, text=True, cwd=ROOT
    )
    samples = {re.split(r"[{ ]", line)[0] for line in done.stdout.splitlines() if not line.startswith("#")}
    return samples | {"agentnet_up"} | {rule["record"] for rule in RULES if "record" in rule}


def selectors(node: Any) -> Iterator[promql.VectorSelector]:
    if isinstance(node, promql.VectorSelector):
        yield node
    for name in ("lhs", "rhs", "expr", "args", "vector_selector", "vs", "param"):
        inner = getattr(node, name, None)
        for one in inner if isinstance(inner, list) else [inner]:
            if one is not None and not isinstance(one, str):
                yield from selectors(one)


def keys_beside(path: Path) -> set[str]:
    """Every label that a file which counts may give: the words it uses as keys."""
    tree = ast.parse(path.read_text())
    dicts = [key for node in ast.walk(tree) if isinstance(node, ast.Dict) for key in node.keys]
    return {key.value for key in dicts if isinstance(key, ast.Constant) and isinstance(key.value, str)}


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_expression_is_promql_over_metrics_that_are_told(expression: str, told: set[str]) -> None:
    found = list(selectors(promql.parse(expression)))
    assert found
    assert {one.name for one in found} <= told


def test_every_label_is_one_that_the_metric_has() -> None:
    labels = {described(call)[1]: keys_beside(path) for path, call in instruments()}
    labels["agentnet_up"] = {"service"}
    for expression in EXPRESSIONS:
        names = {re.sub(r"_(bucket|sum|count|total)$", "", one.name) for one in selectors(promql.parse(expression))}
        known = {label for metric, those in labels.items() if metric.removesuffix("_total") in names for label in those}
        used = {one for by in re.findall(r"by \(([^)]*)\)", expression) for one in by.replace(" ", "").split(",")}
        used |= set(re.findall(r"(\w+)(?:=~|!~|!=|=)\"", expression))
        assert used <= known | ADDED, expression


def test_the_seeds_metrics_keep_their_names(told: set[str]) -> None:
    assert {
        "inference_latency_ms_bucket", "tokens_consumed_total", "violations_total", "cost_usd_total",
        "session_rounds_bucket", "tool_invocations_total", "dag_node_duration_ms_bucket",
    } <= told  # fmt: skip


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: str(alert["alert"]))
def test_every_alert_says_how_bad_it_is_and_has_a_runbook(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in {"page", "ticket"}
    page, _, anchor = alert["annotations"]["runbook"].partition("#")
    headings = re.findall(r"^## (.+)$", (ROOT / page).read_text(), re.MULTILINE)
    assert anchor in {heading.lower().replace(" ", "-") for heading in headings}


def test_prometheus_scrapes_the_edge_with_the_token_that_init_writes() -> None:
    (job,) = yaml.safe_load((FOLDER / "prometheus.yml").read_text())["scrape_configs"]
    compose = yaml.safe_load((FOLDER / "docker-compose.yml").read_text())["services"]
    stack = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    assert job["metrics_path"] == "/metrics"
    assert job["static_configs"] == [{"targets": ["envoy:8080"]}]
    assert "client:/state/client" in stack["services"]["init"]["volumes"]
    assert "client:/etc/agentnet:ro" in compose["prometheus"]["volumes"]
    assert job["authorization"]["credentials_file"] == "/etc/agentnet/token"
    for name, service in compose.items():
        assert not [port for port in service.get("ports", []) if not port.startswith("127.0.0.1:")], name
        for mount in service.get("volumes", []):
            if mount.startswith("./"):
                assert (ROOT / mount.split(":")[0]).is_file(), mount


def test_grafana_s_panels_ask_sources_that_are_provisioned() -> None:
    sources = {one["uid"]: one for one in yaml.safe_load((FOLDER / "datasources.yml").read_text())["datasources"]}
    assert set(sources) == {"prometheus", "loki", "jaeger"}
    assert {panel["datasource"]["uid"] for panel in PANELS} == {"prometheus"}
    (linked,) = sources["loki"]["jsonData"]["derivedFields"]
    assert linked["datasourceUid"] in sources


def test_loki_s_reader_and_link_find_what_a_log_line_has() -> None:
    told = (FOLDER / "config.alloy").read_text()
    fields = dict(re.findall(r'(\w+) = "(\w+)"', re.search(r"expressions = \{(.*)\}", told)[1]))  # type: ignore[index]
    script = (
        "from opentelemetry import trace\nfrom shared.log import configure, log\nfrom shared.telemetry import begun\n"
        "configure('cost', 'INFO')\nwith trace.use_span(begun()):\n    log.info('settled')"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=ROOT)
    line = json.loads(done.stdout)
    assert {line[field] for field in fields.values() if field != "timestamp"} == {"cost", "info"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", line[fields["time"]])
    sources = yaml.safe_load((FOLDER / "datasources.yml").read_text())["datasources"]
    pattern = next(one for one in sources if one["uid"] == "loki")["jsonData"]["derivedFields"][0]["matcherRegex"]
    assert re.search(pattern, done.stdout)[1] == line["trace_id"]  # type: ignore[index]
