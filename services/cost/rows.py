"""Between rows of the schema `cost` and values of the domain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from asyncpg import Record

from services.cost.budget import Budget, Level, Limits, Passed, Path, SoftAction, Window, each
from services.cost.prices import MILLION, Usage
from services.cost.segments import Segments
from services.cost.store import Ask, Call, CostEvent, Extension, Filter, Lease, Outcome, Taken

# What there are roll-ups of: what was called, or who spent.
_BY_CALL: Final = frozenset({"provider", "model", "agent", "hour", "day"})
_BY_PERSON: Final = frozenset({"team", "user", "hour", "day"})
_DOLLARS: Final = 13  # the place of cost_usd in a row of cost_event


def asked(ask: Ask | Extension) -> Sequence[object]:
    """A `lease_ask`."""
    if isinstance(ask, Extension):
        return ask.generation_id, None, None, None, ask.output_tokens, ask.expires_at
    certain, price = ask.certain_millionths, ask.output_price
    return ask.generation_id, _keys(ask.scopes), certain, price, ask.output_tokens, ask.expires_at


def taken(generation_id: str, row: Record) -> Taken | None:
    """One row of what `take_leases` answers."""
    if row["state"] == "missing":
        return None
    told = [(_passed(one), bool(one["approved"])) for one in row["told"] or ()]
    match row["state"]:
        case "hard":
            return Taken(None, refused_by=next(one for one, _ in told if one.action is None))
        case "ask":
            waiting = (one for one, approved in told if one.action is SoftAction.ASK and not approved)
            return Taken(None, refused_by=next(waiting))
    lease = Lease(generation_id, row["micros"], row["ends_at"])
    return Taken(lease, passed=tuple(one for one, _ in told if one.action is not None))


def settlement(tenant: str, event: CostEvent) -> tuple[Sequence[object], Sequence[str]]:
    """A `settlement`: a row of cost_event in the order of its columns, and the scopes it is counted on."""
    call, usage, path = event.call, event.usage, event.call.path
    row = (
        tenant, event.id, call.generation_id, path.session_id, path.agent, call.provider, call.model,
        usage.input_tokens, usage.output_tokens, usage.cached_input_tokens, usage.reasoning_tokens, usage.estimated,
        event.micros_usd, Decimal(event.micros_usd) / MILLION, event.price_version, event.created_at,
        path.team, path.user, path.sub_agent, call.turn_id, call.attempt, call.outcome, call.tier, call.region,
        usage.cache_write_tokens, usage.images, usage.audio_input_tokens, usage.audio_output_tokens,
        usage.embedding_tokens, event.price_estimated,
    )  # fmt: skip
    return row, _keys(path.scopes)


def entry_alone(row: Sequence[object]) -> Sequence[object]:
    """The same row for `settle_event`, which makes its dollars of its micro-dollars."""
    return *row[:_DOLLARS], *row[_DOLLARS + 1 :]


def cost_event(row: Record) -> CostEvent:
    path = Path(row["team"], row["user_id"], row["agent_name"], row["session_id"], row["sub_agent"])
    return CostEvent(
        id=row["id"],
        call=Call(
            generation_id=row["generation_id"],
            provider=row["provider"],
            model=row["model"],
            path=path,
            turn_id=row["turn_id"],
            attempt=row["attempt"],
            outcome=Outcome(row["outcome"]),
            tier=row["tier"],
            region=row["region"],
        ),
        usage=Usage(
            input_tokens=row["tokens_input"],
            output_tokens=row["tokens_output"],
            cached_input_tokens=row["tokens_cached_input"],
            reasoning_tokens=row["tokens_reasoning"],
            estimated=row["estimated"],
            cache_write_tokens=row["tokens_cache_write"],
            images=row["images"],
            audio_input_tokens=row["tokens_audio_input"],
            audio_output_tokens=row["tokens_audio_output"],
            embedding_tokens=row["tokens_embedding"],
        ),
        micros_usd=row["cost_micros_usd"],
        price_version=row["price_version"],
        price_estimated=row["price_estimated"],
        created_at=row["created_at"],
    )


def budget(row: Record) -> Budget:
    level, _, name = row["scope"].partition(":")
    counted = row["counted_scope"].partition(":")[2]
    return Budget(
        id=row["id"],
        limits=Limits(
            limit=row["limit_micros_usd"],
            level=Level(level),
            name=name,
            window=Window(row["period"]),
            soft_limit=row["soft_limit_micros_usd"],
            soft_action=SoftAction(row["soft_action"]),
        ),
        settled=row["settled"],
        leased=row["leased"],
        updated_at=row["updated_at"],
        name=counted,
    )


def is_each(limits: Limits) -> bool:
    """Whether the budget is one for each part of its level."""
    return limits.scope == each(limits.scope)


def chosen_by(filters: Filter) -> Sequence[datetime | str | None]:
    """The first eight parameters of every query that filters entries."""
    where = filters.session_id, filters.model, filters.provider, filters.agent, filters.team, filters.user
    return filters.start, filters.end, *where


def summed_by(chosen: Filter, names: Sequence[str], *, entries: bool = False) -> Sequence[object]:
    """The first fourteen parameters of a summary: its segments, what it groups by, its filters, and whether roll-ups
    are those by who spent. `entries`: it is summed from single entries, as it is when it asks about a session, or about
    what was called and who spent at once.
    """
    filters = {
        "provider": chosen.provider, "model": chosen.model, "agent": chosen.agent, "team": chosen.team,
        "user": chosen.user, "session": chosen.session_id,
    }  # fmt: skip
    about = {*names, *(name for name, value in filters.items() if value)}
    if entries or not (about <= _BY_CALL or about <= _BY_PERSON):
        spans = Segments.entries(chosen.start, chosen.end)
    else:
        spans = Segments.of(chosen.start, chosen.end, by_hour="hour" in names)
    return *astuple(spans), list(names), *filters.values(), not about <= _BY_CALL


def _keys(scopes: Sequence[str]) -> Sequence[str]:
    """The scopes, and then in the same order those of the budgets for each of their level."""
    return (*scopes, *map(each, scopes))


def _passed(one: Mapping[str, Any]) -> Passed:
    action = one["action"]
    return Passed(
        one["budget_id"], one["scope"], Window(one["window"]), one["amount"], SoftAction(action) if action else None
    )
