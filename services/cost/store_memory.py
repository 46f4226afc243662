"""The honest fake: the ledger in dictionaries, with the same answers as Postgres. It sums what Postgres counts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import product

from services.cost.budget import (
    PURSES_LAST,
    Budget,
    Level,
    Limits,
    Passed,
    SoftAction,
    Window,
    counted_each,
    each,
    scope,
)
from services.cost.prices import rounded_up
from services.cost.store import Ask, CostEvent, Extension, Filter, Lease, Settled, StoredBook, Summary, Taken
from shared.identity import Purse
from shared.paging import Page

_FORGET_AFTER = timedelta(days=1)
_LEVELS = tuple(Level)
_MESH = "*"


@dataclass(frozen=True, slots=True)
class _Held:
    """A lease, what it was asked with, and when its money was set aside."""

    ask: Ask
    micros_usd: int
    taken_at: datetime

    def counts(self, scope_key: str, window: Window, *, now: datetime) -> bool:
        """Whether it is set aside in this window of a budget of this scope."""
        mine = scope_key in self.ask.scopes and self.ask.expires_at > now
        return mine and window.bounds(self.taken_at)[0] == window.bounds(now)[0]


@dataclass(slots=True)
class _Budget:
    """A budget, and approvals by scope and window."""

    id: str
    limits: Limits
    set_at: datetime
    updated_at: datetime
    approved: set[tuple[str, datetime]] = field(default_factory=set)

    @property
    def of_purse(self) -> bool:
        return self.limits.level is Level.CREDENTIAL


@dataclass(slots=True)
class _Tenant:
    """All that one tenant has."""

    leases: dict[str, _Held] = field(default_factory=dict)
    events: dict[tuple[str, int], CostEvent] = field(default_factory=dict)
    budgets: dict[tuple[str, Window], _Budget] = field(default_factory=dict)
    books: dict[str, StoredBook] = field(default_factory=dict)

    def settled(self, found: _Budget, scope_key: str, now: datetime) -> int:
        began = found.limits.window.bounds(now)[0]
        if found.limits.scope != scope_key:  # one for each counts from when it was set
            began = max(began, found.set_at)
        mine = (event for event in self.events.values() if scope_key in event.call.path.scopes)
        return sum(event.micros_usd for event in mine if event.created_at >= began)

    def leased(self, window: Window, scope_key: str, now: datetime, *, but: str = "") -> int:
        others = (held for name, held in self.leases.items() if name != but)
        return sum(held.micros_usd for held in others if held.counts(scope_key, window, now=now))

    def on_path(self, scopes: Sequence[str]) -> Iterator[tuple[str, _Budget]]:
        parts = counted_each(scopes)
        for key in scopes:
            names = (key, each(key)) if parts[each(key)] == key else (key,)
            for name, window in product(names, Window):
                if found := self.budgets.get((name, window)):
                    yield key, found


class MemoryCostStore:
    """Everything is gone when the process ends."""

    def __init__(self) -> None:
        self._tenants: defaultdict[str, _Tenant] = defaultdict(_Tenant)

    async def take(self, tenant: str, ask: Ask, *, now: datetime) -> Taken:
        held = self._tenants[tenant].leases.get(ask.generation_id)
        if held and held.ask.expires_at > now:
            return Taken(_lease(held))
        return self._grant(self._tenants[tenant], ask, held, now=now)

    async def extend(self, tenant: str, extension: Extension, *, now: datetime) -> Taken | None:
        held = self._tenants[tenant].leases.get(extension.generation_id)
        if held is None:
            return None
        tokens = max(held.ask.output_tokens, extension.output_tokens)
        ask = replace(held.ask, output_tokens=tokens, expires_at=extension.expires_at)
        return self._grant(self._tenants[tenant], ask, held, now=now)

    async def settle(self, tenant: str, event: CostEvent) -> Settled:
        mine = self._tenants[tenant]
        mine.leases.pop(event.call.generation_id, None)
        first = mine.events.setdefault((event.call.generation_id, event.call.attempt), event)
        return Settled(first, fresh=first is event)

    async def reclaim(self, tenant: str, *, now: datetime) -> int:
        leases = self._tenants[tenant].leases
        ended = {name: held for name, held in leases.items() if held.ask.expires_at <= now}
        leases.update({name: replace(held, micros_usd=0) for name, held in ended.items()})
        for name in [name for name, held in ended.items() if held.ask.expires_at < now - _FORGET_AFTER]:
            del leases[name]
        budgets = self._tenants[tenant].budgets
        for key in [key for key, found in budgets.items() if found.of_purse and found.updated_at < now - PURSES_LAST]:
            del budgets[key]
        return sum(held.micros_usd for held in ended.values())

    async def summarize(self, tenant: str, chosen: Filter, *, group_by: Sequence[str], page: Page) -> Sequence[Summary]:
        sums: dict[tuple[str, ...], Summary] = {}
        for event in self.chosen(tenant, chosen):
            group = tuple(_column(event, name) for name in group_by)
            sums[group] = _added(sums.get(group, Summary(group)), event)
        ordered = sorted(sums.values(), key=lambda found: (-found.micros_usd, found.group))
        return ordered[page.skip : page.skip + page.size + 1]

    async def events(self, tenant: str, chosen: Filter, *, newest_first: bool, page: Page) -> Sequence[CostEvent]:
        found = sorted(self.chosen(tenant, chosen), key=_place, reverse=newest_first)
        at, seen = page.place
        if at:
            last = (at, seen)
            found = [event for event in found if (_place(event) < last if newest_first else _place(event) > last)]
        return found[: page.size + 1]

    async def budget(self, tenant: str, level: Level, name: str, window: Window, *, now: datetime) -> Budget | None:
        mine = self._tenants[tenant]
        found = mine.budgets.get((scope(level, name), window))
        return self._state(mine, found, found.limits.scope, now) if found else None

    async def budgets(self, tenant: str, *, page: Page, now: datetime) -> Sequence[Budget]:
        mine = self._tenants[tenant]
        states = [
            self._state(mine, found, key, now)
            for found in mine.budgets.values()
            for key in self._counted(mine, found, now)
        ]
        states.sort(key=lambda one: (_LEVELS.index(one.limits.level), one.limits.scope, one.limits.window, one.name))
        return states[page.skip : page.skip + page.size + 1]

    async def open_purses(self, tenant: str, purses: Sequence[Purse], *, now: datetime) -> None:
        budgets = self._tenants[tenant].budgets
        for purse in purses:
            limits = Limits(purse.micros_usd, Level.CREDENTIAL, purse.id)
            budgets.setdefault((limits.scope, limits.window), _Budget(f"bud_{purse.id}", limits, now, now))

    async def set_budget(self, tenant: str, budget_id: str, limits: Limits, *, now: datetime) -> Budget:
        mine = self._tenants[tenant]
        key = (limits.scope, limits.window)
        known = mine.budgets.get(key)
        found = replace(known, limits=limits, updated_at=now) if known else _Budget(budget_id, limits, now, now)
        mine.budgets[key] = found
        return self._state(mine, found, limits.scope, now)

    async def delete_budget(self, tenant: str, budget_id: str) -> bool:
        budgets = self._tenants[tenant].budgets
        named = [key for key, found in budgets.items() if found.id == budget_id]
        gone = [key for key in named if not budgets[key].of_purse]
        for key in gone:
            del budgets[key]
        return bool(gone)

    async def approve(self, tenant: str, budget_id: str, name: str, *, now: datetime) -> Window | None:
        budgets = self._tenants[tenant].budgets.values()
        found = next((one for one in budgets if one.id == budget_id), None)
        if found is None:
            return None
        limits = found.limits
        key = scope(limits.level, name) if limits.scope == each(limits.scope) else limits.scope
        found.approved.add((key, limits.window.bounds(now)[0]))
        return limits.window

    async def adopt_prices(self, tenant: str, book: StoredBook) -> None:
        mine = self._tenants[tenant].books
        first = mine.pop(book.version, book)
        mine[book.version] = first

    async def price_book(self, tenant: str, version: str) -> StoredBook | None:
        mine = self._tenants[tenant].books
        if not version:
            return next(reversed(mine.values()), None)
        return mine.get(version) or self._tenants[_MESH].books.get(version)

    def _grant(self, mine: _Tenant, ask: Ask, held: _Held | None, *, now: datetime) -> Taken:
        target = rounded_up(ask.certain_millionths + ask.output_price * ask.output_tokens)
        own = held.micros_usd if held and held.ask.expires_at > now else 0
        passed = []
        for key, found in mine.on_path(ask.scopes):
            limits = found.limits
            others = mine.leased(limits.window, key, now, but=ask.generation_id)
            total = mine.settled(found, key, now) + others + target
            if total > limits.limit:
                if target > own:
                    return Taken(None, Passed(found.id, key, limits.window, limits.limit, None))
            elif limits.soft_limit and total > limits.soft_limit:
                approved = (key, limits.window.bounds(now)[0]) in found.approved
                soft = Passed(found.id, key, limits.window, limits.soft_limit, limits.soft_action)
                passed.append((soft, approved))
        if held is None and target > 0:
            for soft, approved in passed:
                if soft.action is SoftAction.ASK and not approved:
                    return Taken(None, soft)
        mine.leases[ask.generation_id] = granted = _Held(ask, target, now)
        return Taken(_lease(granted), passed=tuple(soft for soft, _ in passed))

    def _state(self, mine: _Tenant, found: _Budget, key: str, now: datetime) -> Budget:
        _, _, name = key.partition(":")
        leased = mine.leased(found.limits.window, key, now)
        return Budget(found.id, found.limits, mine.settled(found, key, now), leased, found.updated_at, name)

    def _counted(self, mine: _Tenant, found: _Budget, now: datetime) -> Sequence[str]:
        """The parts that one budget for each is counted for in this window; itself when there is none."""
        own = found.limits.scope
        if own != each(own):
            return (own,)
        began = max(found.limits.window.bounds(now)[0], found.set_at)
        spent = (event.call.path.scopes for event in mine.events.values() if event.created_at >= began)
        asked = (held.ask.scopes for held in mine.leases.values() if held.taken_at >= began)
        keys = {counted_each(scopes).get(own) for scopes in (*spent, *asked)}
        return sorted(key for key in keys if key) or (own,)

    def chosen(self, tenant: str, chosen: Filter) -> list[CostEvent]:
        """The entries a filter lets through."""
        return [event for event in self._tenants[tenant].events.values() if _matches(event, chosen)]


def _lease(held: _Held) -> Lease:
    return Lease(held.ask.generation_id, held.micros_usd, held.ask.expires_at)


def _matches(event: CostEvent, chosen: Filter) -> bool:
    call = event.call
    return (
        (chosen.start is None or event.created_at >= chosen.start)
        and (chosen.end is None or event.created_at < chosen.end)
        and chosen.session_id in ("", call.path.session_id)
        and chosen.model in ("", call.model)
        and chosen.provider in ("", call.provider)
        and chosen.agent in ("", call.path.agent)
        and chosen.team in ("", call.path.team)
        and chosen.user in ("", call.path.user)
    )


def _added(summary: Summary, event: CostEvent) -> Summary:
    usage = event.usage
    return Summary(
        group=summary.group,
        micros_usd=summary.micros_usd + event.micros_usd,
        input_tokens=summary.input_tokens + usage.input_tokens,
        output_tokens=summary.output_tokens + usage.output_tokens,
        cached_input_tokens=summary.cached_input_tokens + usage.cached_input_tokens,
        reasoning_tokens=summary.reasoning_tokens + usage.reasoning_tokens,
        generations=summary.generations + 1,
        estimated=summary.estimated + usage.estimated,
    )


def _place(event: CostEvent) -> tuple[datetime, str]:
    return event.created_at, event.id


def _column(event: CostEvent, name: str) -> str:
    match name:
        case "day":
            return event.created_at.date().isoformat()
        case "hour":
            return event.created_at.strftime("%Y-%m-%dT%H")
        case "provider" | "model":
            return str(getattr(event.call, name))
        case "session":
            return event.call.path.session_id
        case _:
            return str(getattr(event.call.path, name))
