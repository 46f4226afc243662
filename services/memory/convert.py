"""Between the contract and recall."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from agentnet.memory.v1 import memory_pb2
from agentnet.memory.v1 import memory_service_pb2 as pb
from services.memory.recall import DEFAULT_MIN_SCORE, Need, NewMemory, TurnContext
from services.memory.store import Filter, Memory, MemoryType, Scored, ShortTermTurn
from shared import fields
from shared.errors import InvalidArgument
from shared.paging import Page, next_page_token, page

_CONTENT: Final = 32_768
_TURN: Final = 131_072
_NAME: Final = 64
_TYPES: Final = {
    memory_pb2.MEMORY_TYPE_EPISODIC: MemoryType.EPISODIC,
    memory_pb2.MEMORY_TYPE_SEMANTIC: MemoryType.SEMANTIC,
    memory_pb2.MEMORY_TYPE_LONG_TERM: MemoryType.LONG_TERM,
}
_TO_TYPE: Final = {value: key for key, value in _TYPES.items()}
_ORDERS: Final = {"": True, "create_time desc": True, "create_time": False}


@dataclass(frozen=True, slots=True)
class Listing:
    """A parsed list request."""

    chosen: Filter
    page: Page
    scope: str
    newest_first: bool


@dataclass(frozen=True, slots=True)
class Question:
    """A parsed recall."""

    query: str
    chosen: Filter
    min_score: float
    limit: int


def new_memory(request: pb.RememberRequest) -> NewMemory:
    if request.memory_type == memory_pb2.MEMORY_TYPE_SHORT_TERM:
        raise InvalidArgument("short-term memory is written by AppendTurn", field="memory_type")
    return NewMemory(
        content=fields.required(request.content, "content", limit=_CONTENT),
        memory_type=_TYPES.get(request.memory_type, MemoryType.EPISODIC),
        agent=fields.text(request.agent, "agent", limit=_NAME),
        session_id=fields.text(request.session_id, "session_id", limit=_NAME),
        turn_id=fields.text(request.turn_id, "turn_id", limit=_NAME),
        tags=_tags(request.tags),
        metadata=fields.mapping(request.metadata, "metadata"),
        importance=fields.within(request.importance, "importance", low=0, high=1)
        if request.HasField("importance")
        else 0.5,
        expires_at=request.expire_time.ToDatetime(UTC) if request.HasField("expire_time") else None,
    )


def list_memories(request: pb.ListMemoriesRequest) -> Listing:
    if request.order_by not in _ORDERS:
        raise InvalidArgument("order_by is create_time or create_time desc", field="order_by")
    kind = _TYPES.get(request.memory_type)
    chosen = Filter(request.agent, (kind,) if kind else (), _tags(request.tags))
    scope = f"memories|{chosen}|{request.order_by}"
    paging = page(request.page_size, request.page_token, scope=scope)
    return Listing(chosen, paging, scope, newest_first=_ORDERS[request.order_by])


def list_response(found: Sequence[Memory], asked: Listing) -> pb.ListMemoriesResponse:
    shown = found[: asked.page.size]
    more = (shown[-1].created_at.isoformat(), shown[-1].id) if len(found) > len(shown) else None
    token = next_page_token(more, scope=asked.scope)
    return pb.ListMemoriesResponse(memories=[memory(one) for one in shown], next_page_token=token)


def question(request: pb.RecallRequest) -> Question:
    types = tuple(_TYPES[kind] for kind in request.memory_types if kind in _TYPES)
    chosen = Filter(
        agent=fields.text(request.agent, "agent", limit=_NAME),
        types=types,
        tags=_tags(request.tags),
        start=request.start_time.ToDatetime(UTC) if request.HasField("start_time") else None,
        end=request.end_time.ToDatetime(UTC) if request.HasField("end_time") else None,
    )
    return Question(
        query=fields.required(request.query, "query", limit=_CONTENT),
        chosen=chosen,
        min_score=fields.within(request.min_score, "min_score", low=0, high=1) or DEFAULT_MIN_SCORE,
        limit=int(fields.within(request.limit or 5, "limit", low=1, high=100)),
    )


def turn(request: pb.AppendTurnRequest) -> tuple[str, ShortTermTurn]:
    return fields.identifier(request.session_id, "session_id"), ShortTermTurn(
        turn_id=fields.identifier(request.turn_id, "turn_id"),
        agent=fields.required(request.agent, "agent", limit=_NAME),
        content=fields.text(request.content, "content", limit=_TURN),
    )


def context(request: pb.GetContextRequest) -> Need:
    return Need(
        session_id=fields.identifier(request.session_id, "session_id"),
        agent=fields.required(request.agent, "agent", limit=_NAME),
        query=fields.text(request.query, "query", limit=_CONTENT),
        max_turns=int(fields.within(request.max_turns or 8, "max_turns", low=1, high=50)),
        max_matches=int(fields.within(request.max_matches or 4, "max_matches", low=1, high=20)),
    )


def context_response(found: TurnContext) -> pb.GetContextResponse:
    return pb.GetContextResponse(
        short_term=[pb.ShortTermTurn(turn_id=one.turn_id, agent=one.agent, content=one.content) for one in found.tail],
        semantic=scored(found.found),
        degraded=found.degraded,
    )


def scored(found: Iterable[Scored]) -> list[pb.ScoredMemory]:
    return [pb.ScoredMemory(memory=memory(one.memory), score=min(max(one.score, 0.0), 1.0)) for one in found]


def memory(found: Memory) -> memory_pb2.Memory:
    message = memory_pb2.Memory(
        id=found.id,
        content=found.content,
        memory_type=_TO_TYPE[found.memory_type],
        agent=found.agent,
        session_id=found.session_id,
        tags=found.tags,
        metadata=fields.struct(dict(found.metadata)),
        importance=found.importance,
        create_time=time(found.created_at),
        turn_id=found.turn_id,
    )
    if found.expires_at:
        message.expire_time.CopyFrom(time(found.expires_at))
    return message


def time(value: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(value)
    return stamp


def _tags(found: Sequence[str]) -> tuple[str, ...]:
    fields.at_most(len(found), "tags", limit=32)
    return tuple(fields.required(tag, f"tags[{place}]", limit=_NAME) for place, tag in enumerate(found))
