"""CostService: convert in, one call of the ledger, convert out."""

from __future__ import annotations

from typing import Any

from agentnet.cost.v1 import cost_service_pb2 as pb
from agentnet.cost.v1 import cost_service_pb2_grpc as rpc
from services.cost import convert, convert_budget
from services.cost.budgets import Budgets
from services.cost.ledger import Ledger
from services.cost.metrics import SpendMeter
from services.cost.watch import Watch
from shared import fields
from shared.clock import Clock
from shared.identity import current


class CostService(rpc.CostServiceServicer):
    """Can we afford it?"""

    def __init__(self, ledger: Ledger, budgets: Budgets, meter: SpendMeter, watch: Watch, clock: Clock) -> None:
        self._ledger = ledger
        self._budgets = budgets
        self._meter = meter
        self._watch = watch
        self._clock = clock

    async def Reserve(self, request: pb.ReserveRequest, context: Any) -> pb.ReserveResponse:
        caller = current()
        call, usage = convert.reserved_call(request, caller), convert.wanted_usage(request)
        self._watch.seen(caller.tenant_id)
        return convert.reserve_response(await self._ledger.reserve(caller.tenant_id, call, usage))

    async def ExtendLease(self, request: pb.ExtendLeaseRequest, context: Any) -> pb.ExtendLeaseResponse:
        generation = fields.identifier(request.generation_id, "generation_id")
        covered = convert.tokens(request.output_tokens, "output_tokens")
        lease, passed = await self._ledger.extend(current().tenant_id, generation, output_tokens=covered)
        return convert.extend_response(lease, passed)

    async def Settle(self, request: pb.SettleRequest, context: Any) -> pb.SettleResponse:
        caller = current()
        call, usage = convert.settled_call(request, caller), convert.used(request)
        ended_at = convert.ended_at(request, self._clock.now())
        settled = await self._ledger.settle(caller.tenant_id, call, usage, ended_at=ended_at)
        self._meter.settled(caller.tenant_id, settled)
        self._watch.seen(caller.tenant_id)
        return convert.settle_response(settled.event)

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
        found = await self._budgets.get(current().tenant_id, *convert_budget.which(request))
        return pb.GetBudgetResponse(budget=convert_budget.budget(found, self._clock.now()))

    async def SetBudget(self, request: pb.SetBudgetRequest, context: Any) -> pb.SetBudgetResponse:
        found = await self._budgets.set(current().tenant_id, convert_budget.limits(request))
        return pb.SetBudgetResponse(budget=convert_budget.budget(found, self._clock.now()))
