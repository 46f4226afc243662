"""What Prometheus reads at the edge."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from services.gateway.metrics import merged
from shared.rpc.server import serving
from shared.settings import MeshSettings
from tests.support.edge import Edge, running_edge

pytestmark = pytest.mark.asyncio(loop_scope="module")

COUNTED = """
from shared.telemetry import exposition, meter, telemetry
with telemetry("inference", otlp_endpoint=None):
    meter.create_histogram("inference_latency_ms", unit="ms").record(12, {"model": "m", "provider": "p", "agent": "a"})
    meter.create_counter("tokens_consumed_total").add(7, {"model": "m", "provider": "p", "tenant": "acme"})
    print(exposition())
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Edge]:
    """With a second service beside it, and a third that is not there."""
    folder = tmp_path_factory.mktemp("metrics")

    async def register(server, stack) -> None:
        """Serves nothing of its own."""

    async with running_edge(folder, platform_tenant="platform", parts="") as first:
        keys = first.state.key("mesh.jwks")
        settings = MeshSettings(listen="127.0.0.1:0", identity_keys=keys, postgres_dsn="x", drain_grace=0.1)
        async with serving(settings, register, service_names=()) as other:
            parts = f"cost={other},gone=127.0.0.1:1"
            async with running_edge(folder, platform_tenant="platform", parts=parts) as second:
                yield second


async def test_all_services_metrics_are_in_one_text_told_apart(edge: Edge) -> None:
    token = edge.token("auditor", tenant="platform")
    for path in ("/metrics", "/v1/metrics"):
        answer = await edge.bearer("GET", path, token)
        assert (answer.status, answer.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    up = {sample.labels["service"]: sample.value for sample in families["agentnet_up"].samples}
    assert up == {"gateway": 1, "cost": 1, "gone": 0}
    services = {sample.labels["service"] for sample in families["python_info"].samples}
    assert services == {"gateway", "cost"}


async def test_only_overseers_of_the_platforms_own_tenant_may_look(edge: Edge) -> None:
    assert (await edge.rest("GET", "/metrics")).status == 401
    assert (await edge.bearer("GET", "/metrics", edge.token("tenant_user", tenant="platform"))).status == 403
    assert (await edge.bearer("GET", "/metrics", edge.token("admin", tenant="acme"))).status == 404


async def test_metrics_keep_the_names_they_were_given() -> None:
    told = subprocess.run([sys.executable, "-c", COUNTED], check=True, capture_output=True, text=True).stdout
    text = merged({"inference": told}).decode()
    assert "tokens_consumed_total{" in text
    line = next(line for line in text.splitlines() if line.startswith("inference_latency_ms_sum"))
    assert 'service="inference"' in line
    assert line.endswith(" 12.0")
    assert "milliseconds" not in text
