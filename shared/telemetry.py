"""Traces and metrics: OpenTelemetry, exported when an OTLP collector is named, always propagated."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from prometheus_client import REGISTRY, generate_latest

tracer = trace.get_tracer("agentnet")
meter = metrics.get_meter("agentnet")

_EXPORT_MILLISECONDS = 15_000
# The exporter adds the unit to names; those of the mesh that end in it have theirs already.
_TWICE = re.compile(r"_ms_milliseconds(?=[_ {]|$)", re.MULTILINE)


def exposition() -> str:
    """All metrics of this process, as Prometheus reads them."""
    return _TWICE.sub("_ms", generate_latest(REGISTRY).decode())


@contextmanager
def telemetry(service: str, *, otlp_endpoint: str | None) -> Iterator[None]:
    """Sets the process up to trace and measure, and flushes at the end. Metrics can also be
    read (`exposition`). Without an endpoint nothing leaves it by itself.
    """
    resource = Resource.create({"service.name": service, "service.namespace": "agentnet"})
    traces = TracerProvider(resource=resource)
    readers: list[MetricReader] = [PrometheusMetricReader()]
    if otlp_endpoint:
        traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=otlp_endpoint, insecure=True)))
        exporter = OTLPMetricExporter(endpoint=otlp_endpoint, insecure=True)
        readers.append(PeriodicExportingMetricReader(exporter, export_interval_millis=_EXPORT_MILLISECONDS))
    measures = MeterProvider(resource=resource, metric_readers=readers)
    trace.set_tracer_provider(traces)
    metrics.set_meter_provider(measures)
    try:
        yield
    finally:
        traces.shutdown()
        measures.shutdown()
