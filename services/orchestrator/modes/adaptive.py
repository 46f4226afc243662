"""Strategy "adaptive": how agents take turns is chosen by what kind of topic it is, and the choice explains itself.

The classification is by words, so that the same topic always gets the same strategy and a reader sees why.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from agentnet.orchestrator.v1 import progress_pb2, session_pb2
from services.orchestrator.modes.contract import Part, Table

_WORD: Final = re.compile(r"[a-z]+")
GENERAL: Final = "general"


@dataclass(frozen=True, slots=True)
class _Kind:
    stems: tuple[str, ...]
    strategy: str
    why: str


_KINDS: Final = {
    "creative": _Kind(
        ("idea", "creativ", "brainstorm", "imagin", "invent", "name", "design", "novel", "story", "slogan", "concept"),
        "parallel",
        "ideas are more varied when nobody hears the others first",
    ),
    "analytical": _Kind(
        ("analy", "why", "explain", "cause", "compute", "prove", "measure", "estimat", "debug", "diagnos", "review"),
        "round_robin",
        "each step of an analysis builds on the one before",
    ),
    "contested": _Kind(
        ("versus", "vs", "should", "better", "argue", "debat", "controvers", "choose", "prefer", "tradeoff", "or"),
        "moderator",
        "a contested question is best led by somebody who gives the floor",
    ),
    "operational": _Kind(
        ("incident", "outage", "urgent", "deploy", "migrat", "rollback", "runbook", "alert", "restor", "recover"),
        "priority",
        "in operations who knows most speaks first",
    ),
}


class Adaptive:
    """Never has the floor itself: the session goes on with the strategy that was chosen."""

    def floor(self, table: Table) -> tuple[Part, ...]:
        return table.open[:1]

    def check(self, session: session_pb2.Session) -> None:
        """It takes nothing."""


def choose(session: session_pb2.Session) -> progress_pb2.StrategyChosen:
    """The strategy for the session's topic. One that needs a part nobody plays gives way to round_robin."""
    words = _WORD.findall(session.topic_start.lower())
    found = {
        name: [word for word in words if any(_is(word, stem) for stem in kind.stems)] for name, kind in _KINDS.items()
    }
    best = max(found, key=lambda name: len(found[name]))
    evidence = list(dict.fromkeys(found[best]))[:8]
    if not evidence:
        return progress_pb2.StrategyChosen(
            strategy="round_robin", topic_class=GENERAL, reason="nothing in the topic speaks for another order"
        )
    kind = _KINDS[best]
    strategy, reason = kind.strategy, kind.why
    if not _possible(session, strategy):
        strategy = "round_robin"
        reason = f"{reason}; nobody was given that part, so all speak in turn"
    total = sum(len(hits) for hits in found.values())
    return progress_pb2.StrategyChosen(
        strategy=strategy,
        topic_class=best,
        confidence=len(found[best]) / total,
        evidence=evidence,
        reason=f"the topic looks {best} ({', '.join(evidence)}): {reason}",
    )


def _possible(session: session_pb2.Session, strategy: str) -> bool:
    needed = {"moderator": session.options.moderator, "priority": session.options.priorities}
    return bool(needed.get(strategy, True))


def _is(word: str, stem: str) -> bool:
    """Short stems are whole words."""
    return word == stem if len(stem) <= 3 else word.startswith(stem)  # noqa: PLR2004 - as long as "why"
