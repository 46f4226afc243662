"""What an agent is given to read for one turn: who it is, its part, what it knows, what was said, what is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from services.orchestrator.modes.contract import Mode
from services.orchestrator.state import SessionState

_TAIL_TURNS: Final = 6
_TAIL_CHARACTERS: Final = 6_000
_KNOWN_CHARACTERS: Final = 600


@dataclass(frozen=True, slots=True)
class Line:
    """One message of a prompt: "system", "user" or "assistant"."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Known:
    """What memory found."""

    id: str
    content: str
    score: float


def prompt(
    state: SessionState, mode: Mode, *, agent: str, system_prompt: str, round_number: int, known: tuple[Known, ...]
) -> tuple[Line, ...]:
    """The messages of a turn; the last one is the question."""
    session = state.session
    directive = mode.directive(agent=agent, round_number=round_number, max_rounds=session.max_rounds)
    remembered = "\n".join(f"- {item.content[:_KNOWN_CHARACTERS]}" for item in known)
    system = "\n\n".join(
        part for part in (system_prompt, directive, remembered and f"You remember:\n{remembered}") if part
    )
    question = mode.question(topic=session.topic_start, round_number=round_number)
    said = said_by_others(state)
    asked = f"Said so far:\n{said}\n\n{question}" if said else question
    return tuple(Line(role, text) for role, text in (("system", system), ("user", asked)) if text)


def said_by_others(state: SessionState) -> str:
    """The tail of the conversation, oldest first, as much as fits."""
    lines: list[str] = []
    left = _TAIL_CHARACTERS
    for turn in reversed(state.spoken[-_TAIL_TURNS:]):
        line = f"{turn.agent.partition('@')[0]}: {turn.content.strip()}"[:left]
        if not line:
            break
        lines.append(line)
        left -= len(line)
    return "\n".join(reversed(lines))
