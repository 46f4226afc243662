"""What is told to Prometheus about generations."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from agentnet.inference.v1 import queue_service_pb2 as queue_pb
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
    for name in ("waiting", "running", "oldest"):
        monkeypatch.setattr(f"services.inference.queue.worker._{name}", meter.create_gauge(f"queue_{name}"))
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


async def test_what_waits_in_the_queue_is_told_now_and_then(
    served: Replica, keys: Keys, told: InMemoryMetricReader
) -> None:
    for name in ("gen_1", "gen_2"):
        asked = queue_pb.SubmitGenerationRequest(generation=request(generation_id=name))
        await served.queue.SubmitGeneration(asked, metadata=keys.metadata())
    await served.worker.store.claim("another", lease=timedelta(seconds=30), most=1)
    await served.worker.measure()
    assert [point(told, f"queue_{name}").value for name in ("waiting", "running")] == [1, 1]
    assert point(told, "queue_oldest").value > 0
    await served.worker.store.claim("another", lease=timedelta(seconds=30), most=1)
    await served.worker.measure()  # too soon to ask again
    assert point(told, "queue_waiting").value == 1
