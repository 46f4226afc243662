"""BudgetService and PriceService."""

from __future__ import annotations

from typing import Any

from agentnet.cost.v1 import budget_service_pb2 as pb
from agentnet.cost.v1 import budget_service_pb2_grpc as rpc
from agentnet.cost.v1 import price_service_pb2 as prices_pb
from agentnet.cost.v1 import price_service_pb2_grpc as prices_rpc
from services.cost import convert_budget
from services.cost.budgets import Budgets
from services.cost.price_shelf import PriceShelf
from shared.clock import Clock
from shared.identity import current


class BudgetService(rpc.BudgetServiceServicer):
    """Who may spend how much?"""

    def __init__(self, budgets: Budgets, clock: Clock) -> None:
        self._budgets = budgets
        self._clock = clock

    async def ListBudgets(self, request: pb.ListBudgetsRequest, context: Any) -> pb.ListBudgetsResponse:
        asked = convert_budget.listing(request)
        found = await self._budgets.list(current().tenant_id, asked)
        return convert_budget.list_response(found, asked, self._clock.now())

    async def DeleteBudget(self, request: pb.DeleteBudgetRequest, context: Any) -> pb.DeleteBudgetResponse:
        await self._budgets.delete(current().tenant_id, convert_budget.budget_id(request.id))
        return pb.DeleteBudgetResponse()

    async def ApproveBudget(self, request: pb.ApproveBudgetRequest, context: Any) -> pb.ApproveBudgetResponse:
        ends_at = await self._budgets.approve(current().tenant_id, *convert_budget.approved(request))
        return convert_budget.approve_response(ends_at)


class PriceService(prices_rpc.PriceServiceServicer):
    """What does it cost?"""

    def __init__(self, shelf: PriceShelf) -> None:
        self._shelf = shelf

    async def ImportPrices(
        self, request: prices_pb.ImportPricesRequest, context: Any
    ) -> prices_pb.ImportPricesResponse:
        document = convert_budget.document(request)
        book = await self._shelf.adopt(current().tenant_id, document, validate_only=request.validate_only)
        return convert_budget.import_response(book)

    async def GetPriceBook(
        self, request: prices_pb.GetPriceBookRequest, context: Any
    ) -> prices_pb.GetPriceBookResponse:
        found = await self._shelf.book(current().tenant_id, convert_budget.version(request))
        return convert_budget.book_response(found)
