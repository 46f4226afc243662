"""Between the contracts of events and webhooks and their domain."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from agentnet.gateway.v1 import agent_event_pb2, event_service_pb2, webhook_pb2, webhook_service_pb2
from services.gateway import convert
from services.gateway.bus.bus import Heard
from services.gateway.bus.event import NAME, PATTERN, Event, Wanted
from services.gateway.bus.store import Delivery, Format, Status, Webhook
from shared import fields
from shared.errors import FieldRequired, InvalidArgument
from shared.paging import Page, next_page_token, page

_MOST_EVENTS: Final = 100
_MOST_NAMES: Final = 64
_DATA: Final = 65_536
_PREFIX: Final = "EVENT_TYPE_"
# "session.started" and SESSION_STARTED are the same; the first underscore is the dot.
_TYPES: Final = {
    name.removeprefix(_PREFIX).lower().replace("_", ".", 1): number
    for name, number in agent_event_pb2.EventType.items()
    if number > agent_event_pb2.EVENT_TYPE_CUSTOM
}
_NAMES: Final = {number: name for name, number in _TYPES.items()}
_FORMATS: Final = {
    Format.CLOUDEVENTS: webhook_pb2.WEBHOOK_FORMAT_CLOUDEVENTS,
    Format.SLACK: webhook_pb2.WEBHOOK_FORMAT_SLACK,
    Format.CRM: webhook_pb2.WEBHOOK_FORMAT_CRM,
    Format.ERROR_TRACKING: webhook_pb2.WEBHOOK_FORMAT_ERROR_TRACKING,
}
_READ_FORMATS: Final = {number: form for form, number in _FORMATS.items()}
_STATUSES: Final = {
    Status.PENDING: webhook_pb2.DELIVERY_STATUS_PENDING,
    Status.DELIVERED: webhook_pb2.DELIVERY_STATUS_DELIVERED,
    Status.DEAD: webhook_pb2.DELIVERY_STATUS_DEAD,
}
_READ_STATUSES: Final = {number: status for status, number in _STATUSES.items()}


def events(request: event_service_pb2.PublishEventsRequest, *, source: str, now: datetime) -> Sequence[Event]:
    if not request.events:
        raise FieldRequired("events")
    fields.at_most(len(request.events), "events", limit=_MOST_EVENTS)
    return [_read(event, f"events[{place}]", source, now) for place, event in enumerate(request.events)]


def _read(message: agent_event_pb2.AgentEvent, place: str, source: str, now: datetime) -> Event:
    name = message.name or _NAMES.get(message.type, "")
    form = "lower-case words joined by dots, as session.started"
    if len(name) > 100:  # noqa: PLR2004 - the contract's
        raise InvalidArgument(f"{place}.name must have at most 100 characters", field=f"{place}.name")
    return Event(
        id=fields.text(message.id, f"{place}.id", limit=100),
        name=fields.matching(name, f"{place}.name", NAME, form=form),
        occurred_at=fields.instant(message.time, f"{place}.time") if message.HasField("time") else now,
        source=source,
        subject=fields.text(message.subject, f"{place}.subject", limit=255),
        session_id=fields.text(message.session_id, f"{place}.session_id", limit=64),
        agent=fields.text(message.agent, f"{place}.agent", limit=200),
        data=fields.mapping(message.data, f"{place}.data", limit=_DATA),
    )


def event_message(event: Event) -> agent_event_pb2.AgentEvent:
    return agent_event_pb2.AgentEvent(
        id=event.id,
        sequence=event.sequence,
        name=event.name,
        type=_TYPES.get(event.name, agent_event_pb2.EVENT_TYPE_CUSTOM),
        time=convert.time(event.occurred_at),
        source=event.source,
        subject=event.subject,
        session_id=event.session_id,
        agent=event.agent,
        data=fields.struct(event.data),
    )


def heard(found: Heard) -> event_service_pb2.SubscribeResponse:
    message = event_message(found.event) if found.event else None
    return event_service_pb2.SubscribeResponse(event=message, last_sequence=found.last_sequence)


def wanted(
    request: event_service_pb2.ListEventsRequest | event_service_pb2.SubscribeRequest,
) -> Wanted:
    return Wanted(patterns(request.names, "names"), fields.text(request.session_id, "session_id", limit=64))


def subscription(request: event_service_pb2.SubscribeRequest) -> int | None:
    """The place to start after; None for now."""
    if not request.HasField("after_sequence"):
        return None
    return int(fields.within(request.after_sequence, "after_sequence", low=0, high=2**62))


def event_page(request: event_service_pb2.ListEventsRequest) -> tuple[Wanted, int, int, str]:
    """What to list, after which sequence, how many, and the list's name."""
    base = wanted(request)
    asked = Wanted(
        base.names,
        base.session_id,
        start=fields.instant(request.start_time, "start_time") if request.HasField("start_time") else None,
        end=fields.instant(request.end_time, "end_time") if request.HasField("end_time") else None,
    )
    scope = f"events|{asked}"
    paging = page(request.page_size, request.page_token, scope=scope)
    return asked, paging.skip, paging.size, scope


