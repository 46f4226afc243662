"""Between the contract and facts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from agentnet.memory.v1 import fact_pb2
from agentnet.memory.v1 import fact_service_pb2 as pb
from services.memory import convert
from services.memory.fact_store import Fact, FactFilter, Recorded
from services.memory.facts import NewFact
from shared import fields
from shared.clock import Clock
from shared.errors import FieldRequired, InvalidArgument
from shared.paging import Page, next_page_token, page

_SUBJECT: Final = 256
_RELATION: Final = 128
_OBJECT: Final = 4_096
_AT_ONCE: Final = 200


@dataclass(frozen=True, slots=True)
class Listing:
    """A parsed list request."""

    chosen: FactFilter
    page: Page
    scope: str


@dataclass(frozen=True, slots=True)
class Walk:
    """A parsed walk."""

    subject: str
    depth: int
    limit: int


def new_facts(request: pb.RecordFactsRequest) -> list[NewFact]:
    if not request.facts:
        raise FieldRequired("facts")
    fields.at_most(len(request.facts), "facts", limit=_AT_ONCE)
    return [_new_fact(one, f"facts[{at}].", several=request.several) for at, one in enumerate(request.facts)]


def _new_fact(given: fact_pb2.Fact, path: str, *, several: bool) -> NewFact:
    since = convert.moment(given, "valid_from_time", f"{path}valid_from_time")
    until = convert.moment(given, "valid_to_time", f"{path}valid_to_time")
    if since and until and until <= since:
        raise InvalidArgument(f"{path}valid_to_time must be after valid_from_time", field=f"{path}valid_to_time")
    sure = given.confidence if given.HasField("confidence") else 1.0
    return NewFact(
        subject=fields.required(given.subject, f"{path}subject", limit=_SUBJECT),
        relation=fields.required(given.relation, f"{path}relation", limit=_RELATION),
        object=fields.required(given.object, f"{path}object", limit=_OBJECT),
        several=several,
        valid_from=since,
        valid_to=until,
        confidence=fields.within(sure, f"{path}confidence", low=0, high=1),
        session_id=fields.text(given.session_id, f"{path}session_id", limit=convert.NAME),
        turn_id=fields.text(given.turn_id, f"{path}turn_id", limit=convert.NAME),
        agent=fields.text(given.agent, f"{path}agent", limit=convert.NAME),
        policy_version=fields.text(given.policy_version, f"{path}policy_version", limit=convert.NAME),
    )


def recorded(found: Sequence[Recorded]) -> pb.RecordFactsResponse:
    return pb.RecordFactsResponse(
        facts=[fact(one.fact) for one in found], superseded=[fact(old) for one in found for old in one.superseded]
    )


def listing(request: pb.ListFactsRequest, clock: Clock) -> Listing:
    as_of = convert.moment(request, "as_of", "as_of")
    valid_at = convert.moment(request, "valid_time", "valid_time")
    if valid_at is None and not request.history:
        valid_at = as_of or clock.now()
    chosen = FactFilter(
        subject=fields.text(request.subject, "subject", limit=_SUBJECT),
        relation=fields.text(request.relation, "relation", limit=_RELATION),
        object=fields.text(request.object, "object", limit=_OBJECT),
        valid_at=valid_at,
        as_of=as_of,
    )
    # The present moves on from page to page; what was asked for does not.
    asked = (chosen.subject, chosen.relation, chosen.object, as_of, request.history, request.valid_time.ToJsonString())
    scope = f"facts|{asked}"
    return Listing(chosen, page(request.page_size, request.page_token, scope=scope), scope)


def list_response(found: Sequence[Fact], asked: Listing) -> pb.ListFactsResponse:
    shown = found[: asked.page.size]
    more = (str(shown[-1].place),) if len(found) > len(shown) else None
    token = next_page_token(more, scope=asked.scope)
    return pb.ListFactsResponse(facts=[fact(one) for one in shown], next_page_token=token)


def walk(request: pb.ListRelatedFactsRequest) -> Walk:
    return Walk(
        subject=fields.required(request.subject, "subject", limit=_SUBJECT),
        depth=int(fields.within(request.depth or 1, "depth", low=1, high=4)),
        limit=int(fields.within(request.limit or 50, "limit", low=1, high=500)),
    )


def subject(request: pb.ForgetFactsRequest) -> str:
    return fields.required(request.subject, "subject", limit=_SUBJECT)


def fact(found: Fact) -> fact_pb2.Fact:
    message = fact_pb2.Fact(
        id=found.id,
        subject=found.subject,
        relation=found.relation,
        object=found.object,
        valid_from_time=convert.time(found.valid_from),
        create_time=convert.time(found.recorded_at),
        superseded_by=found.superseded_by,
        confidence=found.confidence,
        session_id=found.session_id,
        turn_id=found.turn_id,
        agent=found.agent,
        policy_version=found.policy_version,
    )
    if found.valid_to:
        message.valid_to_time.CopyFrom(convert.time(found.valid_to))
    if found.ended_at:
        message.end_time.CopyFrom(convert.time(found.ended_at))
    return message
