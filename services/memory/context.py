"""What an agent is given to know for its next turn, within a budget of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from services.memory.conversation import Conversations, line, tokens_of
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
# Shares of the budget each part may take at most when all are long; what a part leaves is the next one's.
_SHARES: Final = {"handoff": 0.25, "summary": 0.2, "facts": 0.2, "memories": 0.45}


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
        tail = await self._conversations.tail(tenant, need.session_id, limit=need.max_turns)
        found, degraded = await self._found(tenant, need)
        if need.options is None:
            return TurnContext(tail, found, degraded)
        material = await self._material(tenant, need, need.options, found)
        return TurnContext(tail, found, degraded, assemble(material, need.options))

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
        history = await self._conversations.history(tenant, need.session_id)
        older = [line(turn) for turn in history.turns[: max(len(history.turns) - need.max_turns, 0)]]
        facts = await self._facts.about(tenant, options.subjects, as_of=options.as_of)
        episodes: Sequence[Memory] = []
        if options.tags:
            chosen = Filter(agent=need.agent, types=(MemoryType.EPISODIC,), tags=options.tags, as_of=options.as_of)
            episodes = await self._remembering.every(tenant, chosen, newest_first=True, page=Page(_EPISODES))
        told = {one.memory.id for one in found}
        return _Material(
            older="\n".join(part for part in (history.conversation.summary, *older) if part),
            tail=history.turns[-need.max_turns :],
            facts=facts,
            found=found,
            episodes=[one for one in episodes[:_EPISODES] if one.id not in told],
        )


def assemble(material: _Material, options: Options) -> Assembled:
    """The parts in the order an agent reads them, never above the budget. The newest turns are the last to go."""
    parts = _Parts(options.max_tokens)
    turns = _newest(material.tail, options.max_tokens // 2)
    parts.reserve(sum(tokens_of(turn) for turn in turns) + (_HEADING if turns else 0))
    parts.add("handoff", "Handed over to you", _handoff(options))
    summary = summarize(material.older.splitlines(), max_tokens=parts.room("summary")) if material.older else ""
    parts.add("summary", "Earlier in this conversation", summary.splitlines())
    facts = parts.add(
        "facts", "What is so", [f"- {one.subject} {one.relation}: {one.object}" for one in material.facts]
    )
    known = [one.memory for one in material.found] + list(material.episodes)
    memories = parts.add("memories", "What you remember", [f"- {_memory_line(memory)}" for memory in known])
    parts.tail("The last turns", [line(turn) for turn in turns])
    left_out = len(material.facts) - facts + len(known) - memories + len(material.tail) - len(turns)
    return Assembled(parts.text, estimate(parts.text), summary, material.facts, material.episodes, left_out)


class _Parts:
    """A text that grows part by part and never beyond its budget."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._left = budget
        self._texts: list[str] = []

    @property
    def text(self) -> str:
        return "\n\n".join(self._texts)

    def reserve(self, tokens: int) -> None:
        """Sets tokens aside for the end."""
        self._left = max(self._left - tokens, 0)

    def room(self, name: str) -> int:
        """What a part may take, without its heading."""
        return max(min(int(self._budget * _SHARES[name]), self._left) - _HEADING, 0)

    def add(self, name: str, heading: str, lines: Sequence[str]) -> int:
        """As many of the lines as there is room for. Returns how many."""
        room = self.room(name)
        kept = []
        for text in lines:
            cost = estimate(text)
            if cost > room:
                break
            kept.append(text)
            room -= cost
        if kept:
            self._texts.append(f"{heading}:\n" + "\n".join(kept))
            self._left -= estimate(self._texts[-1])
        return len(kept)

    def tail(self, heading: str, lines: Sequence[str]) -> None:
        """What was reserved for."""
        if lines:
            self._texts.append(f"{heading}:\n" + "\n".join(lines))


def _newest(turns: Sequence[ShortTermTurn], budget: int) -> list[ShortTermTurn]:
    """The newest turns that fit, oldest first. One turn that alone is too long is cut."""
    kept: list[ShortTermTurn] = []
    left = budget - _HEADING
    for turn in reversed(turns):
        if tokens_of(turn) > left:
            break
        kept.append(turn)
        left -= tokens_of(turn)
    if turns and not kept and left > 0:
        last = turns[-1]
        room = left - estimate(last.agent) - 1
        return (
            [ShortTermTurn(last.turn_id, last.agent, clipped(last.content, room), last.created_at)] if room > 1 else []
        )
    return kept[::-1]


def _handoff(options: Options) -> list[str]:
    if not options.handoff_from:
        return []
    return [f"{options.handoff_from} hands over to you.", *options.handoff_note.splitlines()]


def _memory_line(memory: Memory) -> str:
    spoken = f"{memory.agent}: " if memory.agent and memory.memory_type is MemoryType.EPISODIC else ""
    return f"({memory.created_at:%Y-%m-%d}) {spoken}{' '.join(memory.content.split())}"
