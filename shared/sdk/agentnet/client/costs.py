"""What was spent, what may be, and what things cost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from agentnet.client.calls import stream, unary
from agentnet.client.transport import Transport
from agentnet.cost.v1 import (
    budget_service_pb2,
    budget_service_pb2_grpc,
    cost_pb2,
    cost_service_pb2,
    cost_service_pb2_grpc,
    price_service_pb2,
    price_service_pb2_grpc,
    report_service_pb2,
    report_service_pb2_grpc,
)


class Costs:
    """What was spent and what may be. Money is integer micro-USD."""

    def __init__(self, transport: Transport) -> None:
        self._stub = cost_service_pb2_grpc.CostServiceStub(transport.channel)
        self._budgets = budget_service_pb2_grpc.BudgetServiceStub(transport.channel)
        self._prices = price_service_pb2_grpc.PriceServiceStub(transport.channel)
        self._reports = report_service_pb2_grpc.ReportServiceStub(transport.channel)
        self._call = transport.options

    async def summary(
        self, *, group_by: str = "", session_id: str = "", since: datetime | None = None
    ) -> Sequence[cost_service_pb2.CostSummary]:
        """Sums, dearest first, at most 500. `group_by` is a list such as "provider,model"."""
        request = cost_service_pb2.SummarizeCostRequest(
            group_by=group_by, session_id=session_id, start_time=_stamp(since), page_size=500
        )
        return (await unary(self._stub.SummarizeCost(request, **self._call()))).summaries

    async def events(self, *, session_id: str = "", model: str = "") -> AsyncIterator[cost_pb2.CostEvent]:
        """The ledger's entries, newest first, page by page."""
        token = ""
        while True:
            request = cost_service_pb2.ListCostEventsRequest(session_id=session_id, model=model, page_token=token)
            page = await unary(self._stub.ListCostEvents(request, **self._call()))
            for event in page.cost_events:
                yield event
            if not (token := page.next_page_token):
                return

    async def budget(self) -> cost_pb2.Budget:
        """The tenant's budget."""
        return (await unary(self._stub.GetBudget(cost_service_pb2.GetBudgetRequest(), **self._call()))).budget

    async def budgets(self) -> AsyncIterator[cost_pb2.Budget]:
        """All of them, from the whole to the part, page by page."""
        token = ""
        while True:
            request = budget_service_pb2.ListBudgetsRequest(page_token=token)
            page = await unary(self._budgets.ListBudgets(request, **self._call()))
            for found in page.budgets:
                yield found
            if not (token := page.next_page_token):
                return

    async def set_budget(
        self,
        limit_micros_usd: int,
        *,
        level: cost_pb2.BudgetLevel.ValueType = cost_pb2.BUDGET_LEVEL_TENANT,
        name: str = "",
        window: cost_pb2.BudgetWindow.ValueType = cost_pb2.BUDGET_WINDOW_TOTAL,
        soft_limit_micros_usd: int = 0,
        soft_action: cost_pb2.SoftAction.ValueType = cost_pb2.SOFT_ACTION_ALERT,
    ) -> cost_pb2.Budget:
        """Sets a budget, the tenant's in all unless another is named. The name `*` is each of the level."""
        request = cost_service_pb2.SetBudgetRequest(
            limit_micros_usd=limit_micros_usd, level=level, name=name, window=window,
            soft_limit_micros_usd=soft_limit_micros_usd, soft_action=soft_action,
        )  # fmt: skip
        return (await unary(self._stub.SetBudget(request, **self._call()))).budget

    async def delete_budget(self, budget_id: str) -> None:
        """Takes a budget away: what it limited is limited by it no more."""
        request = budget_service_pb2.DeleteBudgetRequest(id=budget_id)
        await unary(self._budgets.DeleteBudget(request, **self._call()))

    async def approve_budget(self, budget_id: str, *, name: str = "") -> None:
        """Lets generations start beyond its soft limit until its window ends; `name` is which, of a budget for each."""
        request = budget_service_pb2.ApproveBudgetRequest(id=budget_id, name=name)
        await unary(self._budgets.ApproveBudget(request, **self._call()))

    async def import_prices(
        self, document: str, *, validate_only: bool = False
    ) -> price_service_pb2.ImportPricesResponse:
        """Makes a price book the tenant's own; its version and how many prices it has."""
        request = price_service_pb2.ImportPricesRequest(document=document, validate_only=validate_only)
        return await unary(self._prices.ImportPrices(request, **self._call(timeout=60.0)))

    async def price_book(self, version: str = "") -> price_service_pb2.GetPriceBookResponse:
        """The book of a version; the one in force without."""
        request = price_service_pb2.GetPriceBookRequest(version=version)
        return await unary(self._prices.GetPriceBook(request, **self._call()))

    async def alerts(self, *, kind: str = "") -> AsyncIterator[report_service_pb2.Alert]:
        """What needs a look, newest first, page by page."""
        token = ""
        while True:
            request = report_service_pb2.ListAlertsRequest(kind=kind, page_token=token)
            page = await unary(self._reports.ListAlerts(request, **self._call()))
            for found in page.alerts:
                yield found
            if not (token := page.next_page_token):
                return

    async def forecast(
        self, window: cost_pb2.BudgetWindow.ValueType = cost_pb2.BUDGET_WINDOW_MONTH
    ) -> report_service_pb2.ForecastCostResponse:
        """What will have been spent at the end of the day or month."""
        request = report_service_pb2.ForecastCostRequest(window=window)
        return await unary(self._reports.ForecastCost(request, **self._call()))

    async def export(self, *, form: str = "csv", since: datetime | None = None) -> AsyncIterator[bytes]:
        """The ledger as a file in pieces: "csv", "jsonl" or "parquet"; of the last 31 days without `since`."""
        request = report_service_pb2.ExportCostEventsRequest(format=form, start_time=_stamp(since))
        async for piece in stream(self._reports.ExportCostEvents(request, **self._call(timeout=None))):
            yield piece.data


def _stamp(at: datetime | None) -> Timestamp | None:
    if at is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(at)
    return stamp
