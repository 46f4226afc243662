"""Between the contract and what an agent is given to know: contexts and conversations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from agentnet.memory.v1 import context_pb2
from agentnet.memory.v1 import conversation_service_pb2 as talk
from agentnet.memory.v1 import memory_service_pb2 as pb
from services.memory import convert, convert_facts
from services.memory.context import DEFAULT_TOKENS, Assembled, Need, Options, TurnContext
from services.memory.conversation import KEEP_TURNS, SUMMARY_TOKENS, History
from services.memory.store import TURNS_HELD, Said
from shared import fields
from shared.errors import MeshError

_TURNS: Final = 256
_NOTE: Final = 4_096
_SUBJECTS: Final = 16
_SUBJECT: Final = 256


@dataclass(frozen=True, slots=True)
class Compaction:
    """A parsed request to fold."""

    session_id: str
    keep_turns: int
    max_tokens: int


def need(request: pb.GetContextRequest) -> Need:
    return Need(
        session_id=fields.identifier(request.session_id, "session_id"),
        agent=fields.required(request.agent, "agent", limit=convert.NAME),
        query=fields.text(request.query, "query", limit=convert.CONTENT),
        max_turns=_turns(request),
        max_matches=int(fields.within(request.max_matches or 4, "max_matches", low=1, high=20)),
        options=_options(request.options) if request.HasField("options") else None,
    )


def _turns(request: pb.GetContextRequest) -> int:
    """How many of the tail; an assembled text always has one."""
    low = 1 if request.HasField("options") else -1
    return max(int(fields.within(request.max_turns or 8, "max_turns", low=low, high=TURNS_HELD)), 0)


def _options(given: context_pb2.ContextOptions) -> Options:
    types = [convert.kind_of(kind, "options.memory_types") for kind in given.memory_types]
    fields.at_most(len(given.subjects), "options.subjects", limit=_SUBJECTS)
    return Options(
        max_tokens=int(fields.within(given.max_tokens or DEFAULT_TOKENS, "options.max_tokens", low=1, high=100_000)),
        types=tuple(kind for kind in types if kind),
        tags=convert.tags(given.tags, "options.tags"),
        subjects=tuple(fields.required(one, "options.subjects", limit=_SUBJECT) for one in given.subjects),
        as_of=convert.moment(given, "as_of", "options.as_of"),
        half_life=convert.half_life(given.half_life, "options.half_life") if given.HasField("half_life") else None,
        handoff_from=fields.text(given.handoff_from, "options.handoff_from", limit=convert.NAME),
        handoff_note=fields.text(given.handoff_note, "options.handoff_note", limit=_NOTE),
    )


def response(found: TurnContext) -> pb.GetContextResponse:
    return pb.GetContextResponse(
        short_term=convert.short_term(found.tail),
        semantic=convert.scored(found.found),
        degraded=found.degraded,
        assembled=_assembled(found.assembled) if found.assembled else None,
        unsearched=found.unsearched,
    )


def _assembled(found: Assembled) -> context_pb2.AssembledContext:
    return context_pb2.AssembledContext(
        text=found.text,
        token_count=found.tokens,
        summary=found.summary,
        facts=[convert_facts.fact(one) for one in found.facts],
        episodes=[convert.memory(one) for one in found.episodes],
        left_out=found.left_out,
    )


def said(request: talk.AppendTurnsRequest) -> tuple[dict[int, Said], dict[int, MeshError]]:
    """What is to be appended, by its place in the request, and what is wrong with the others."""
    fields.at_most(len(request.turns), "turns", limit=_TURNS)
    fit, unfit = dict[int, Said](), dict[int, MeshError]()
    for place, turn in enumerate(request.turns):
        try:
            fit[place] = convert.said(turn)
        except MeshError as error:
            unfit[place] = error
    return fit, unfit


def refused(request: talk.AppendTurnsRequest, reasons: Mapping[int, MeshError]) -> talk.AppendTurnsResponse:
    named = ((request.turns[place].turn_id, reasons[place]) for place in sorted(reasons))
    return talk.AppendTurnsResponse(
        refused=[talk.RefusedTurn(turn_id=turn_id, status=error.status()) for turn_id, error in named]
    )


def compaction(request: talk.CompactConversationRequest) -> Compaction:
    tokens = request.max_summary_tokens or SUMMARY_TOKENS
    return Compaction(
        session_id=fields.identifier(request.session_id, "session_id"),
        keep_turns=int(fields.within(request.keep_turns or KEEP_TURNS, "keep_turns", low=1, high=TURNS_HELD)),
        max_tokens=int(fields.within(tokens, "max_summary_tokens", low=1, high=4_096)),
    )


def conversation(session_id: str, found: History) -> context_pb2.Conversation:
    return context_pb2.Conversation(
        session_id=session_id,
        summary=found.conversation.summary,
        summarized_turns=found.conversation.summarized_turns,
        token_count=found.tokens,
    )
