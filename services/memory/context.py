"""What an agent is given to know for its next turn, within a budget of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from services.memory.conversation import Conversations, line
from services.memory.fact_store import Fact
from services.memory.facts import Facts
from services.memory.rank import Ranked, Taste
from services.memory.recall import Question, Recall
from services.memory.remember import Remembering
from services.memory.store import Filter, Memory, MemoryType, ShortTermTurn
from services.memory.summary import clipped, summarize
from services.memory.tokens import estimate
from shared.paging import Page

LONG_LIVED: Final = (MemoryType.EPISODIC, MemoryType.SEMANTIC, MemoryType.LONG_TERM)
DEFAULT_TOKENS: Final = 2_000
_EPISODES: Final = 5
_HEADING: Final = 8
# Fewer tokens of a longer line say nothing.
_WORTH: Final = 12


@dataclass(frozen=True, slots=True)
class Options:
    """What to assemble beyond the tail and the matches."""

    max_tokens: int = DEFAULT_TOKENS
    types: tuple[MemoryType, ...] = ()
    tags: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()
    as_of: datetime | None = None
    half_life: timedelta | None = None
    handoff_from: str = ""
    handoff_note: str = ""


@dataclass(frozen=True, slots=True)
class Need:
    """Who is about to speak, about what. Options None: only the tail and the matches."""

    session_id: str
    agent: str
    query: str
    max_turns: int
    max_matches: int
    options: Options | None = None


@dataclass(frozen=True, slots=True)
class Assembled:
    """One text and what went into it."""

    text: str
    tokens: int
    summary: str
    facts: Sequence[Fact]
    episodes: Sequence[Memory]
    left_out: int


@dataclass(frozen=True, slots=True)
class TurnContext:
    """What an agent should be given to know. Degraded: no embedding could be had."""

    tail: Sequence[ShortTermTurn]
    found: Sequence[Ranked]
    degraded: bool
    assembled: Assembled | None = None
    unsearched: bool = False


@dataclass(frozen=True, slots=True)
class _Material:
    """Everything that could be told, before the budget."""

    older: str
    tail: Sequence[ShortTermTurn]
    facts: Sequence[Fact]
    found: Sequence[Ranked]
    episodes: Sequence[Memory]


class Contexts:
    """Puts together what memory knows. `automatic` False: nothing is searched for."""

    def __init__(
        self, conversations: Conversations, recall: Recall, remembering: Remembering, facts: Facts, *, automatic: bool
    ) -> None:
        self._conversations = conversations
        self._recall = recall
        self._remembering = remembering
        self._facts = facts
        self._automatic = automatic

    async def context(self, tenant: str, need: Need) -> TurnContext:
        """The tail, and what fits the question from elsewhere. Search being away is no reason to know nothing."""
        as_of = need.options.as_of if need.options else None
        tail: Sequence[ShortTermTurn] = []
        if need.max_turns:
            tail = await self._conversations.tail(tenant, need.session_id, limit=need.max_turns, as_of=as_of)
        found, degraded = await self._found(tenant, need)
        assembled = None
        if need.options is not None:
            assembled = assemble(await self._material(tenant, need, need.options, found), need.options)
        return TurnContext(tail, found, degraded, assembled, unsearched=not self._automatic)

    async def _found(self, tenant: str, need: Need) -> tuple[Sequence[Ranked], bool]:
        if not need.query or not self._automatic:
            return [], False
        options = need.options or Options()
        chosen = Filter(
            agent=need.agent, types=options.types or LONG_LIVED, not_session=need.session_id, as_of=options.as_of
        )
        taste = Taste(half_life=options.half_life)
        answer = await self._recall.recall(tenant, Question(need.query, chosen, need.max_matches, taste=taste))
        return answer.matches, answer.degraded

    async def _material(self, tenant: str, need: Need, options: Options, found: Sequence[Ranked]) -> _Material:
        history = await self._conversations.history(tenant, need.session_id, as_of=options.as_of)
        older = [line(turn) for turn in history.turns[: max(len(history.turns) - need.max_turns, 0)]]
        facts = await self._facts.about(tenant, options.subjects, as_of=options.as_of)
        episodes: Sequence[Memory] = []
        if options.tags:
            chosen = Filter(agent=need.agent, types=(MemoryType.EPISODIC,), tags=options.tags, as_of=options.as_of)
            episodes = await self._remembering.listed(tenant, chosen, newest_first=True, page=Page(_EPISODES))
        told = {one.memory.id for one in found}
        return _Material(
            older="\n".join(part for part in (history.conversation.summary, *older) if part),
            tail=history.turns[-need.max_turns :],
            facts=facts,
            found=found,
            episodes=[one for one in episodes[:_EPISODES] if one.id not in told and one.content],
        )


def assemble(material: _Material, options: Options) -> Assembled:
    """The parts in the order an agent reads them, never above the budget. The newest turns are the last to go."""
    turns = _newest(material.tail, options.max_tokens // 2)
    known = [one.memory for one in material.found] + list(material.episodes)
    handoff = _Part("Handed over to you", _handoff(options), 0.2, clips=True)
    summary = _Part("Earlier in this conversation", [], 0.2)
    facts = _Part("What is so", [f"- {one.subject} {one.relation}: {one.object}" for one in material.facts], 0.2)
    memories = _Part("What you remember", [f"- {_memory_line(memory)}" for memory in known], 0.4, clips=True)
    kept = _cost(turns)
    left = beside = options.max_tokens - kept
    # Each its share first, then each what the others left.
    for first in (True, False):
        for part in (handoff, facts, memories, summary):
            left += part.cost
            room = min(int(beside * part.share), left) if first else left
            if part is summary:
                summary.lines = summarize(material.older.splitlines(), max_tokens=max(room - _HEADING, 0)).splitlines()
            part.fill(room)
            left -= part.cost
    turns = _newest(material.tail, kept + left)
    tail = _Part("The last turns", [], told=list(map(line, turns)))
    text = "\n\n".join(part.text for part in (handoff, summary, facts, memories, tail) if part.told)
    told = len(facts.told) + len(memories.told) + len(turns)
    left_out = len(material.facts) + len(known) + len(material.tail) - told
    return Assembled(text, estimate(text), "\n".join(summary.told), material.facts, material.episodes, left_out)


@dataclass(slots=True)
class _Part:
    """A heading with its lines, and those of them that are told. Its share of the budget is for certain.
    If it clips, of a line that is too long the beginning is told.
    """

    heading: str
    lines: list[str]
    share: float = 0.0
    clips: bool = False
    told: list[str] = field(default_factory=list)

    @property
    def cost(self) -> int:
        return sum(map(_told, self.told)) + _HEADING if self.told else 0

    @property
    def text(self) -> str:
        return f"{self.heading}:\n" + "\n".join(self.told)

    def fill(self, room: int) -> None:
        """Tells as many lines as there is room for."""
        self.told = []
        room -= _HEADING
        for text in self.lines:
            cost = _told(text)
            if cost > room:
                self.told += [clipped(text, room - 1)] if self.clips and room > _WORTH else []
                return
            self.told.append(text)
            room -= cost


def _told(text: str) -> int:
    """What a line costs, with its end."""
    return estimate(text) + 1


def _said(turn: ShortTermTurn) -> int:
    return _told(line(turn))


def _cost(turns: Sequence[ShortTermTurn]) -> int:
    return sum(map(_said, turns)) + _HEADING if turns else 0


def _newest(turns: Sequence[ShortTermTurn], budget: int) -> list[ShortTermTurn]:
    """The newest turns that fit, oldest first. One turn that alone is too long is cut."""
    kept: list[ShortTermTurn] = []
    left = budget - _HEADING
    for turn in reversed(turns):
        if _said(turn) > left:
            break
        kept.append(turn)
        left -= _said(turn)
    if turns and not kept and left > 0:
        last = turns[-1]
        # A number after the colon costs one more.
        room = left - _told(f"{last.agent}: ") - 1
        return [replace(last, content=clipped(last.content.strip(), room))] if room > 1 else []
    return kept[::-1]


def _handoff(options: Options) -> list[str]:
    if not options.handoff_from:
        return []
    return [f"{options.handoff_from} hands over to you.", *options.handoff_note.splitlines()]


def _memory_line(memory: Memory) -> str:
    spoken = f"{memory.agent}: " if memory.agent and memory.memory_type is MemoryType.EPISODIC else ""
    return f"({memory.created_at:%Y-%m-%d}) {spoken}{' '.join(memory.content.split())}"
