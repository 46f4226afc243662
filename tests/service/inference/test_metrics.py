"""What is told to Prometheus about generations."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from services.inference.providers.contract import Usage
from tests.service.inference.calls import generated
from tests.support.identity import Keys
from tests.support.inference import Replica, request


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> InMemoryMetricReader:
    reader = InMemoryMetricReader()
    meter = MeterProvider(metric_readers=[reader]).get_meter("test")
    monkeypatch.setattr(
        "services.inference.producer._latency", meter.create_histogram("inference_latency_ms", unit="ms")
    )
    monkeypatch.setattr("services.inference.producer._tokens", meter.create_counter("tokens_consumed_total"))
    return reader


def point(reader: InMemoryMetricReader, name: str) -> Any:
    data = reader.get_metrics_data()
    assert data is not None
    metrics = {metric.name: metric for metric in data.resource_metrics[0].scope_metrics[0].metrics}
    (found,) = metrics[name].data.data_points
    return found


async def test_the_latency_of_a_generation_is_told_by_model_provider_and_agent(
    served: Replica, keys: Keys, told: InMemoryMetricReader
) -> None:
    served.model.steps = ["One."]
    await generated(served, keys, request(agent="Athena@1.0.0"))
    found = point(told, "inference_latency_ms")
    assert found.attributes == {"model": "scripted", "provider": "scripted", "agent": "Athena@1.0.0"}
    assert (found.count, found.sum > 0) == (1, True)


async def test_tokens_are_told_by_model_provider_and_tenant(
    served: Replica, keys: Keys, told: InMemoryMetricReader
) -> None:
    served.model.steps, served.model.usage = ["One."], Usage(30, 12)
    await generated(served, keys, request())
    found = point(told, "tokens_consumed_total")
    assert found.attributes == {"model": "scripted", "provider": "scripted", "tenant": "acme"}
    assert found.value == 42
