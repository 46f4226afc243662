"""Between the contract and the ledger: parses, rejects, answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from agentnet.common.v1 import usage_pb2
from agentnet.cost.v1 import cost_pb2
from agentnet.cost.v1 import cost_service_pb2 as pb
from services.cost.budget import Passed, Path, SoftAction
from services.cost.ledger import Reserved
from services.cost.prices import Rates, Usage
from services.cost.report_store import Alert
from services.cost.store import Call, CostEvent, Filter, Lease, Outcome, Summary
from shared import fields
from shared.errors import InvalidArgument
from shared.identity import Principal
from shared.paging import Page, next_page_token, page

_MAX_TOKENS: Final = 2_000_000_000
_MAX_IMAGES: Final = 1_000_000
_MAX_ATTEMPTS: Final = 100
_LATEST: Final = timedelta(days=35)
_SKEW: Final = timedelta(minutes=1)
_GROUPS: Final = ("provider", "model", "agent", "session", "team", "user", "hour", "day")
_MAX_GROUPS: Final = 3
_ORDERS: Final = {"": True, "create_time desc": True, "create_time": False}
_OUTCOMES: Final = {
    cost_pb2.OUTCOME_UNSPECIFIED: Outcome.COMPLETED,
    cost_pb2.OUTCOME_COMPLETED: Outcome.COMPLETED,
    cost_pb2.OUTCOME_CANCELLED: Outcome.CANCELLED,
    cost_pb2.OUTCOME_FAILED_OVER: Outcome.FAILED_OVER,
    cost_pb2.OUTCOME_CUT: Outcome.CUT,
    cost_pb2.OUTCOME_STOPPED: Outcome.STOPPED,
}
_TO_OUTCOME: Final = {value: key for key, value in _OUTCOMES.items()}
TO_ACTION: Final = {
    SoftAction.ALERT: cost_pb2.SOFT_ACTION_ALERT,
    SoftAction.DOWNGRADE: cost_pb2.SOFT_ACTION_DOWNGRADE,
    SoftAction.ASK: cost_pb2.SOFT_ACTION_ASK,
}


@dataclass(frozen=True, slots=True)
class Listing:
    """A parsed list request."""

    chosen: Filter
    page: Page
    scope: str
    group_by: tuple[str, ...] = ()
    newest_first: bool = True


def reserved_call(request: pb.ReserveRequest, caller: Principal) -> Call:
    return _call(request, caller)


def settled_call(request: pb.SettleRequest, caller: Principal) -> Call:
    if request.outcome not in _OUTCOMES:
        raise InvalidArgument(f"outcome is one of {', '.join(Outcome)}", field="outcome")
    return _call(
        request,
        caller,
        turn_id=fields.text(request.turn_id, "turn_id", limit=64),
        attempt=int(fields.within(request.attempt, "attempt", low=0, high=_MAX_ATTEMPTS)),
        outcome=_OUTCOMES[request.outcome],
    )


def _call(
    request: pb.ReserveRequest | pb.SettleRequest,
    caller: Principal,
    *,
    turn_id: str = "",
    attempt: int = 0,
    outcome: Outcome = Outcome.COMPLETED,
) -> Call:
    path = Path(
        team=fields.text(request.team, "team", limit=100),
        user=fields.text(request.user, "user", limit=255) or caller.subject,
        agent=fields.text(request.agent, "agent", limit=100),
        session_id=fields.text(request.session_id, "session_id", limit=64),
        sub_agent=fields.text(request.sub_agent, "sub_agent", limit=255),
        purses=caller.grant.purses if caller.grant else (),
    )
    return Call(
        generation_id=fields.identifier(request.generation_id, "generation_id"),
        provider=fields.required(request.provider, "provider", limit=64),
        model=fields.required(request.model, "model", limit=128),
        path=path,
        turn_id=turn_id,
        attempt=attempt,
        outcome=outcome,
        tier=fields.text(request.tier, "tier", limit=32),
        region=fields.text(request.region, "region", limit=64),
    )


def wanted_usage(request: pb.ReserveRequest) -> Usage:
    """What is to be set aside for."""
    least = 0 if request.HasField("metered") else 1
    said = tokens(request.output_tokens, "output_tokens", low=least)
    wanted = _metered(request.metered, Usage(tokens(request.input_tokens, "input_tokens"), said))
    if wanted.cache_write_tokens > wanted.input_tokens:
        raise InvalidArgument("cache_write_tokens are among input_tokens", field="metered.cache_write_tokens")
    return wanted


def tokens(value: int, field: str, *, low: int = 0) -> int:
    return int(fields.within(value, field, low=low, high=_MAX_TOKENS))


def used(request: pb.SettleRequest) -> Usage:
    """What was used."""
    message = request.usage
    read = Usage(
        input_tokens=tokens(message.input_tokens, "usage.input_tokens"),
        output_tokens=tokens(message.output_tokens, "usage.output_tokens"),
        cached_input_tokens=tokens(message.cached_input_tokens, "usage.cached_input_tokens"),
        reasoning_tokens=tokens(message.reasoning_tokens, "usage.reasoning_tokens"),
        estimated=message.estimated,
    )
    read = _metered(request.metered, read)
    if read.cached_input_tokens + read.cache_write_tokens > read.input_tokens:
        raise InvalidArgument(
            "cached_input_tokens and cache_write_tokens are among input_tokens", field="usage.cached_input_tokens"
        )
    if read.reasoning_tokens > read.output_tokens:
        raise InvalidArgument("reasoning_tokens are among output_tokens", field="usage.reasoning_tokens")
    return read


def _metered(message: cost_pb2.Metered, usage: Usage) -> Usage:
    return Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cached_input_tokens=usage.cached_input_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        estimated=usage.estimated,
        cache_write_tokens=tokens(message.cache_write_tokens, "metered.cache_write_tokens"),
        images=int(fields.within(message.images, "metered.images", low=0, high=_MAX_IMAGES)),
        audio_input_tokens=tokens(message.audio_input_tokens, "metered.audio_input_tokens"),
        audio_output_tokens=tokens(message.audio_output_tokens, "metered.audio_output_tokens"),
        embedding_tokens=tokens(message.embedding_tokens, "metered.embedding_tokens"),
    )


def ended_at(request: pb.SettleRequest, now: datetime) -> datetime | None:
    """When the attempt ended; a clock that is a little fast is forgiven."""
    if not request.HasField("end_time"):
        return None
    at = instant(request.end_time, "end_time")
    if not now - _LATEST <= at <= now + _SKEW:
        raise InvalidArgument("end_time must be in the last 35 days", field="end_time")
    return min(at, now)


def summarize(request: pb.SummarizeCostRequest) -> Listing:
    names = tuple(name.strip() for name in request.group_by.split(",") if name.strip())
    unknown = [name for name in names if name not in _GROUPS]
    if unknown or len(names) > _MAX_GROUPS or len(set(names)) < len(names):
        raise InvalidArgument(f"group_by takes at most {_MAX_GROUPS} of {', '.join(_GROUPS)}", field="group_by")
    start = instant(request.start_time, "start_time") if request.HasField("start_time") else None
    end = instant(request.end_time, "end_time") if request.HasField("end_time") else None
    if start and end and end <= start:
        raise InvalidArgument("end_time must be after start_time", field="end_time")
    chosen = replace(_chosen(request), start=start, end=end)
    scope = f"summary|{chosen}|{names}"
    return Listing(chosen, page(request.page_size, request.page_token, scope=scope), scope, group_by=names)


def _chosen(request: pb.SummarizeCostRequest | pb.ListCostEventsRequest) -> Filter:
    return Filter(
        session_id=fields.text(request.session_id, "session_id", limit=64),
        model=fields.text(request.model, "model", limit=128),
        provider=fields.text(request.provider, "provider", limit=64),
        agent=fields.text(request.agent, "agent", limit=100),
        team=fields.text(request.team, "team", limit=100),
        user=fields.text(request.user, "user", limit=255),
    )


def list_events(request: pb.ListCostEventsRequest) -> Listing:
    if request.order_by not in _ORDERS:
        raise InvalidArgument("order_by is create_time or create_time desc", field="order_by")
    chosen = _chosen(request)
    scope = f"events|{chosen}|{request.order_by}"
    paging = page(request.page_size, request.page_token, scope=scope)
    return Listing(chosen, paging, scope, newest_first=_ORDERS[request.order_by])


def reserve_response(reserved: Reserved) -> pb.ReserveResponse:
    return pb.ReserveResponse(
        lease=_lease(reserved.lease),
        input_micros_usd_per_million=reserved.rates.input,
        output_micros_usd_per_million=reserved.rates.output,
        metered_prices=_metered_prices(reserved.rates),
        notices=[*map(_notice, reserved.passed), *map(_asked, reserved.alerts)],
    )


def _metered_prices(rates: Rates) -> cost_pb2.MeteredPrices:
    return cost_pb2.MeteredPrices(
        audio_input_micros_usd_per_million=rates.audio_input,
        audio_output_micros_usd_per_million=rates.audio_output,
        embedding_micros_usd_per_million=rates.embedding,
        image_micros_usd=rates.image,
    )


def extend_response(lease: Lease, passed: Sequence[Passed]) -> pb.ExtendLeaseResponse:
    return pb.ExtendLeaseResponse(lease=_lease(lease), notices=[_notice(one) for one in passed])


def settle_response(event: CostEvent) -> pb.SettleResponse:
    return pb.SettleResponse(cost_event=cost_event(event))


def summarize_response(found: Sequence[Summary], asked: Listing) -> pb.SummarizeCostResponse:
    shown = found[: asked.page.size]
    more = (str(asked.page.skip + len(shown)),) if len(found) > len(shown) else None
    return pb.SummarizeCostResponse(
        summaries=[
            pb.CostSummary(
                group=dict(zip(asked.group_by, entry.group, strict=True)),
                micros_usd=entry.micros_usd,
                input_tokens=entry.input_tokens,
                output_tokens=entry.output_tokens,
                cached_input_tokens=entry.cached_input_tokens,
                reasoning_tokens=entry.reasoning_tokens,
                generations=entry.generations,
                estimated=entry.estimated,
            )
            for entry in shown
        ],
        next_page_token=next_page_token(more, scope=asked.scope),
    )


def events_response(found: Sequence[CostEvent], asked: Listing) -> pb.ListCostEventsResponse:
    shown = found[: asked.page.size]
    more = (shown[-1].created_at.isoformat(), shown[-1].id) if len(found) > len(shown) else None
    return pb.ListCostEventsResponse(
        cost_events=[cost_event(event) for event in shown], next_page_token=next_page_token(more, scope=asked.scope)
    )


def cost_event(event: CostEvent) -> cost_pb2.CostEvent:
    call, usage = event.call, event.usage
    return cost_pb2.CostEvent(
        id=event.id,
        generation_id=call.generation_id,
        session_id=call.path.session_id,
        agent=call.path.agent,
        usage=usage_pb2.Usage(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cached_input_tokens=usage.cached_input_tokens,
            reasoning_tokens=usage.reasoning_tokens,
            estimated=usage.estimated,
        ),
        cost=usage_pb2.Cost(
            micros_usd=event.micros_usd, provider=call.provider, model=call.model, price_version=event.price_version
        ),
        create_time=time(event.created_at),
        team=call.path.team,
        user=call.path.user,
        sub_agent=call.path.sub_agent,
        turn_id=call.turn_id,
        attempt=call.attempt,
        outcome=_TO_OUTCOME[call.outcome],
        metered=_to_metered(usage),
        tier=call.tier,
        region=call.region,
        price_estimated=event.price_estimated,
    )


def instant(stamp: Timestamp, field: str) -> datetime:
    """An instant of the years 1970 to 9998."""
    if not 0 <= stamp.seconds < 253_370_764_800:  # noqa: PLR2004 - the first second of the year 9999
        raise InvalidArgument(f"{field} must be from the year 1970 to 9998", field=field)
    return stamp.ToDatetime(UTC)


def time(value: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(value)
    return stamp


def _to_metered(usage: Usage) -> cost_pb2.Metered | None:
    found = cost_pb2.Metered(
        images=usage.images,
        audio_input_tokens=usage.audio_input_tokens,
        audio_output_tokens=usage.audio_output_tokens,
        embedding_tokens=usage.embedding_tokens,
        cache_write_tokens=usage.cache_write_tokens,
    )
    return found if found.ByteSize() else None


def _lease(lease: Lease) -> cost_pb2.Lease:
    return cost_pb2.Lease(
        generation_id=lease.generation_id, micros_usd=lease.micros_usd, expire_time=time(lease.expires_at)
    )


def _notice(passed: Passed) -> cost_pb2.Notice:
    action = passed.action or SoftAction.ALERT
    return cost_pb2.Notice(
        action=TO_ACTION[action],
        budget_id=passed.budget_id,
        explanation=f"{passed.scope} is beyond its soft limit of {passed.amount} micro-USD ({passed.window})",
    )


def _asked(alert: Alert) -> cost_pb2.Notice:
    return cost_pb2.Notice(action=TO_ACTION[alert.action], alert_id=alert.id, explanation=alert.explanation)
