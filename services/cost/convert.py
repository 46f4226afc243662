"""Between the contract and the ledger: parses, rejects, answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from agentnet.common.v1 import usage_pb2
from agentnet.cost.v1 import cost_pb2
from agentnet.cost.v1 import cost_service_pb2 as pb
from services.cost.ledger import Call
from services.cost.prices import Price, Usage
from services.cost.store import Budget, CostEvent, Filter, Lease, Summary
from shared import fields
from shared.errors import InvalidArgument
from shared.paging import Page, next_page_token, page

_MAX_TOKENS: Final = 2_000_000_000
_MAX_MICROS: Final = 10**15
_GROUPS: Final = ("provider", "model", "agent", "session", "day")
_MAX_GROUPS: Final = 3
_ORDERS: Final = {"": True, "create_time desc": True, "create_time": False}


@dataclass(frozen=True, slots=True)
class Listing:
    """A parsed list request."""

    chosen: Filter
    page: Page
    scope: str
    group_by: tuple[str, ...] = ()
    newest_first: bool = True


def call(request: pb.ReserveRequest | pb.SettleRequest) -> Call:
    return Call(
        generation_id=fields.identifier(request.generation_id, "generation_id"),
        provider=fields.required(request.provider, "provider", limit=64),
        model=fields.required(request.model, "model", limit=128),
        session_id=fields.text(request.session_id, "session_id", limit=64),
        agent=fields.text(request.agent, "agent", limit=100),
    )


def tokens(value: int, field: str, *, low: int = 0) -> int:
    return int(fields.within(value, field, low=low, high=_MAX_TOKENS))


def usage(message: usage_pb2.Usage) -> Usage:
    read = Usage(
        input_tokens=tokens(message.input_tokens, "usage.input_tokens"),
        output_tokens=tokens(message.output_tokens, "usage.output_tokens"),
        cached_input_tokens=tokens(message.cached_input_tokens, "usage.cached_input_tokens"),
        reasoning_tokens=tokens(message.reasoning_tokens, "usage.reasoning_tokens"),
        estimated=message.estimated,
    )
    if read.cached_input_tokens > read.input_tokens:
        raise InvalidArgument("cached_input_tokens are among input_tokens", field="usage.cached_input_tokens")
    return read


def limit(request: pb.SetBudgetRequest) -> int:
    return int(fields.within(request.limit_micros_usd, "limit_micros_usd", low=0, high=_MAX_MICROS))


def summarize(request: pb.SummarizeCostRequest) -> Listing:
    names = tuple(name.strip() for name in request.group_by.split(",") if name.strip())
    unknown = [name for name in names if name not in _GROUPS]
    if unknown or len(names) > _MAX_GROUPS:
        raise InvalidArgument(f"group_by takes at most {_MAX_GROUPS} of {', '.join(_GROUPS)}", field="group_by")
    chosen = Filter(_instant(request, "start_time"), _instant(request, "end_time"), request.session_id)
    scope = f"summary|{chosen}|{names}"
    return Listing(chosen, page(request.page_size, request.page_token, scope=scope), scope, group_by=names)


def list_events(request: pb.ListCostEventsRequest) -> Listing:
    if request.order_by not in _ORDERS:
        raise InvalidArgument("order_by is create_time or create_time desc", field="order_by")
    chosen = Filter(session_id=request.session_id, model=request.model)
    scope = f"events|{chosen}|{request.order_by}"
    paging = page(request.page_size, request.page_token, scope=scope)
    return Listing(chosen, paging, scope, newest_first=_ORDERS[request.order_by])


def reserve_response(lease: Lease, price: Price) -> pb.ReserveResponse:
    return pb.ReserveResponse(
        lease=_lease(lease), input_micros_usd_per_million=price.input, output_micros_usd_per_million=price.output
    )


def extend_response(lease: Lease) -> pb.ExtendLeaseResponse:
    return pb.ExtendLeaseResponse(lease=_lease(lease))


def settle_response(event: CostEvent) -> pb.SettleResponse:
    return pb.SettleResponse(cost_event=_event(event))


def summarize_response(found: Sequence[Summary], asked: Listing) -> pb.SummarizeCostResponse:
    shown = found[: asked.page.size]
    skipped = int(asked.page.cursor[0]) if asked.page.cursor else 0
    more = (str(skipped + len(shown)),) if len(found) > len(shown) else None
    return pb.SummarizeCostResponse(
        summaries=[
            pb.CostSummary(
                group=dict(zip(asked.group_by, entry.group, strict=True)),
                micros_usd=entry.micros_usd,
                input_tokens=entry.input_tokens,
                output_tokens=entry.output_tokens,
                generations=entry.generations,
            )
            for entry in shown
        ],
        next_page_token=next_page_token(more, scope=asked.scope),
    )


def events_response(found: Sequence[CostEvent], asked: Listing) -> pb.ListCostEventsResponse:
    shown = found[: asked.page.size]
    more = (shown[-1].created_at.isoformat(), shown[-1].id) if len(found) > len(shown) else None
    return pb.ListCostEventsResponse(
        cost_events=[_event(event) for event in shown], next_page_token=next_page_token(more, scope=asked.scope)
    )


def budget(found: Budget) -> cost_pb2.Budget:
    return cost_pb2.Budget(
        id=found.id,
        limit_micros_usd=found.limit,
        settled_micros_usd=found.settled,
        leased_micros_usd=found.leased,
        update_time=_time(found.updated_at),
    )


def _lease(lease: Lease) -> cost_pb2.Lease:
    return cost_pb2.Lease(
        generation_id=lease.generation_id, micros_usd=lease.micros_usd, expire_time=_time(lease.expires_at)
    )


def _event(event: CostEvent) -> cost_pb2.CostEvent:
    return cost_pb2.CostEvent(
        id=event.id,
        generation_id=event.generation_id,
        session_id=event.session_id,
        agent=event.agent,
        usage=usage_pb2.Usage(
            input_tokens=event.usage.input_tokens,
            output_tokens=event.usage.output_tokens,
            cached_input_tokens=event.usage.cached_input_tokens,
            reasoning_tokens=event.usage.reasoning_tokens,
            estimated=event.usage.estimated,
        ),
        cost=usage_pb2.Cost(
            micros_usd=event.micros_usd, provider=event.provider, model=event.model, price_version=event.price_version
        ),
        create_time=_time(event.created_at),
    )


def _instant(request: pb.SummarizeCostRequest, name: str) -> datetime | None:
    if name == "start_time":
        return request.start_time.ToDatetime(UTC) if request.HasField("start_time") else None
    return request.end_time.ToDatetime(UTC) if request.HasField("end_time") else None


def _time(value: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(value)
    return stamp
