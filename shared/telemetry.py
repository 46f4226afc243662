"""Traces and metrics: OpenTelemetry, exported when an OTLP collector is named, always propagated."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from typing import Any

from opentelemetry import context, metrics, trace
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
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
    """Sets the process up to trace and measure, and flushes at the end. Metrics can always be read (`exposition`).
    Without an endpoint nothing leaves the process by itself, and only the ids of traces are kept and handed on.
    """
    resource = Resource.create({"service.name": service, "service.namespace": "agentnet"})
    readers: list[MetricReader] = [PrometheusMetricReader()]
    traces = TracerProvider(resource=resource) if otlp_endpoint else None
    if traces:
        otlp = import_module("opentelemetry.exporter.otlp.proto.grpc")  # a tenth of a start: loaded where it is wanted
        spans, metered = (import_module(f"{otlp.__name__}.{name}") for name in ("trace_exporter", "metric_exporter"))
        insecure = not str(otlp_endpoint).startswith("https://")
        exporter = spans.OTLPSpanExporter(endpoint=otlp_endpoint, insecure=insecure)
        traces.add_span_processor(BatchSpanProcessor(exporter))
        exporter = metered.OTLPMetricExporter(endpoint=otlp_endpoint, insecure=insecure)
        readers.append(PeriodicExportingMetricReader(exporter, export_interval_millis=_EXPORT_MILLISECONDS))
    measures = MeterProvider(resource=resource, metric_readers=readers)
    trace.set_tracer_provider(traces or Unrecorded())
    metrics.set_meter_provider(measures)
    try:
        yield
    finally:
        if traces:
            traces.shutdown()
        measures.shutdown()


def recorded() -> bool:
    """Whether spans are kept: someone collects them."""
    return isinstance(trace.get_tracer_provider(), TracerProvider)


def begun() -> NonRecordingSpan:
    """A span that begins a trace and is kept nowhere."""
    numbers = random.getrandbits(128) or 1, random.getrandbits(64) or 1
    return NonRecordingSpan(SpanContext(*numbers, is_remote=False, trace_flags=TraceFlags()))


def span(name: str, **labels: str | float) -> AbstractContextManager[object]:
    """The block as a span. Where none are kept it only has the ids of its trace, which cost a tenth of that."""
    return tracer.start_as_current_span(name, attributes=labels) if recorded() else _Traced()


class _Traced:
    """A block whose work is of one trace: that of the caller, or else a new one."""

    __slots__ = ("_token",)

    def __enter__(self) -> None:
        known = trace.get_current_span().get_span_context().is_valid
        self._token = None if known else context.attach(trace.set_span_in_context(begun()))

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            context.detach(self._token)


class Unrecorded(trace.TracerProvider):
    """Spans that are nothing but the ids of their trace: for logs, events and whoever is called."""

    def get_tracer(self, *_names: Any, **_more: Any) -> trace.Tracer:
        return _Ids()


class _Ids(trace.NoOpTracer):
    def start_span(self, *names: Any, **more: Any) -> trace.Span:
        span = super().start_span(*names, **more)
        return span if span.get_span_context().is_valid else begun()

    @contextmanager
    def start_as_current_span(  # type: ignore[override] # the API's type of a context manager is its own secret
        self, *names: Any, **more: Any
    ) -> Iterator[trace.Span]:
        span = self.start_span(*names, **more)
        with trace.use_span(span):
            yield span
