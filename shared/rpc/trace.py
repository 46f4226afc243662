"""The trace a call belongs to, taken over from its caller; a new one where it brings none."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from opentelemetry import trace
from opentelemetry.context import attach
from opentelemetry.propagate import extract, inject

from shared.telemetry import begun

_PARENT: Final = "traceparent"
_BESIDE: Final = ("tracestate", "baggage")
_VERSION_0: Final = re.compile("00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


def adopt(metadata: Mapping[str, str]) -> None:
    """Makes the caller's trace the current one. Where spans are recorded, gRPC's own interceptor did it before."""
    if trace.get_current_span().get_span_context().is_valid:
        return
    if _PARENT in metadata:
        attach(trace.set_span_in_context(parent) if (parent := _alone(metadata)) else extract(metadata))
    if not trace.get_current_span().get_span_context().is_valid:
        attach(trace.set_span_in_context(begun()))


def _alone(metadata: Mapping[str, str]) -> trace.Span | None:
    """The parent as W3C writes it, where nothing else of the trace comes along: most calls, in a third of the time."""
    found = _VERSION_0.fullmatch(metadata[_PARENT])
    if found is None or not metadata.keys().isdisjoint(_BESIDE):
        return None
    number, span, flags = (int(part, 16) for part in found.groups())
    return trace.NonRecordingSpan(trace.SpanContext(number, span, is_remote=True, trace_flags=trace.TraceFlags(flags)))


def handed_on() -> Mapping[str, str]:
    """What a call takes along of the current trace."""
    carrier: dict[str, str] = {}
    inject(carrier)
    return carrier
