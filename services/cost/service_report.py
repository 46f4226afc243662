"""ReportService: what the ledger tells."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from google.api import httpbody_pb2

from agentnet.cost.v1 import report_service_pb2 as pb
from agentnet.cost.v1 import report_service_pb2_grpc as rpc
from services.cost import convert_report
from services.cost.report_store import ReportStore
from services.cost.reports import Reports
from shared.clock import Clock
from shared.identity import current


class ReportService(rpc.ReportServiceServicer):
    """Where did it go, and where is it going?"""

    def __init__(self, reports: Reports, store: ReportStore, clock: Clock) -> None:
        self._reports = reports
        self._store = store
        self._clock = clock

    async def GetSpendSeries(self, request: pb.GetSpendSeriesRequest, context: Any) -> pb.GetSpendSeriesResponse:
        chosen = convert_report.series(request, self._clock.now())
        return convert_report.series_response(*await self._reports.series(current().tenant_id, chosen))

    async def ForecastCost(self, request: pb.ForecastCostRequest, context: Any) -> pb.ForecastCostResponse:
        window = convert_report.forecast(request)
        return convert_report.forecast_response(*await self._reports.forecast(current().tenant_id, window))

    async def AnalyzeUsage(self, request: pb.AnalyzeUsageRequest, context: Any) -> pb.AnalyzeUsageResponse:
        asked = convert_report.analysis(request, self._clock.now())
        return convert_report.analysis_response(await self._reports.patterns(current().tenant_id, *asked))

    async def ListAlerts(self, request: pb.ListAlertsRequest, context: Any) -> pb.ListAlertsResponse:
        kind, asked = convert_report.alerts(request)
        found = await self._store.alerts(current().tenant_id, kind, asked)
        return convert_report.alerts_response(found, kind, asked)

    async def ExportCostEvents(
        self, request: pb.ExportCostEventsRequest, context: Any
    ) -> AsyncIterator[httpbody_pb2.HttpBody]:
        chosen, kind = convert_report.export(request, self._clock.now())
        async with aclosing(self._reports.export(current().tenant_id, chosen, kind)) as pieces:
            async for data in pieces:
                yield convert_report.piece(data, kind)
