"""CostService: convert in, one call of the ledger, convert out."""

from __future__ import annotations

from typing import Any

from agentnet.cost.v1 import cost_service_pb2 as pb
from agentnet.cost.v1 import cost_service_pb2_grpc as rpc
from services.cost import convert
from services.cost.ledger import Ledger
from shared import fields
from shared.identity import current
from shared.telemetry import meter

_spent = meter.create_counter("cost_usd_total", unit="USD", description="money settled, by provider, model and tenant")


class CostService(rpc.CostServiceServicer):
    """Can we afford it?"""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def Reserve(self, request: pb.ReserveRequest, context: Any) -> pb.ReserveResponse:
        lease, price = await self._ledger.reserve(
            current().tenant_id,
            convert.call(request),
            input_tokens=convert.tokens(request.input_tokens, "input_tokens"),
            output_tokens=convert.tokens(request.output_tokens, "output_tokens", low=1),
        )
        return convert.reserve_response(lease, price)

    async def ExtendLease(self, request: pb.ExtendLeaseRequest, context: Any) -> pb.ExtendLeaseResponse:
        generation = fields.identifier(request.generation_id, "generation_id")
        covered = convert.tokens(request.output_tokens, "output_tokens")
        lease = await self._ledger.extend(current().tenant_id, generation, output_tokens=covered)
        return convert.extend_response(lease)

    async def Settle(self, request: pb.SettleRequest, context: Any) -> pb.SettleResponse:
        tenant = current().tenant_id
        event = await self._ledger.settle(tenant, convert.call(request), convert.usage(request.usage))
        labels = {"provider": event.provider, "model": event.model, "tenant": tenant}
        _spent.add(event.micros_usd / 1_000_000, labels)
        return convert.settle_response(event)

    async def SummarizeCost(self, request: pb.SummarizeCostRequest, context: Any) -> pb.SummarizeCostResponse:
        asked = convert.summarize(request)
        found = await self._ledger.summarize(
            current().tenant_id, asked.chosen, group_by=asked.group_by, page=asked.page
        )
        return convert.summarize_response(found, asked)

    async def ListCostEvents(self, request: pb.ListCostEventsRequest, context: Any) -> pb.ListCostEventsResponse:
        asked = convert.list_events(request)
        found = await self._ledger.events(
            current().tenant_id, asked.chosen, newest_first=asked.newest_first, page=asked.page
        )
        return convert.events_response(found, asked)

    async def GetBudget(self, request: pb.GetBudgetRequest, context: Any) -> pb.GetBudgetResponse:
        return pb.GetBudgetResponse(budget=convert.budget(await self._ledger.budget(current().tenant_id)))

    async def SetBudget(self, request: pb.SetBudgetRequest, context: Any) -> pb.SetBudgetResponse:
        budget = await self._ledger.set_budget(current().tenant_id, convert.limit(request))
        return pb.SetBudgetResponse(budget=convert.budget(budget))
