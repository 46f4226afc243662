"""What a question says about who spoke and when."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from services.memory.words import stems

_MONTHS: Final = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december",
)  # fmt: skip
_LAST_DAY: Final = 31
_YEAR: Final = re.compile(r"\b(?:19|20)\d\d\b")
# "may" is a month after a preposition or beside a number, else a verb.
_MONTH: Final = re.compile(
    r"\b(?:(january|february|march|april|june|july|august|september|october|november|december)"
    r"|(?<=in )(may)|(?<=of )(may)|(?<=\d )(may)|(may)(?= \d))\b"
)
_DAY: Final = re.compile(r"\b([0-3]?\d)(?:st|nd|rd|th)?\b(?!\s*(?:%|years|days|weeks|months|hours))")
_WHEN: Final = re.compile(r"^\s*when\b|\bhow long\b|\b(?:what|which) (?:day|date|month|year|week)\b")
_TIME: Final = re.compile(
    r"\b(?:yesterday|today|tonight|tomorrow|last|next|ago|week|weekend|month|year|morning|monday|tuesday|wednesday|thursday"
    rf"|friday|saturday|sunday|recently|soon|{'|'.join(_MONTHS)}|(?:19|20)\d\d)\b"
)


@dataclass(frozen=True, slots=True)
class Cues:
    """Who is named, as agents and as words to ignore; which months, years and days; whether a time is asked for."""

    speakers: frozenset[str]
    names: frozenset[str]
    months: frozenset[int]
    years: frozenset[int]
    days: frozenset[int]
    asks_when: bool

    def fits(self, at: datetime) -> float:
        """How much of the date that is told fits, 0 to 1; 0 when none is told."""
        if not (self.months or self.years or self.days):
            return 0.0
        told = [(self.months, at.month), (self.years, at.year), (self.days, at.day)]
        known = [part in given for given, part in told if given]
        return sum(known) / len(known)

    def contradicts(self, agent: str) -> bool:
        """Whether somebody else is named as the one who spoke."""
        return bool(self.speakers) and agent not in self.speakers

    @staticmethod
    def tells_time(text: str) -> bool:
        """Whether a line says when something was."""
        return bool(_TIME.search(text.lower()))


def cues_of(query: str, agents: Collection[str]) -> Cues:
    """Reads a question. An agent is named by its whole name or its first word."""
    low = query.lower()
    words = set(re.findall(r"\w+", low))
    named = {agent for agent in agents if agent and (agent.lower() in low or agent.lower().split()[0] in words)}
    months = {_MONTHS.index(next(filter(None, found))) + 1 for found in _MONTH.findall(low)}
    return Cues(
        # Where both sides of a talk are named, the question does not say who spoke.
        speakers=frozenset(named) if len(named) == 1 else frozenset(),
        names=frozenset(stem for agent in named for stem in stems(agent)),
        months=frozenset(months),
        years=frozenset(map(int, _YEAR.findall(low))),
        days=frozenset(int(day) for day in _DAY.findall(low) if 1 <= int(day) <= _LAST_DAY) if months else frozenset(),
        asks_when=bool(_WHEN.search(low)),
    )
