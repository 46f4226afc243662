"""The trace a call belongs to, taken over from its caller; a new one where it brings none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from opentelemetry import trace
from opentelemetry.context import attach
from opentelemetry.propagate import extract, inject

from shared.telemetry import begun

_PARENT: Final = "traceparent"


def adopt(metadata: Mapping[str, str]) -> None:
    """Makes the caller's trace the current one. Where spans are recorded, gRPC's own interceptor did it before."""
    if trace.get_current_span().get_span_context().is_valid:
        return
    if _PARENT in metadata:
        attach(extract(metadata))
    if not trace.get_current_span().get_span_context().is_valid:
        attach(trace.set_span_in_context(begun()))


def handed_on() -> Mapping[str, str]:
    """What a call takes along of the current trace."""
    carrier: dict[str, str] = {}
    inject(carrier)
    return carrier
