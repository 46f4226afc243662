"""Series, forecasts, patterns, alerts and exports over a real port."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from agentnet.cost.v1 import cost_pb2
from agentnet.cost.v1 import report_service_pb2 as pb
from services.cost.prices import Usage
from tests.service.cost.calls import Code, refusal, reservation
from tests.service.cost.conftest import Served
from tests.support.cost import call
from tests.support.identity import Keys


async def spent(served: Served, output: int, *, hours: float, agent: str = "A@1") -> None:
    at = served.clock.now() - timedelta(hours=hours)
    await served.replica.ledger.settle("acme", call(agent=agent), Usage(0, output), ended_at=at)


def stamp(seconds: int) -> Timestamp:
    return Timestamp(seconds=seconds)


async def test_the_spend_view_has_every_hour_its_band_and_what_stands_out(served: Served, keys: Keys) -> None:
    for hours in range(14 * 24):
        await spent(served, 100_000, hours=hours + 0.5)
    await spent(served, 800_000, hours=5.2)
    answer = await served.reports.GetSpendSeries(pb.GetSpendSeriesRequest(), metadata=keys.metadata())
    assert len(answer.points) == 7 * 24
    (found,) = answer.anomalies
    assert (found.kind, found.micros_usd) == ("spike", 1_800_000)
    judged = [point for point in answer.points if point.judged]
    assert not answer.points[-1].judged  # the hour that goes on
    assert all(point.low_micros_usd <= 200_000 <= point.high_micros_usd for point in judged)
    only = pb.GetSpendSeriesRequest(agent="nobody")
    nothing = await served.reports.GetSpendSeries(only, metadata=keys.metadata())
    assert not any(point.micros_usd for point in nothing.points)


async def test_a_forecast_has_a_band(served: Served, keys: Keys) -> None:
    await spent(served, 500, hours=0.5)
    answer = await served.reports.ForecastCost(pb.ForecastCostRequest(), metadata=keys.metadata())
    assert (answer.end_time.ToDatetime() - answer.start_time.ToDatetime()).days == 31
    assert answer.low_micros_usd <= answer.expected_micros_usd <= answer.high_micros_usd


async def test_usage_is_analysed_by_group(served: Served, keys: Keys) -> None:
    await spent(served, 500, hours=0.5)
    answer = await served.reports.AnalyzeUsage(pb.AnalyzeUsageRequest(group_by="agent"), metadata=keys.metadata())
    (pattern,) = answer.patterns
    assert (pattern.group, pattern.output_tokens_p95, pattern.micros_usd_per_thousand_tokens) == ("A@1", 500, 2000.0)
    assert sum(pattern.tokens_by_hour) == 500


async def test_a_spike_is_listed_and_makes_reserve_ask_for_a_cheaper_model(served: Served, keys: Keys) -> None:
    await spent(served, 900_000, hours=0.01)
    await served.replica.lookout.look("acme")
    wanted = pb.ListAlertsRequest(kind="token_spike")
    alerts = (await served.reports.ListAlerts(wanted, metadata=keys.metadata())).alerts
    assert {alert.subject for alert in alerts} == {"tenant:", "agent:A@1"}
    assert all(alert.action == cost_pb2.SOFT_ACTION_DOWNGRADE for alert in alerts)
    assert alerts[0].active.seconds == 600
    reserved = await served.cost.Reserve(reservation(agent="A@1"), metadata=keys.metadata())
    assert {notice.action for notice in reserved.notices} == {cost_pb2.SOFT_ACTION_DOWNGRADE}
    assert {alert.id for alert in alerts} <= {notice.alert_id for notice in reserved.notices}


async def test_entries_are_exported_as_a_file(served: Served, keys: Keys) -> None:
    await spent(served, 500, hours=0.5)
    for wanted, mime, first in (
        ("", "text/csv", b"id,time"),
        ("jsonl", "application/x-ndjson", b'{"id":'),
        ("parquet", "application/vnd.apache.parquet", b"PAR1"),
    ):
        call_ = served.reports.ExportCostEvents(pb.ExportCostEventsRequest(format=wanted), metadata=keys.metadata())
        pieces = [piece async for piece in call_]
        assert {piece.content_type for piece in pieces} == {mime}
        assert b"".join(piece.data for piece in pieces).startswith(first)


@pytest.mark.parametrize(
    ("method", "request_", "field"),
    [
        ("GetSpendSeries", pb.GetSpendSeriesRequest(start_time=stamp(0), end_time=stamp(10**9)), "end_time"),
        ("GetSpendSeries", pb.GetSpendSeriesRequest(start_time=stamp(-5)), "start_time"),
        ("GetSpendSeries", pb.GetSpendSeriesRequest(model="m" * 129), "model"),
        ("ForecastCost", pb.ForecastCostRequest(window=cost_pb2.BUDGET_WINDOW_TOTAL), "window"),
        ("ForecastCost", pb.ForecastCostRequest(window=99), "window"),
        ("AnalyzeUsage", pb.AnalyzeUsageRequest(group_by="colour"), "group_by"),
        ("AnalyzeUsage", pb.AnalyzeUsageRequest(start_time=stamp(9), end_time=stamp(9)), "end_time"),
        ("ListAlerts", pb.ListAlertsRequest(kind="loud"), "kind"),
        ("ListAlerts", pb.ListAlertsRequest(page_token="x"), "page_token"),
    ],
)
async def test_a_report_that_cannot_be_is_refused_by_its_field(
    served: Served, keys: Keys, method: str, request_: Any, field: str
) -> None:
    error = await refusal(getattr(served.reports, method)(request_, metadata=keys.metadata()))
    assert (error.code, error.field) == (Code.INVALID_ARGUMENT, field)


async def test_parquet_is_refused_where_it_is_not_installed(
    served: Served, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    call_ = served.reports.ExportCostEvents(pb.ExportCostEventsRequest(format="parquet"), metadata=keys.metadata())
    error = await refusal(call_.read())
    assert (error.code, error.field) == (Code.INVALID_ARGUMENT, "format")


async def test_an_unknown_format_is_refused(served: Served, keys: Keys) -> None:
    call_ = served.reports.ExportCostEvents(pb.ExportCostEventsRequest(format="pdf"), metadata=keys.metadata())
    error = await refusal(call_.read())
    assert (error.code, error.field) == (Code.INVALID_ARGUMENT, "format")
