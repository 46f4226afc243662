"""What a session that ended tells Prometheus."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from agentnet.orchestrator.v1 import session_pb2
from services.orchestrator.drivers import session
from tests.support.orchestrator import World


async def test_rounds_are_told_by_mode_and_by_whether_the_session_converged(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = InMemoryMetricReader()
    meter = MeterProvider(metric_readers=[reader]).get_meter("test")
    monkeypatch.setattr(session, "_rounds", meter.create_histogram(vars(session._rounds)["_name"]))
    world, count = World(), iter(range(1000))
    await world.start(max_rounds=5, measures=[session_pb2.MeasureRule(measure="jaccard")])
    await world.drive()
    world.inference.reply = lambda _: " ".join(f"word{next(count)}" for _ in range(5))
    await world.start(max_rounds=3)
    await world.drive()

    data: Any = reader.get_metrics_data()
    (metric,) = data.resource_metrics[0].scope_metrics[0].metrics
    told = {
        (one.attributes["mode"], one.attributes["converged"]): (one.count, one.sum) for one in metric.data.data_points
    }
    assert metric.name == "session_rounds"
    assert told == {("brainstorm", "true"): (1, 2), ("brainstorm", "false"): (1, 3)}
