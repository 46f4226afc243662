"""Reserving, settling and budgets over a real port."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from structlog.testing import capture_logs

from agentnet.cost.v1 import budget_service_pb2, cost_pb2, report_service_pb2
from agentnet.cost.v1 import cost_service_pb2 as pb
from agentnet.cost.v1 import price_service_pb2 as prices_pb
from services.cost.metrics import SpendMeter
from services.cost.prices import Usage
from services.cost.store import Filter
from shared.paging import next_page_token
from tests.service.cost.calls import Code, refusal, reservation, said, settlement
from tests.service.cost.conftest import Served
from tests.support.cost import call, document
from tests.support.identity import Keys


async def test_a_generation_is_reserved_extended_and_settled(served: Served, keys: Keys) -> None:
    caller = keys.metadata(subject="ada")
    reserved = await served.cost.Reserve(reservation(input_tokens=5), metadata=caller)
    assert (reserved.lease.micros_usd, reserved.input_micros_usd_per_million) == (25, 1_000_000)
    grown = await served.cost.ExtendLease(pb.ExtendLeaseRequest(generation_id="g1", output_tokens=20), metadata=caller)
    assert grown.lease.micros_usd == 45
    event = (await served.cost.Settle(settlement(session_id="s", agent="A@1", turn_id="t"), metadata=caller)).cost_event
    assert (event.cost.micros_usd, event.user, event.session_id, event.turn_id) == (20, "ada", "s", "t")
    assert event.outcome == cost_pb2.OUTCOME_COMPLETED
    (listed,) = (await served.cost.ListCostEvents(pb.ListCostEventsRequest(), metadata=caller)).cost_events
    assert listed == event


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (settlement({"input_tokens": -1}), "usage.input_tokens"),
        (settlement({"output_tokens": 2_000_000_001}), "usage.output_tokens"),
        (settlement({"input_tokens": 1, "cached_input_tokens": 2}), "usage.cached_input_tokens"),
        (settlement({"output_tokens": 1, "reasoning_tokens": 2}), "usage.reasoning_tokens"),
        (settlement(metered={"images": -1}), "metered.images"),
        (settlement(attempt=101), "attempt"),
        (settlement(end_time=Timestamp(seconds=1)), "end_time"),
        (settlement(end_time=Timestamp(seconds=-1)), "end_time"),
        (settlement(generation_id="a b"), "generation_id"),
        (settlement(provider=""), "provider"),
        (settlement(outcome=99), "outcome"),
    ],
)
async def test_a_settlement_that_cannot_be_is_refused_by_its_field(
    served: Served, keys: Keys, request_: pb.SettleRequest, field: str
) -> None:
    error = await refusal(served.cost.Settle(request_, metadata=keys.metadata()))
    assert (error.code, error.field) == (Code.INVALID_ARGUMENT, field)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"input_tokens": -1}, "input_tokens"),
        ({"input_tokens": 2**63 - 1}, "input_tokens"),
        ({"output_tokens": 0}, "output_tokens"),
        ({"metered": {"cache_write_tokens": 1}}, "metered.cache_write_tokens"),
        ({"metered": {"images": 1_000_001}}, "metered.images"),
        ({"metered": {"audio_input_tokens": -1}}, "metered.audio_input_tokens"),
        ({"generation_id": ""}, "generation_id"),
        ({"model": " "}, "model"),
        ({"model": "m" * 129}, "model"),
        ({"agent": "a\0"}, "agent"),
        ({"team": "t" * 101}, "team"),
        ({"region": "r" * 65}, "region"),
    ],
)
async def test_a_reservation_that_cannot_be_is_refused_by_its_field(
    served: Served, keys: Keys, changes: dict[str, Any], field: str
) -> None:
    await served.replica.limit("acme", 1000)
    error = await refusal(served.cost.Reserve(reservation(**changes), metadata=keys.metadata()))
    assert (error.code, error.field) == (Code.INVALID_ARGUMENT, field)
    assert await served.replica.spent("acme") == (0, 0)


async def test_a_second_settlement_with_other_numbers_is_a_conflict(served: Served, keys: Keys) -> None:
    await served.cost.Settle(settlement(), metadata=keys.metadata())
    with capture_logs() as logged:
        error = await refusal(served.cost.Settle(settlement({"input_tokens": 11}), metadata=keys.metadata()))
    assert said(error) == (Code.ALREADY_EXISTS, "SETTLED_DIFFERENTLY", None)
    assert error.facts["settled_micros_usd"] == "20"
    (told,) = (one for one in logged if one["event"] == "ledger.settled_differently")
    assert (told["generation_id"], told["settled_micros_usd"], told["refused_micros_usd"]) == ("g1", 20, 11)


async def test_an_amount_no_entry_can_hold_is_an_overflow(served: Served, keys: Keys) -> None:
    document_ = document({"output": 10**9})
    await served.prices.ImportPrices(prices_pb.ImportPricesRequest(document=document_), metadata=keys.metadata())
    error = await refusal(served.cost.Settle(settlement({"output_tokens": 10**9}), metadata=keys.metadata()))
    assert said(error) == (Code.INVALID_ARGUMENT, "COST_OVERFLOW", "usage")


async def test_a_model_without_a_price_is_not_called(served: Served, keys: Keys) -> None:
    error = await refusal(served.cost.Reserve(reservation(model="x"), metadata=keys.metadata()))
    assert said(error) == (Code.FAILED_PRECONDITION, "PRICE_NOT_FOUND", None)


async def test_a_full_budget_refuses_and_says_when_its_window_ends(served: Served, keys: Keys) -> None:
    limits = pb.SetBudgetRequest(
        limit_micros_usd=10, level=cost_pb2.BUDGET_LEVEL_AGENT, name="A@1", window=cost_pb2.BUDGET_WINDOW_HOUR
    )
    await served.cost.SetBudget(limits, metadata=keys.metadata())
    error = await refusal(served.cost.Reserve(reservation(agent="A@1"), metadata=keys.metadata()))
    assert said(error) == (Code.RESOURCE_EXHAUSTED, "BUDGET_EXHAUSTED", None)
    assert (error.facts["scope"], error.retry_after) == ("agent:A@1", timedelta(hours=1))


async def test_a_soft_limit_downgrades_by_a_notice_and_asks_by_a_refusal(served: Served, keys: Keys) -> None:
    def soft(action: Any) -> pb.SetBudgetRequest:
        return pb.SetBudgetRequest(limit_micros_usd=1000, soft_limit_micros_usd=10, soft_action=action)

    await served.cost.SetBudget(soft(cost_pb2.SOFT_ACTION_DOWNGRADE), metadata=keys.metadata())
    reserved = await served.cost.Reserve(reservation(), metadata=keys.metadata())
    assert [notice.action for notice in reserved.notices] == [cost_pb2.SOFT_ACTION_DOWNGRADE]
    await served.cost.SetBudget(soft(cost_pb2.SOFT_ACTION_ASK), metadata=keys.metadata())
    error = await refusal(served.cost.Reserve(reservation(generation_id="g2"), metadata=keys.metadata()))
    assert said(error) == (Code.FAILED_PRECONDITION, "BUDGET_APPROVAL_REQUIRED", None)
    approval = budget_service_pb2.ApproveBudgetRequest(id=error.facts["budget_id"])
    await served.budgets.ApproveBudget(approval, metadata=keys.metadata())
    await served.cost.Reserve(reservation(generation_id="g2"), metadata=keys.metadata())


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.SetBudgetRequest(limit_micros_usd=-1), "limit_micros_usd"),
        (pb.SetBudgetRequest(limit_micros_usd=1, soft_limit_micros_usd=2), "soft_limit_micros_usd"),
        (pb.SetBudgetRequest(level=cost_pb2.BUDGET_LEVEL_TEAM), "name"),
        (pb.SetBudgetRequest(name="x"), "name"),
        (pb.SetBudgetRequest(level=cost_pb2.BUDGET_LEVEL_AGENT, name=" A@1 "), "name"),
        (pb.SetBudgetRequest(limit_micros_usd=1, soft_action=cost_pb2.SOFT_ACTION_ASK), "soft_limit_micros_usd"),
        (pb.SetBudgetRequest(level=99), "level"),
        (pb.SetBudgetRequest(window=99), "window"),
        (pb.SetBudgetRequest(soft_action=99), "soft_action"),
    ],
)
async def test_a_budget_that_cannot_be_is_refused_by_its_field(
    served: Served, keys: Keys, request_: pb.SetBudgetRequest, field: str
) -> None:
    error = await refusal(served.cost.SetBudget(request_, metadata=keys.metadata()))
    assert (error.code, error.field) == (Code.INVALID_ARGUMENT, field)


@pytest.mark.parametrize("cursor", [(), ("x",), ("-1",), ("9" * 30,), ("2026-01-01", "x"), ("2026-01-01T00:00:00Z",)])
async def test_a_forged_page_token_is_refused_as_one(served: Served, keys: Keys, cursor: tuple[str, ...]) -> None:
    """The digest that binds a token to its list is no secret."""
    nothing, caller = Filter(), keys.metadata()
    asked: list[tuple[Any, Any]] = [
        (
            served.cost.SummarizeCost,
            pb.SummarizeCostRequest(page_token=next_page_token(cursor, scope=f"summary|{nothing}|()")),
        ),
        (
            served.cost.ListCostEvents,
            pb.ListCostEventsRequest(page_token=next_page_token(cursor, scope=f"events|{nothing}|")),
        ),
        (
            served.budgets.ListBudgets,
            budget_service_pb2.ListBudgetsRequest(page_token=next_page_token(cursor, scope="budgets")),
        ),
        (
            served.reports.ListAlerts,
            report_service_pb2.ListAlertsRequest(page_token=next_page_token(cursor, scope="alerts|")),
        ),
    ]
    for method, request in asked:
        if cursor:
            error = await refusal(method(request, metadata=caller))
            assert said(error) == (Code.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID", "page_token")
        else:
            await method(request, metadata=caller)  # the first page


async def test_limits_are_told_in_whole_numbers(served: Served, keys: Keys) -> None:
    asked = pb.SetBudgetRequest(limit_micros_usd=10**15 + 1)
    error = await refusal(served.cost.SetBudget(asked, metadata=keys.metadata()))
    assert str(error).endswith("must be from 0 to 1000000000000000")


async def test_a_summary_that_ends_before_it_begins_is_refused(served: Served, keys: Keys) -> None:
    asked = pb.SummarizeCostRequest(start_time=Timestamp(seconds=9), end_time=Timestamp(seconds=9))
    error = await refusal(served.cost.SummarizeCost(asked, metadata=keys.metadata()))
    assert said(error) == (Code.INVALID_ARGUMENT, "FIELD_INVALID", "end_time")


async def test_budgets_are_set_read_listed_and_deleted(served: Served, keys: Keys) -> None:
    caller = keys.metadata()
    for name in ("red", "blue"):
        limits = pb.SetBudgetRequest(limit_micros_usd=7, level=cost_pb2.BUDGET_LEVEL_TEAM, name=name)
        await served.cost.SetBudget(limits, metadata=caller)
    first = await served.budgets.ListBudgets(budget_service_pb2.ListBudgetsRequest(page_size=1), metadata=caller)
    asked = budget_service_pb2.ListBudgetsRequest(page_size=1, page_token=first.next_page_token)
    second = await served.budgets.ListBudgets(asked, metadata=caller)
    assert [first.budgets[0].name, second.budgets[0].name, second.next_page_token] == ["blue", "red", ""]
    gone = budget_service_pb2.DeleteBudgetRequest(id=first.budgets[0].id)
    await served.budgets.DeleteBudget(gone, metadata=caller)
    which = pb.GetBudgetRequest(level=cost_pb2.BUDGET_LEVEL_TEAM, name="blue")
    error = await refusal(served.cost.GetBudget(which, metadata=caller))
    assert said(error) == (Code.NOT_FOUND, "BUDGET_NOT_FOUND", None)
    error = await refusal(served.budgets.DeleteBudget(gone, metadata=caller))
    assert error.code == Code.NOT_FOUND


async def test_a_tenants_prices_are_imported_read_by_hash_and_used(served: Served, keys: Keys) -> None:
    caller = keys.metadata()
    own = document({"input": 0, "output": 5_000_000})
    imported = await served.prices.ImportPrices(prices_pb.ImportPricesRequest(document=own), metadata=caller)
    reserved = await served.cost.Reserve(reservation(), metadata=caller)
    assert (imported.prices, reserved.lease.micros_usd) == (1, 50)
    event = (await served.cost.Settle(settlement(), metadata=caller)).cost_event
    assert event.cost.price_version == imported.version
    read = await served.prices.GetPriceBook(prices_pb.GetPriceBookRequest(version=imported.version), metadata=caller)
    assert '"output":5000000' in read.document
    other = await served.cost.Reserve(reservation(), metadata=keys.metadata("other"))
    assert other.lease.micros_usd == 20
    unknown = prices_pb.GetPriceBookRequest(version="0" * 64)
    assert (await refusal(served.prices.GetPriceBook(unknown, metadata=caller))).reason_name == "PRICE_BOOK_NOT_FOUND"


async def test_a_bad_price_book_is_refused_and_a_check_changes_nothing(served: Served, keys: Keys) -> None:
    caller = keys.metadata()
    bad = prices_pb.ImportPricesRequest(document=document({"input": -1}))
    assert said(await refusal(served.prices.ImportPrices(bad, metadata=caller))) == (
        Code.INVALID_ARGUMENT, "PRICE_BOOK_INVALID", "document"
    )  # fmt: skip
    checked = prices_pb.ImportPricesRequest(document=document({"output": 1}), validate_only=True)
    await served.prices.ImportPrices(checked, metadata=caller)
    assert (await served.cost.Reserve(reservation(), metadata=caller)).lease.micros_usd == 20


async def test_the_summary_is_grouped_and_paged_and_refuses_unknown_groups(served: Served, keys: Keys) -> None:
    caller = keys.metadata()
    for number in range(3):
        paid = settlement({"output_tokens": number + 1}, generation_id=f"g{number}", agent=f"A@{number}")
        await served.cost.Settle(paid, metadata=caller)
    first = await served.cost.SummarizeCost(pb.SummarizeCostRequest(group_by="agent", page_size=2), metadata=caller)
    asked = pb.SummarizeCostRequest(group_by="agent", page_size=2, page_token=first.next_page_token)
    second = await served.cost.SummarizeCost(asked, metadata=caller)
    assert [one.group["agent"] for one in (*first.summaries, *second.summaries)] == ["A@2", "A@1", "A@0"]
    for wrong in ("colour", "agent,agent", "provider,model,agent,day"):
        error = await refusal(served.cost.SummarizeCost(pb.SummarizeCostRequest(group_by=wrong), metadata=caller))
        assert said(error) == (Code.INVALID_ARGUMENT, "FIELD_INVALID", "group_by")


async def test_money_is_told_to_prometheus_once_an_entry(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = InMemoryMetricReader()
    meter = MeterProvider(metric_readers=[reader]).get_meter("test")
    monkeypatch.setattr("services.cost.metrics.meter", meter)
    told, paid = SpendMeter(), call()
    for _ in range(2):
        told.settled("acme", await served.replica.ledger.settle("acme", paid, Usage(0, 500_000)))
    data = reader.get_metrics_data()
    assert data is not None
    (metric,) = data.resource_metrics[0].scope_metrics[0].metrics
    (point,) = metric.data.data_points
    assert (metric.name, point.value) == ("cost_usd_total", 1.0)
    assert point.attributes == {"provider": "p", "model": "m", "tenant": "acme"}
