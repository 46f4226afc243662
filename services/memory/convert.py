"""Between the contract and recall: memories, questions, contexts."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

import numpy as np
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from agentnet.memory.v1 import change_pb2, memory_pb2, recall_pb2
from agentnet.memory.v1 import memory_service_pb2 as pb
from services.memory.errors import EmbeddingWidthInvalid, FilterUnknown
from services.memory.rank import LEARNED, Explanation, Ranked, Taste
from services.memory.recall import Answer, Question
from services.memory.remember import Change, NewMemory
from services.memory.store import WIDTHS, Filter, Memory, MemoryType, Receipt, Said, ShortTermTurn, Vector
from services.memory.tokens import estimate
from shared import fields
from shared.clock import Clock
from shared.errors import FieldRequired, InvalidArgument
from shared.paging import Page, next_page_token, page

CONTENT: Final = 32_768
NAME: Final = 64
_TURN: Final = 131_072
_TAGS: Final = 32
_FILTERS: Final = 16
_IMPORTANCE: Final = 0.5
_FUTURE: Final = timedelta(minutes=1)
_TYPES: Final = {
    memory_pb2.MEMORY_TYPE_EPISODIC: MemoryType.EPISODIC,
    memory_pb2.MEMORY_TYPE_SEMANTIC: MemoryType.SEMANTIC,
    memory_pb2.MEMORY_TYPE_LONG_TERM: MemoryType.LONG_TERM,
}
_KINDS: Final[dict[int, MemoryType]] = {int(key): value for key, value in _TYPES.items()}
TO_TYPE: Final = {value: key for key, value in _TYPES.items()}
_ORDERS: Final = {"": True, "create_time desc": True, "create_time": False}
_FILTER_NAMES: Final = "metadata.<key>, policy_version, turn_id"
_UPDATABLE: Final = ("content", "tags", "metadata", "importance", "expire_time")
# By meaning, by words.
_STRATEGIES: Final = {
    recall_pb2.SEARCH_STRATEGY_UNSPECIFIED: (True, True),
    recall_pb2.SEARCH_STRATEGY_HYBRID: (True, True),
    recall_pb2.SEARCH_STRATEGY_DENSE: (True, False),
    recall_pb2.SEARCH_STRATEGY_LEXICAL: (False, True),
}


@dataclass(frozen=True, slots=True)
class Listing:
    """A parsed list request."""

    chosen: Filter
    page: Page
    scope: str
    newest_first: bool


def new_memory(request: pb.RememberRequest, clock: Clock, *, path: str = "") -> NewMemory:
    """`path` names the entry of a batch, for errors."""
    if request.memory_type == memory_pb2.MEMORY_TYPE_SHORT_TERM:
        raise InvalidArgument("short-term memory is written by AppendTurn", field=f"{path}memory_type")
    happened = _past(moment(request, "create_time", f"{path}create_time"), clock, path)
    ends = moment(request, "expire_time", f"{path}expire_time")
    if ends and ends <= (happened or clock.now()):
        raise InvalidArgument("expire_time must be after create_time", field=f"{path}expire_time")
    return NewMemory(
        content=fields.required(request.content, f"{path}content", limit=CONTENT),
        memory_type=kind_of(request.memory_type, f"{path}memory_type") or MemoryType.EPISODIC,
        agent=fields.text(request.agent, f"{path}agent", limit=NAME),
        session_id=fields.text(request.session_id, f"{path}session_id", limit=NAME),
        turn_id=fields.text(request.turn_id, f"{path}turn_id", limit=NAME),
        tags=tags(request.tags, f"{path}tags"),
        metadata=fields.mapping(request.metadata, f"{path}metadata"),
        importance=_weight(request, path),
        expires_at=ends,
        policy_version=fields.text(request.policy_version, f"{path}policy_version", limit=NAME),
        vector=vector(request.embedding, f"{path}embedding"),
        happened_at=happened,
    )


def change(request: change_pb2.UpdateMemoryRequest) -> Change:
    paths = list(request.update_mask.paths)
    if not paths:
        raise FieldRequired("update_mask")
    for path in paths:
        if path not in _UPDATABLE:
            raise InvalidArgument(f"{path} cannot be changed; {', '.join(_UPDATABLE)} can", field="update_mask")
    given = request.memory
    ends = moment(given, "expire_time", "memory.expire_time")
    return Change(
        content=fields.required(given.content, "memory.content", limit=CONTENT) if "content" in paths else None,
        tags=tags(given.tags, "memory.tags") if "tags" in paths else None,
        metadata=fields.mapping(given.metadata, "memory.metadata") if "metadata" in paths else None,
        importance=_weight(given, "memory.") if "importance" in paths else None,
        expires_at=ends if "expire_time" in paths else None,
        forever="expire_time" in paths and ends is None,
    )


def list_memories(request: pb.ListMemoriesRequest) -> Listing:
    if request.order_by not in _ORDERS:
        raise InvalidArgument("order_by is create_time or create_time desc", field="order_by")
    kind = kind_of(request.memory_type, "memory_type")
    agent = fields.text(request.agent, "agent", limit=NAME)
    chosen = Filter(agent, (kind,) if kind else (), tags(request.tags, "tags"))
    scope = f"memories|{chosen}|{request.order_by}"
    paging = page(request.page_size, request.page_token, scope=scope)
    return Listing(chosen, paging, scope, newest_first=_ORDERS[request.order_by])


def list_response(found: Sequence[Memory], asked: Listing) -> pb.ListMemoriesResponse:
    shown = found[: asked.page.size]
    more = (shown[-1].created_at.isoformat(), shown[-1].id) if len(found) > len(shown) else None
    token = next_page_token(more, scope=asked.scope)
    return pb.ListMemoriesResponse(memories=[memory(one) for one in shown], next_page_token=token)


def question(request: pb.RecallRequest) -> Question:
    if request.strategy not in _STRATEGIES:
        raise InvalidArgument("strategy is not one of SearchStrategy", field="strategy")
    by_meaning, by_words = _STRATEGIES[request.strategy]
    score = fields.within(request.min_score, "min_score", low=0, high=1)
    return Question(
        query=fields.required(request.query, "query", limit=CONTENT),
        chosen=_chosen(request),
        limit=int(fields.within(request.limit or 5, "limit", low=1, high=100)),
        by_meaning=by_meaning,
        by_words=by_words,
        min_score=score or None,
        taste=Taste(
            half_life=half_life(request.half_life, "half_life") if request.HasField("half_life") else None,
            importance_weight=fields.within(request.importance_weight, "importance_weight", low=0, high=1),
            diversity=fields.within(request.diversity, "diversity", low=0, high=1),
        ),
        neighbours=int(fields.within(request.neighbours, "neighbours", low=0, high=5)),
        vector=vector(request.embedding, "embedding"),
    )


def _chosen(request: pb.RecallRequest) -> Filter:
    types = [kind_of(kind, "memory_types") for kind in request.memory_types]
    start, end = moment(request, "start_time", "start_time"), moment(request, "end_time", "end_time")
    if start and end and start >= end:
        raise InvalidArgument("end_time must be after start_time", field="end_time")
    chosen = Filter(
        agent=fields.text(request.agent, "agent", limit=NAME),
        types=tuple(kind for kind in types if kind),
        tags=tags(request.tags, "tags"),
        start=start,
        end=end,
        session=fields.text(request.session_id, "session_id", limit=NAME),
        as_of=moment(request, "as_of", "as_of"),
        min_importance=fields.within(request.min_importance, "min_importance", low=0, high=1),
    )
    return _narrowed(chosen, request.filters)


def _narrowed(chosen: Filter, filters: Mapping[str, str]) -> Filter:
    fields.at_most(len(filters), "filters", limit=_FILTERS)
    metadata = {}
    for key, value in filters.items():
        fields.text(value, f"filters[{key}]", limit=1_024)
        fields.text(key, "filters", limit=256)
        if key == "turn_id":
            chosen = replace(chosen, turn=value)
        elif key == "policy_version":
            chosen = replace(chosen, policy_version=value)
        elif key.startswith("metadata.") and key != "metadata.":
            metadata[key.removeprefix("metadata.")] = value
        else:
            message = f"memories are not filtered by {key}, but by {_FILTER_NAMES}"
            raise FilterUnknown(message, field="filters", filter=key, known=_FILTER_NAMES)
    return replace(chosen, metadata=metadata)


def said(request: pb.AppendTurnRequest) -> Said:
    session_id = fields.identifier(request.session_id, "session_id")
    turn = ShortTermTurn(
        turn_id=fields.identifier(request.turn_id, "turn_id"),
        agent=fields.required(request.agent, "agent", limit=NAME),
        content=fields.text(request.content, "content", limit=_TURN),
    )
    return Said(session_id, turn, request.remember)


def answer(found: Answer, *, explain: bool) -> pb.RecallResponse:
    matches = scored(found.matches)
    for match, one in zip(matches, found.matches, strict=True):
        match.neighbours.extend(memory(near) for near in found.around.get(one.memory.place, ()))
        if explain:
            match.explanation.CopyFrom(_explanation(one.explanation))
    return pb.RecallResponse(
        matches=matches, degraded=found.degraded, coverage=recall_pb2.RecallCoverage(withheld=found.withheld)
    )


def scored(found: Iterable[Ranked]) -> list[pb.ScoredMemory]:
    return [
        pb.ScoredMemory(memory=memory(one.memory), score=min(max(one.score, 0.0), 1.0), relevance=one.relevance)
        for one in found
    ]


def _explanation(found: Explanation) -> recall_pb2.Explanation:
    return recall_pb2.Explanation(
        parts={"base": LEARNED.base, **found.parts},
        cosine=found.cosine,
        bm25=found.bm25,
        matched_terms=found.matched,
        recency=found.recency,
        importance=found.importance,
    )


def memory(found: Memory, *, with_vector: Vector = ()) -> memory_pb2.Memory:
    message = memory_pb2.Memory(
        id=found.id,
        content=found.content,
        memory_type=TO_TYPE[found.memory_type],
        agent=found.agent,
        session_id=found.session_id,
        tags=found.tags,
        metadata=fields.struct(dict(found.metadata)),
        importance=found.importance,
        create_time=time(found.created_at),
        turn_id=found.turn_id,
        policy_version=found.policy_version,
        embedding_model=found.embedding_model,
        embedding_set=found.embedding_set,
        embedding=with_vector,
    )
    if found.expires_at:
        message.expire_time.CopyFrom(time(found.expires_at))
    if found.updated_at:
        message.update_time.CopyFrom(time(found.updated_at))
    return message


def short_term(found: Iterable[ShortTermTurn]) -> list[pb.ShortTermTurn]:
    return [
        pb.ShortTermTurn(
            turn_id=one.turn_id, agent=one.agent, content=one.content, token_count=estimate(one.content),
            create_time=time(one.created_at) if one.created_at else None,
        )
        for one in found
    ]  # fmt: skip


def receipt(found: Receipt) -> change_pb2.ForgetReceipt:
    return change_pb2.ForgetReceipt(
        id=found.id,
        subject_id=found.subject_id,
        content_sha256=found.content_sha256.hex(),
        requested_by=found.requested_by,
        delete_time=time(found.deleted_at),
    )


def time(value: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(value)
    return stamp


def moment(message: object, name: str, field: str) -> datetime | None:
    """An instant, or none where the field is absent."""
    if not message.HasField(name):  # type: ignore[attr-defined] # any message that has the field
        return None
    return fields.instant(getattr(message, name), field)


def half_life(value: Duration, field: str) -> timedelta:
    found = fields.span(value, field)
    if found <= timedelta():
        raise InvalidArgument(f"{field} must be longer than nothing", field=field)
    return found


def kind_of(value: int, field: str) -> MemoryType | None:
    """A type of lasting memory, or none where it is unspecified."""
    if value == memory_pb2.MEMORY_TYPE_UNSPECIFIED:
        return None
    found: MemoryType | None = _KINDS.get(value)
    if found is None:
        raise InvalidArgument(f"{field} must be EPISODIC, SEMANTIC or LONG_TERM", field=field)
    return found


def vector(values: Sequence[float], field: str) -> Vector:
    """A vector of unit length, or none. Half precision must hold it."""
    if not values:
        return ()
    if len(values) not in WIDTHS:
        known = ", ".join(map(str, WIDTHS))
        raise EmbeddingWidthInvalid(
            f"{field} is {len(values)} wide; vectors here are {known} wide",
            field=field,
            width=str(len(values)),
            known=known,
        )
    given = np.array(values, np.float64)
    size = float(given @ given) ** 0.5
    if not 0 < size < float("inf"):
        raise InvalidArgument(f"{field} must have a length and no NaN or Infinity", field=field)
    return array("f", (given / size).astype(np.float32).tobytes())


def tags(found: Sequence[str], field: str) -> tuple[str, ...]:
    fields.at_most(len(found), field, limit=_TAGS)
    each = (fields.required(tag, f"{field}[{place}]", limit=NAME) for place, tag in enumerate(found))
    return tuple(dict.fromkeys(each))


def _weight(given: pb.RememberRequest | memory_pb2.Memory, path: str) -> float:
    if not given.HasField("importance"):
        return _IMPORTANCE
    return fields.within(given.importance, f"{path}importance", low=0, high=1)


def _past(at: datetime | None, clock: Clock, path: str) -> datetime | None:
    if at and at > clock.now() + _FUTURE:
        raise InvalidArgument(f"{path}create_time must not be after now", field=f"{path}create_time")
    return at