def events_response(found: Sequence[Event], size: int, scope: str) -> event_service_pb2.ListEventsResponse:
    shown = found[:size]
    more = (str(shown[-1].sequence),) if len(found) > len(shown) else None
    return event_service_pb2.ListEventsResponse(
        events=[event_message(one) for one in shown], next_page_token=next_page_token(more, scope=scope)
    )


def patterns(names: Sequence[str], field: str) -> tuple[str, ...]:
    fields.at_most(len(names), field, limit=_MOST_NAMES)
    form = 'an event\'s name, one that ends in ".*", or "*"'
    return tuple(fields.matching(name, field, PATTERN, form=form) for name in names)


def webhook(message: webhook_pb2.Webhook, now: datetime) -> Webhook:
    if not message.event_names:
        raise FieldRequired("webhook.event_names")
    return Webhook(
        id=message.id,
        url=fields.required(message.url, "webhook.url", limit=2048),
        display_name=fields.text(message.display_name, "webhook.display_name", limit=100),
        event_names=patterns(message.event_names, "webhook.event_names"),
        format=_READ_FORMATS.get(message.format, Format.CLOUDEVENTS),
        sealed_secret=b"",
        enabled=message.enabled,
        created_at=now,
    )


def webhook_message(found: Webhook) -> webhook_pb2.Webhook:
    return webhook_pb2.Webhook(
        id=found.id,
        url=found.url,
        display_name=found.display_name,
        event_names=found.event_names,
        format=_FORMATS[found.format],
        enabled=found.enabled,
        create_time=convert.time(found.created_at),
    )


def delivery_page(request: webhook_service_pb2.ListDeliveriesRequest) -> tuple[Status | None, Page, str]:
    scope = f"deliveries|{request.webhook_id}|{request.status}"
    return _READ_STATUSES.get(request.status), page(request.page_size, request.page_token, scope=scope), scope


def deliveries_response(
    found: Sequence[Delivery], asked: Page, scope: str
) -> webhook_service_pb2.ListDeliveriesResponse:
    shown = found[: asked.size]
    more = (shown[-1].created_at.isoformat(), shown[-1].id) if len(found) > len(shown) else None
    return webhook_service_pb2.ListDeliveriesResponse(
        deliveries=[delivery_message(one) for one in shown], next_page_token=next_page_token(more, scope=scope)
    )


def delivery_message(found: Delivery) -> webhook_pb2.Delivery:
    message = webhook_pb2.Delivery(
        id=found.id,
        webhook_id=found.webhook_id,
        event_sequence=found.event_sequence,
        event_name=found.event_name,
        status=_STATUSES[found.status],
        attempts=found.attempts,
        last_code=found.last_code,
        last_error=found.last_error,
        create_time=convert.time(found.created_at),
    )
    if found.next_attempt_at:
        message.next_attempt_time.CopyFrom(convert.time(found.next_attempt_at))
    return message
