"""What an agent is given to read for one turn, within its limit of tokens.

Who it is and its part; what it remembers; a summary of the last rounds before its own last turn; that turn; what was
said since (the difference to what it read then); what is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from services.orchestrator import forms, modes
from services.orchestrator.extract import shorter, tokens
from services.orchestrator.forms import Form
from services.orchestrator.modes import cast, moderator
from services.orchestrator.modes.contract import Part
from services.orchestrator.state import Interrupted, SessionState, Spoken

# The last R of the seed: rounds before an agent's own last turn that it reads a summary of.
SUMMARISED_ROUNDS: Final = 3
_SUMMARY_TOKENS: Final = 300
_KNOWN_CHARACTERS: Final = 600
_TURNS: Final = 12
# What each part may have of a prompt that is over its limit.
_SHARES: Final = {"memory": 0.15, "conversation": 0.35, "topic": 0.4}


@dataclass(frozen=True, slots=True)
class Line:
    """One message of a prompt: "system", "user" or "assistant"."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Known:
    """What memory found. Episodic: it was said in an earlier turn, and is no fact that was stored as such."""

    id: str
    content: str
    score: float
    episodic: bool = False


@dataclass(frozen=True, slots=True)
class Reduction:
    """A prompt was over its limit: about how many tokens it was and is, and which parts were made shorter."""

    before: int
    after: int
    limit: int
    parts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Prompt:
    """The messages of a turn; the last one is the question. `known` is what of memory found room."""

    lines: tuple[Line, ...]
    question: str
    known: tuple[Known, ...] = ()
    short_term: tuple[str, ...] = ()
    form: Form | None = None
    reduced: Reduction | None = None


@dataclass(frozen=True, slots=True)
class Brief:
    """What is asked of an agent, before it is a prompt. Tokens are limits of the whole and of what memory gives."""

    part: Part
    round: int
    system_prompt: str = ""
    known: tuple[Known, ...] = ()
    broken: Interrupted | None = None
    limit_tokens: int = 6_000
    memory_tokens: int = 600
    output_form: Form | None = None


@dataclass(slots=True)
class _Sheet:
    """The parts of a prompt while it is made to fit."""

    system: str
    memory: str
    conversation: str
    topic: str
    shortened: list[str] = field(default_factory=list)

    def lines(self) -> tuple[Line, ...]:
        remembered = self.memory and f"You remember:\n{self.memory}"
        system = "\n\n".join(part for part in (self.system, remembered) if part)
        asked = "\n\n".join(part for part in (self.conversation, self.topic) if part)
        return tuple(Line(role, text) for role, text in (("system", system), ("user", asked)) if text)

    @property
    def tokens(self) -> int:
        return sum(tokens(line.text) for line in self.lines())

    def fit(self, limit: int) -> None:
        """Makes parts shorter, the least needed first, until all fit."""
        for name, share in _SHARES.items():
            if self.tokens <= limit:
                return
            room = max(limit - self.tokens + tokens(getattr(self, name)), int(limit * share))
            text = shorter(getattr(self, name), room)
            if text != getattr(self, name):
                setattr(self, name, text)
                self.shortened.append(name)


def prompt(state: SessionState, brief: Brief) -> Prompt:
    """The prompt of a turn."""
    directive, question = _asked(state, brief)
    form = form_of(state, brief.round, brief.part) or brief.output_form
    if form is not None:
        question = f"{question}\n\n{form.instruction()}"
    if brief.broken is not None and brief.broken.text and form is not None:
        question = f"{question}\n\n{forms.repair(brief.broken.text, brief.broken.failure.message)}"
    known = _fitting(brief.known, brief.memory_tokens)
    said = modes.mode(state.session.mode).heard(state, brief.part)
    sheet = _Sheet(
        system="\n\n".join(part for part in (brief.system_prompt, directive) if part),
        memory="\n".join(f"- {item.content[:_KNOWN_CHARACTERS]}" for item in known),
        conversation=conversation(said, brief.part.agent),
        topic=question,
    )
    before = sheet.tokens
    sheet.fit(brief.limit_tokens)
    reduced = Reduction(before, sheet.tokens, brief.limit_tokens, tuple(sheet.shortened)) if sheet.shortened else None
    return Prompt(sheet.lines(), question, known, tuple(_line(turn) for turn in said[-8:]), form, reduced)


def form_of(state: SessionState, number: int, part: Part) -> Form | None:
    """The form the answer of a part must have; None: any."""
    if modes.led(part):
        return moderator.form(modes.phase_of(state, number, part))
    return modes.mode(state.session.mode).form(state, number, part)


def conversation(said: Sequence[Spoken], agent: str) -> str:
    """What an agent reads of what was said: a summary of the last rounds, its own last turn, what is new since."""
    own = max((place for place, turn in enumerate(said) if turn.agent == agent), default=-1)
    earlier, new = list(said[: max(own, 0)]), list(said[own + 1 :])
    earlier, new = earlier + new[:-_TURNS], new[-_TURNS:]
    parts: list[str] = []
    if earlier:
        first = earlier[-1].round - SUMMARISED_ROUNDS + 1
        told = "\n".join(_line(turn) for turn in earlier if turn.round >= first)
        parts.append(f"Said in earlier rounds, in short:\n{shorter(told, _SUMMARY_TOKENS)}")
    if own >= 0:
        parts.append(f"You said last:\n{said[own].content.strip()}")
    if new:
        heading = "New since then" if own >= 0 else "Said so far"
        parts.append(f"{heading}:\n" + "\n".join(_line(turn) for turn in new))
    return "\n\n".join(parts)


def _asked(state: SessionState, brief: Brief) -> tuple[str, str]:
    """Directive and question of a part; who leads a phase is asked by the strategy and not by the mode."""
    mode, part, number = modes.mode(state.session.mode), brief.part, brief.round
    if modes.led(part):
        led = modes.phase_of(state, number, part)
        return moderator.directive(), moderator.question(state.session.topic_start, led)
    return mode.directive(state, number, part), mode.question(state, number, part)


def _fitting(known: Sequence[Known], limit: int) -> tuple[Known, ...]:
    """The best of what memory found, as much as has room."""
    kept: list[Known] = []
    for item in known:
        limit -= tokens(item.content[:_KNOWN_CHARACTERS])
        if limit < 0:
            break
        kept.append(item)
    return tuple(kept)


def _line(turn: Spoken) -> str:
    return f"{cast.short(turn.agent)}: {turn.content.strip()}"
