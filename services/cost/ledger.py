"""The ledger: prices a generation, sets money aside for it, writes it down once, and sums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from services.cost.errors import BudgetExhausted, BudgetNotFound, LeaseNotFound, SettledDifferently
from services.cost.prices import Price, PriceBook, Usage
from services.cost.store import Budget, CostEvent, CostStore, Filter, Lease, Summary
from shared.clock import Clock
from shared.ids import Ids
from shared.paging import Page


@dataclass(frozen=True, slots=True)
class Call:
    """One generation: who pays whom for what, on whose behalf."""

    generation_id: str
    provider: str
    model: str
    session_id: str = ""
    agent: str = ""


class Ledger:
    """Money of all tenants, one tenant a call."""

    def __init__(self, store: CostStore, prices: PriceBook, *, clock: Clock, ids: Ids, lease_ttl: timedelta) -> None:
        self._store = store
        self._prices = prices
        self._clock = clock
        self._ids = ids
        self._ttl = lease_ttl

    async def reserve(self, tenant: str, call: Call, *, input_tokens: int, output_tokens: int) -> tuple[Lease, Price]:
        """Sets aside what these tokens cost. Raises PriceNotFound and BudgetExhausted."""
        price = self._prices.price(call.provider, call.model)
        held = await self._store.lease(tenant, call.generation_id)
        if held is not None:
            return held, price
        lease = Lease(
            generation_id=call.generation_id,
            provider=call.provider,
            model=call.model,
            input_tokens=input_tokens,
            micros_usd=price.of(Usage(input_tokens, output_tokens)),
            expires_at=self._clock.now() + self._ttl,
        )
        await self._take(tenant, lease)
        return lease, price

    async def extend(self, tenant: str, generation_id: str, *, output_tokens: int) -> Lease:
        """Makes the lease cover this many output tokens in all. Raises LeaseNotFound and BudgetExhausted."""
        held = await self._store.lease(tenant, generation_id)
        if held is None:
            raise LeaseNotFound("no lease is held for this generation", generation_id=generation_id)
        price = self._prices.price(held.provider, held.model)
        needed = price.of(Usage(held.input_tokens, output_tokens))
        expires_at = self._clock.now() + self._ttl
        lease = replace(held, micros_usd=max(held.micros_usd, needed), expires_at=expires_at)
        await self._take(tenant, lease)
        return lease

    async def settle(self, tenant: str, call: Call, usage: Usage) -> CostEvent:
        """Writes the one entry of a generation. Raises PriceNotFound and SettledDifferently."""
        event = CostEvent(
            id=self._ids.new("cev"),
            generation_id=call.generation_id,
            session_id=call.session_id,
            agent=call.agent,
            provider=call.provider,
            model=call.model,
            usage=usage,
            micros_usd=self._prices.price(call.provider, call.model).of(usage),
            price_version=self._prices.version,
            created_at=self._clock.now(),
        )
        written = await self._store.settle(tenant, event)
        if (written.provider, written.model, written.usage) != (call.provider, call.model, usage):
            raise SettledDifferently("the generation is settled with other numbers", generation_id=call.generation_id)
        return written

    async def summarize(self, tenant: str, chosen: Filter, *, group_by: Sequence[str], page: Page) -> Sequence[Summary]:
        """Sums of the ledger, dearest first."""
        return await self._store.summarize(tenant, chosen, group_by=group_by, page=page)

    async def events(self, tenant: str, chosen: Filter, *, newest_first: bool, page: Page) -> Sequence[CostEvent]:
        """Entries of the ledger by time."""
        return await self._store.events(tenant, chosen, newest_first=newest_first, page=page)

    async def budget(self, tenant: str) -> Budget:
        """Raises BudgetNotFound when spending is not limited."""
        found = await self._store.budget(tenant, now=self._clock.now())
        if found is None:
            raise BudgetNotFound("no budget is set; spending is not limited")
        return found

    async def set_budget(self, tenant: str, limit: int) -> Budget:
        """Limits what the tenant may spend in all."""
        return await self._store.set_budget(tenant, self._ids.new("bud"), limit, now=self._clock.now())

    async def _take(self, tenant: str, lease: Lease) -> None:
        if await self._store.reserve(tenant, lease, now=self._clock.now()):
            return
        budget = await self.budget(tenant)
        raise BudgetExhausted(
            "the budget has no room for this call; raise it or wait for calls to settle",
            budget_id=budget.id,
            limit_micros_usd=str(budget.limit),
        )
