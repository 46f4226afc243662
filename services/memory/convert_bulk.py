"""Between the contract and many memories at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from agentnet.memory.v1 import bulk_service_pb2 as pb
from agentnet.memory.v1 import change_pb2, memory_service_pb2
from services.memory import convert
from services.memory.bounds import Bounds, Kind
from services.memory.consolidate import Consolidated
from services.memory.receipts import ReceiptFilter
from services.memory.remember import NewMemory
from services.memory.retention import KindUsage, Outlived
from services.memory.store import Filter, Memory, MemoryType, Receipt, Usage
from services.memory.upkeep import Pressure, Pruned
from shared import fields
from shared.clock import Clock
from shared.errors import FieldRequired, InvalidArgument
from shared.paging import Page, next_page_token, page

_AT_ONCE: Final = 1_000
_SUBJECT: Final = 256
_SUMMARY: Final = 256
_REEMBEDDED: Final = 200
_KINDS: Final[dict[int, Kind]] = {
    pb.RETAINED_KIND_CONVERSATION: Kind.CONVERSATION,
    pb.RETAINED_KIND_FACT: Kind.FACT,
    pb.RETAINED_KIND_ENDED_FACT: Kind.ENDED_FACT,
}
_TO_KIND: Final = {
    Kind.CONVERSATION: pb.RETAINED_KIND_CONVERSATION,
    Kind.FACT: pb.RETAINED_KIND_FACT,
    Kind.ENDED_FACT: pb.RETAINED_KIND_ENDED_FACT,
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """A parsed retention: of a type of memory or of another kind."""

    of: MemoryType | Kind
    bounds: Bounds


@dataclass(frozen=True, slots=True)
class Consolidation:
    """A parsed request to consolidate."""

    session_id: str
    agent: str
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Listing:
    """A parsed request for receipts."""

    chosen: ReceiptFilter
    page: Page
    scope: str


def new_memories(request: pb.RememberManyRequest, clock: Clock) -> list[NewMemory]:
    if not request.memories:
        raise FieldRequired("memories")
    fields.at_most(len(request.memories), "memories", limit=_AT_ONCE)
    many = [convert.new_memory(one, clock, path=f"memories[{at}].") for at, one in enumerate(request.memories)]
    widths = [len(one.vector) for one in many]
    for at, width in enumerate(widths):
        if width != widths[0]:
            field = f"memories[{at}].embedding"
            raise InvalidArgument("either all memories carry vectors of one width or none does", field=field)
    return many


def remembered(found: Sequence[tuple[Memory, bool]]) -> pb.RememberManyResponse:
    return pb.RememberManyResponse(
        memories=[
            memory_service_pb2.RememberResponse(memory=convert.memory(memory), created=created)
            for memory, created in found
        ]
    )


def forgotten(request: pb.ForgetManyRequest) -> Filter:
    chosen = Filter(
        session=fields.text(request.session_id, "session_id", limit=convert.NAME),
        agent=fields.text(request.agent, "agent", limit=convert.NAME),
        tags=convert.tags(request.tags, "tags"),
        own_only=True,
    )
    if not (chosen.session or chosen.agent or chosen.tags):
        raise FieldRequired("session_id", "name a session, an agent or tags: without, nothing is forgotten")
    return chosen


def receipts(found: Sequence[Receipt], *, more: bool) -> pb.ForgetManyResponse:
    return pb.ForgetManyResponse(receipts=[convert.receipt(one) for one in found], more=more)


def receipt_id(request: change_pb2.GetReceiptRequest) -> str:
    return fields.required(request.receipt_id, "receipt_id", limit=convert.NAME)


def one_receipt(found: Receipt) -> change_pb2.GetReceiptResponse:
    return change_pb2.GetReceiptResponse(receipt=convert.receipt(found))


def list_receipts(request: change_pb2.ListReceiptsRequest) -> Listing:
    chosen = ReceiptFilter(
        fields.text(request.subject_id, "subject_id", limit=convert.NAME),
        fields.text(request.requested_by, "requested_by", limit=_SUBJECT),
    )
    scope = f"receipts|{chosen}"
    return Listing(chosen, page(request.page_size, request.page_token, scope=scope), scope)


def receipt_page(found: Sequence[Receipt], asked: Listing) -> change_pb2.ListReceiptsResponse:
    shown = found[: asked.page.size]
    more = (shown[-1].deleted_at.isoformat(), shown[-1].id) if len(found) > len(shown) else None
    token = next_page_token(more, scope=asked.scope)
    return change_pb2.ListReceiptsResponse(receipts=[convert.receipt(one) for one in shown], next_page_token=token)


def usage(found: Pressure, others: Sequence[KindUsage]) -> pb.GetMemoryUsageResponse:
    return pb.GetMemoryUsageResponse(
        types=[_type_usage(one) for one in found.usage],
        pressure=min(found.share, 1.0),
        throttled=found.throttled,
        limit=found.limit,
        kinds=[_kind_usage(one) for one in others],
    )


def _kind_usage(found: KindUsage) -> pb.KindUsage:
    return pb.KindUsage(
        kind=_TO_KIND[found.kind],
        count=found.kept.count,
        oldest_time=convert.time(found.kept.oldest) if found.kept.oldest else None,
        max_count=found.bounds.at_most,
        max_days=found.bounds.days,
    )


def _type_usage(found: Usage) -> pb.TypeUsage:
    return pb.TypeUsage(
        memory_type=convert.TO_TYPE[found.memory_type],
        memories=found.memories,
        characters=found.characters,
        oldest_time=convert.time(found.oldest) if found.oldest else None,
        max_memories=found.max_memories,
        max_days=found.max_days,
    )


def bounds(request: pb.SetRetentionRequest) -> Wanted:
    kept = Bounds(
        at_most=int(fields.within(request.max_memories, "max_memories", low=0, high=10_000_000)),
        days=int(fields.within(request.max_days, "max_days", low=0, high=36_500)),
    )
    kind = convert.kind_of(request.memory_type, "memory_type")
    if request.kind == pb.RETAINED_KIND_UNSPECIFIED:
        if kind is None:
            raise FieldRequired("memory_type", "memory_type or kind is required: what to bound")
        return Wanted(kind, kept)
    if request.kind not in _KINDS:
        raise InvalidArgument("kind must be CONVERSATION, FACT or ENDED_FACT", field="kind")
    if kind:
        raise InvalidArgument("either memory_type or kind is bounded, not both at once", field="kind")
    return Wanted(_KINDS[request.kind], kept)


def pruned(found: Pruned, others: Outlived) -> pb.PruneMemoriesResponse:
    return pb.PruneMemoriesResponse(
        expired=found.expired, aged=found.aged, crowded_out=found.crowded_out,
        conversations=others.conversations, facts=others.facts,
    )  # fmt: skip


def consolidation(request: pb.ConsolidateMemoriesRequest) -> Consolidation:
    return Consolidation(
        session_id=fields.identifier(request.session_id, "session_id"),
        agent=fields.text(request.agent, "agent", limit=convert.NAME),
        max_tokens=int(fields.within(request.max_tokens or _SUMMARY, "max_tokens", low=1, high=2_048)),
    )


def reembedding(request: pb.ReembedMemoriesRequest) -> int:
    limit = int(fields.within(request.limit or _REEMBEDDED, "limit", low=1, high=_AT_ONCE))
    return 0 if request.dry_run else limit


def consolidated(found: Consolidated) -> pb.ConsolidateMemoriesResponse:
    memory = convert.memory(found.memory) if found.memory else None
    return pb.ConsolidateMemoriesResponse(memory=memory, episodes=found.episodes)
