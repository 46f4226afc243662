"""What policy tells Prometheus."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import timestamp_pb2
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from agentnet.policy.v1 import bundle_pb2, policy_service_pb2, violation_pb2
from services.policy import library
from tests.support.identity import Keys


async def test_violations_are_counted_by_severity_and_rule(
    stub: Any, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = InMemoryMetricReader()
    meter = MeterProvider(metric_readers=[reader]).get_meter("test")
    monkeypatch.setattr(library, "_violations", meter.create_counter(vars(library._violations)["_name"]))
    violations = [
        violation_pb2.Violation(
            id=f"v{n}", monitor_name="no_pii", severity=severity, violation_type="regex", rationale="why",
            session_id="ses_1", create_time=timestamp_pb2.Timestamp(seconds=1_800_000_000),
        )
        for n, severity in enumerate((bundle_pb2.SEVERITY_SEVERE, bundle_pb2.SEVERITY_SEVERE, bundle_pb2.SEVERITY_MINOR))
    ]  # fmt: skip

    request = policy_service_pb2.RecordViolationsRequest(violations=violations)
    await stub.RecordViolations(request, metadata=keys.metadata())

    data: Any = reader.get_metrics_data()
    (metric,) = data.resource_metrics[0].scope_metrics[0].metrics
    counts = {(one.attributes["severity"], one.attributes["rule_name"]): one.value for one in metric.data.data_points}
    assert metric.name == "violations_total"
    assert counts == {("severe", "no_pii"): 2, ("minor", "no_pii"): 1}
