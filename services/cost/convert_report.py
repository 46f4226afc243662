"""Between the contract and reports."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from google.api import httpbody_pb2
from google.protobuf.duration_pb2 import Duration

from agentnet.cost.v1 import report_service_pb2 as pb
from services.cost import export_parquet
from services.cost.anomalies import Anomaly, Point
from services.cost.budget import Window
from services.cost.convert import TO_ACTION, instant, time
from services.cost.convert_budget import window
from services.cost.export import Format
from services.cost.forecast import Forecast
from services.cost.report_store import Alert, AlertKind, Pattern
from services.cost.store import Filter
from shared import fields
from shared.errors import InvalidArgument
from shared.paging import Page, next_page_token, page

_HOUR: Final = timedelta(hours=1)
_WEEK: Final = timedelta(days=7)
_LONGEST_SERIES: Final = timedelta(days=92)
_LONGEST_ANALYSIS: Final = timedelta(days=31)
_LONGEST_EXPORT: Final = timedelta(days=366)
_GROUPS: Final = ("", "provider", "model", "agent", "user", "team")
_MIME: Final = {
    Format.CSV: "text/csv",
    Format.LINES: "application/x-ndjson",
    Format.PARQUET: "application/vnd.apache.parquet",
}


def series(request: pb.GetSpendSeriesRequest, now: datetime) -> Filter:
    end_of_hour = now.replace(minute=0, second=0, microsecond=0) + _HOUR
    start, end = _span(request, default_end=end_of_hour, default=_WEEK, longest=_LONGEST_SERIES)
    return Filter(
        start=start,
        end=end,
        provider=fields.text(request.provider, "provider", limit=64),
        model=fields.text(request.model, "model", limit=128),
        agent=fields.text(request.agent, "agent", limit=100),
    )


def series_response(points: Sequence[Point], found: Sequence[Anomaly]) -> pb.GetSpendSeriesResponse:
    return pb.GetSpendSeriesResponse(
        points=[
            pb.SpendPoint(
                start_time=time(point.at),
                micros_usd=point.spent,
                expected_micros_usd=point.expected,
                low_micros_usd=point.low,
                high_micros_usd=point.high,
                judged=point.judged,
            )
            for point in points
        ],
        anomalies=[
            pb.Anomaly(
                start_time=time(one.start),
                end_time=time(one.end),
                kind=one.kind.value,
                micros_usd=one.spent,
                expected_micros_usd=one.expected,
                score=one.score,
                explanation=one.explanation,
            )
            for one in found
        ],
    )


def forecast(request: pb.ForecastCostRequest) -> Window:
    asked = window(request.window) if request.window else Window.MONTH
    if asked not in (Window.DAY, Window.MONTH):
        raise InvalidArgument("window is DAY or MONTH", field="window")
    return asked


def forecast_response(found: Forecast, began: datetime, end: datetime) -> pb.ForecastCostResponse:
    return pb.ForecastCostResponse(
        start_time=time(began),
        end_time=time(end),
        spent_micros_usd=found.spent,
        expected_micros_usd=found.expected,
        low_micros_usd=found.low,
        high_micros_usd=found.high,
        exhaustion_time=time(found.exhausted_at) if found.exhausted_at else None,
        days_of_history=found.days_of_history,
    )


def analysis(request: pb.AnalyzeUsageRequest, now: datetime) -> tuple[str, datetime, datetime]:
    """The name to group by, and the span."""
    if request.group_by not in _GROUPS:
        raise InvalidArgument(f"group_by is one of {', '.join(_GROUPS[1:])}", field="group_by")
    return request.group_by, *_span(request, default_end=now, default=_WEEK, longest=_LONGEST_ANALYSIS)


def analysis_response(found: Sequence[Pattern]) -> pb.AnalyzeUsageResponse:
    return pb.AnalyzeUsageResponse(patterns=[_pattern(one) for one in found])


def _pattern(one: Pattern) -> pb.UsagePattern:
    tokens = one.input_tokens + one.output_tokens
    return pb.UsagePattern(
        group=one.group,
        generations=one.generations,
        input_tokens=one.input_tokens,
        output_tokens=one.output_tokens,
        input_tokens_p50=one.input_p50,
        input_tokens_p95=one.input_p95,
        output_tokens_p50=one.output_p50,
        output_tokens_p95=one.output_p95,
        cached_share=one.cached_tokens / one.input_tokens if one.input_tokens else 0,
        reasoning_share=one.reasoning_tokens / one.output_tokens if one.output_tokens else 0,
        micros_usd_per_thousand_tokens=one.micros_usd * 1000 / tokens if tokens else 0,
        tokens_by_hour=one.by_hour,
    )


def alerts(request: pb.ListAlertsRequest) -> tuple[str, Page]:
    """The kind, and the page."""
    if request.kind and request.kind not in set(AlertKind):
        raise InvalidArgument(f"kind is one of {', '.join(AlertKind)}", field="kind")
    return request.kind, page(request.page_size, request.page_token, scope=f"alerts|{request.kind}")


def alerts_response(found: Sequence[Alert], kind: str, asked: Page) -> pb.ListAlertsResponse:
    shown = found[: asked.size]
    more = (shown[-1].created_at.isoformat(), shown[-1].id) if len(found) > len(shown) else None
    return pb.ListAlertsResponse(
        alerts=[_alert(one) for one in shown], next_page_token=next_page_token(more, scope=f"alerts|{kind}")
    )


def _alert(one: Alert) -> pb.Alert:
    active = None
    if one.active_until:
        active = Duration()
        active.FromTimedelta(one.active_until - one.created_at)
    return pb.Alert(
        id=one.id,
        kind=one.kind.value,
        subject=one.subject,
        action=TO_ACTION[one.action],
        observed=one.observed,
        expected=one.expected,
        explanation=one.explanation,
        create_time=time(one.created_at),
        active=active,
    )


def export(request: pb.ExportCostEventsRequest, now: datetime) -> tuple[Filter, Format]:
    """Which entries, and as what."""
    if request.format and request.format not in set(Format):
        raise InvalidArgument(f"format is one of {', '.join(Format)}", field="format")
    kind = Format(request.format or Format.CSV)
    if kind is Format.PARQUET and not export_parquet.available():
        raise InvalidArgument("parquet needs the extra `parquet` where cost runs", field="format")
    start, end = _span(request, default_end=now, default=_LONGEST_ANALYSIS, longest=_LONGEST_EXPORT)
    session = fields.text(request.session_id, "session_id", limit=64)
    model = fields.text(request.model, "model", limit=128)
    return Filter(start=start, end=end, session_id=session, model=model), kind


def piece(data: bytes, kind: Format) -> httpbody_pb2.HttpBody:
    return httpbody_pb2.HttpBody(content_type=_MIME[kind], data=data)


def _span(
    request: pb.GetSpendSeriesRequest | pb.AnalyzeUsageRequest | pb.ExportCostEventsRequest,
    *,
    default_end: datetime,
    default: timedelta,
    longest: timedelta,
) -> tuple[datetime, datetime]:
    end = instant(request.end_time, "end_time") if request.HasField("end_time") else default_end
    start = instant(request.start_time, "start_time") if request.HasField("start_time") else end - default
    if not timedelta() < end - start <= longest:
        raise InvalidArgument(f"end_time must be up to {longest.days} days after start_time", field="end_time")
    return start, end
