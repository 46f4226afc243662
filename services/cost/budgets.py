"""Setting, reading, ending and approving budgets."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from services.cost.budget import Budget, Level, Limits, Window
from services.cost.errors import BudgetNotFound
from services.cost.store import CostStore
from shared.clock import Clock
from shared.ids import Ids
from shared.paging import Page


class Budgets:
    """The trees of all tenants, one tenant a call."""

    def __init__(self, store: CostStore, *, clock: Clock, ids: Ids) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids

    async def get(
        self, tenant: str, level: Level = Level.TENANT, name: str = "", window: Window = Window.TOTAL
    ) -> Budget:
        """Raises BudgetNotFound when this part's spending is not limited."""
        found = await self._store.budget(tenant, level, name, window, now=self._clock.now())
        if found is None:
            raise BudgetNotFound("no budget is set; spending is not limited")
        return found

    async def list(self, tenant: str, page: Page) -> Sequence[Budget]:
        """From the whole to the part."""
        return await self._store.budgets(tenant, page=page, now=self._clock.now())

    async def set(self, tenant: str, limits: Limits) -> Budget:
        """Limits what a part of the tenant may spend in a window."""
        return await self._store.set_budget(tenant, self._ids.new("bud"), limits, now=self._clock.now())

    async def delete(self, tenant: str, budget_id: str) -> None:
        """Raises BudgetNotFound."""
        if not await self._store.delete_budget(tenant, budget_id):
            raise BudgetNotFound(f"no budget {budget_id}", budget_id=budget_id)

    async def approve(self, tenant: str, budget_id: str, name: str) -> datetime | None:
        """Lets generations start beyond the soft limit; when that ends. Raises BudgetNotFound."""
        now = self._clock.now()
        window = await self._store.approve(tenant, budget_id, name, now=now)
        if window is None:
            raise BudgetNotFound(f"no budget {budget_id}", budget_id=budget_id)
        return window.bounds(now)[1]
