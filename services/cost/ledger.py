"""The ledger: prices a generation, sets money aside for it, writes it down once, and sums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from services.cost.alerts import AlertBoard
from services.cost.budget import Passed
from services.cost.errors import (
    BudgetApprovalRequired,
    BudgetExhausted,
    CostOverflow,
    LeaseNotFound,
    SettledDifferently,
)
from services.cost.price_shelf import PriceShelf
from services.cost.prices import Rates, Usage, Wanted
from services.cost.report_store import Alert
from services.cost.store import Ask, Call, CostEvent, CostStore, Extension, Filter, Lease, Settled, Summary, Taken
from shared.clock import Clock
from shared.identity import Purse
from shared.ids import Ids
from shared.log import log
from shared.paging import Page

_MOST_MICROS: Final = 10**12 - 1  # cost_usd is numeric(12, 6)
_REMEMBERED: Final = 4096
_WHY: Final = {
    True: "the budget has no room for this call; raise it or wait for calls to settle",
    False: "the budget's soft limit is passed; approve it to go on",
}


@dataclass(frozen=True, slots=True)
class Reserved:
    """A lease, the rates it was reckoned with, soft limits behind it and alerts that ask something."""

    lease: Lease
    rates: Rates
    passed: tuple[Passed, ...]
    alerts: tuple[Alert, ...]


class Ledger:
    """Money of all tenants, one tenant a call."""

    def __init__(
        self, store: CostStore, prices: PriceShelf, board: AlertBoard, *, clock: Clock, ids: Ids, lease_ttl: timedelta
    ) -> None:
        self._store = store
        self._prices = prices
        self._board = board
        self._clock = clock
        self._ids = ids
        self._ttl = lease_ttl
        self._opened: dict[tuple[str, str], None] = {}

    async def reserve(self, tenant: str, call: Call, usage: Usage) -> Reserved:
        """Sets aside what this usage would cost at most.

        Raises PriceNotFound, BudgetExhausted, BudgetApprovalRequired.
        """
        now = self._clock.now()
        listed = await self._prices.of(tenant)
        priced = listed.price(_wanted(call), at=now)
        rates = priced.price.rates_for(usage.input_tokens)
        output_price = max(rates.output, rates.reasoning)
        worst = output_price * usage.output_tokens
        certain = rates.millionths(usage) - rates.output * usage.output_tokens
        _fits((certain + worst) // 1_000_000)
        ask = Ask(
            generation_id=call.generation_id,
            scopes=call.path.scopes,
            certain_millionths=certain,
            output_price=output_price,
            output_tokens=usage.output_tokens,
            expires_at=now + self._ttl,
        )
        await self._open(tenant, call.path.purses, now)
        taken = await self._store.take(tenant, ask, now=now)
        lease = self._granted(tenant, taken, now)
        return Reserved(lease, rates, taken.passed, await self._board.about(tenant, ask.scopes))

    async def extend(self, tenant: str, generation_id: str, *, output_tokens: int) -> tuple[Lease, tuple[Passed, ...]]:
        """Makes the lease cover this many output tokens in all. Raises LeaseNotFound and BudgetExhausted."""
        now = self._clock.now()
        extension = Extension(generation_id, output_tokens, now + self._ttl)
        taken = await self._store.extend(tenant, extension, now=now)
        if taken is None:
            raise LeaseNotFound("no lease is held for this generation", generation_id=generation_id)
        return self._granted(tenant, taken, now), taken.passed

    async def settle(self, tenant: str, call: Call, usage: Usage, *, ended_at: datetime | None = None) -> Settled:
        """Writes the one entry of an attempt. Raises PriceNotFound, CostOverflow and SettledDifferently."""
        at = ended_at or self._clock.now()
        priced = (await self._prices.of(tenant)).price(_wanted(call), at=at)
        event = CostEvent(
            id=self._ids.new("cev"),
            call=call,
            usage=usage,
            micros_usd=_fits(priced.price.of(usage)),
            price_version=priced.version,
            price_estimated=priced.estimated,
            created_at=at,
        )
        settled = await self._store.settle(tenant, event)
        if _numbers(settled.event) != _numbers(event):
            log.warning(
                "ledger.settled_differently",
                tenant=tenant,
                generation_id=call.generation_id,
                attempt=call.attempt,
                settled_micros_usd=settled.event.micros_usd,
                refused_micros_usd=event.micros_usd,
            )
            raise SettledDifferently(
                "the generation is settled with other numbers",
                generation_id=call.generation_id,
                settled_micros_usd=str(settled.event.micros_usd),
            )
        return settled

    async def summarize(self, tenant: str, chosen: Filter, *, group_by: Sequence[str], page: Page) -> Sequence[Summary]:
        """Sums of the ledger, dearest first."""
        return await self._store.summarize(tenant, chosen, group_by=group_by, page=page)

    async def events(self, tenant: str, chosen: Filter, *, newest_first: bool, page: Page) -> Sequence[CostEvent]:
        """Entries of the ledger by time."""
        return await self._store.events(tenant, chosen, newest_first=newest_first, page=page)

    async def _open(self, tenant: str, purses: Sequence[Purse], now: datetime) -> None:
        """Sees that the purses have budgets; of those opened lately it is remembered."""
        new = [purse for purse in purses if (tenant, purse.id) not in self._opened]
        if not new:
            return
        await self._store.open_purses(tenant, new, now=now)
        self._opened.update(dict.fromkeys((tenant, purse.id) for purse in new))
        while len(self._opened) > _REMEMBERED:
            del self._opened[next(iter(self._opened))]

    def _granted(self, tenant: str, taken: Taken, now: datetime) -> Lease:
        if taken.lease:
            if taken.passed:
                self._board.met(tenant, taken.passed)
            return taken.lease
        limit = taken.refused_by
        assert limit is not None  # noqa: S101 - there is no lease because of it
        self._board.met(tenant, [limit])
        _, ends_at = limit.window.bounds(now)
        raise _refusal(limit)(
            _WHY[limit.action is None],
            retry_after=ends_at - now if ends_at else None,
            budget_id=limit.budget_id,
            limit_micros_usd=str(limit.amount),
            scope=limit.scope,
            window=limit.window,
        )


def _refusal(limit: Passed) -> type[BudgetExhausted | BudgetApprovalRequired]:
    return BudgetExhausted if limit.action is None else BudgetApprovalRequired


def _wanted(call: Call) -> Wanted:
    return Wanted(call.provider, call.model, call.tier, call.region)


def _numbers(event: CostEvent) -> tuple[object, ...]:
    """What must be the same when an attempt is settled again."""
    call = event.call
    return call.provider, call.model, call.tier, call.region, event.usage


def _fits(micros: int) -> int:
    if micros > _MOST_MICROS:
        raise CostOverflow(
            "the amount is beyond what one entry of the ledger can hold; split the call",
            field="usage",
            micros_usd=str(micros),
            limit_micros_usd=str(_MOST_MICROS),
        )
    return micros
