"""A second look at the first candidates: rerankers by name, this package's and those of installed packages.

A reranker is an entry point in the group `agentnet.memory_rerankers`; its object, called without arguments, makes it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from importlib.metadata import entry_points
from typing import Final, Protocol

from services.memory.rank import LEARNED, Ranked
from services.memory.tokens import estimate
from shared.log import log

GROUP: Final = "agentnet.memory_rerankers"
_PART: Final = "reranker"
# Per factor e of length. Chosen on the conversations the weights were learned on.
_BREVITY: Final = 0.5


class Reranker(Protocol):
    """Judges candidates by their texts, after everything else has."""

    async def parts(self, query: str, found: Sequence[Ranked]) -> Sequence[float]:
        """For each candidate, in order, what to add to the logarithm of its odds: above 0 helps. Finite.

        The content is as it is kept; what policy hides of it when shown is hidden later.
        """


class Brief:
    """Every token must earn its place: more evidence within a budget of tokens, for callers that fill a prompt."""

    async def parts(self, query: str, found: Sequence[Ranked]) -> Sequence[float]:
        sizes = [max(estimate(one.memory.content), 1) for one in found]
        usual = sum(sizes) / len(sizes)
        return [-_BREVITY * math.log(size / usual) for size in sizes]


_OWN: Final[Mapping[str, Callable[[], Reranker]]] = {"brief": Brief}


def reranker_named(name: str) -> Reranker:
    """Raises ValueError, at the start of the service, when there is none of this name."""
    if name in _OWN:
        return _OWN[name]()
    for point in entry_points(group=GROUP, name=name):
        made: Reranker = point.load()()
        return made
    known = sorted({*_OWN, *(point.name for point in entry_points(group=GROUP))})
    raise ValueError(f"no reranker {name}; this mesh has {', '.join(known)}")


@dataclass(frozen=True, slots=True)
class SecondLook:
    """A reranker, how many of the first candidates it sees, and how long it is waited for."""

    reranker: Reranker
    seen: int
    patience: timedelta

    async def reordered(self, query: str, found: Sequence[Ranked], *, least: int) -> list[Ranked]:
        """The first candidates, `least` or more, best first. If the reranker is late: as they were."""
        first = found[: max(self.seen, least)]
        if not first:
            return []
        try:
            async with asyncio.timeout(self.patience.total_seconds()):
                parts = await self.reranker.parts(query, first)
        except TimeoutError:
            log.warning("recall.reranker_late", candidates=len(first), waited=self.patience.total_seconds())
            return list(first)
        judged = [_judged(one, part) for one, part in zip(first, parts, strict=True)]
        return sorted(judged, key=lambda one: -one.relevance)


def _judged(one: Ranked, part: float) -> Ranked:
    if not math.isfinite(part):
        raise ValueError(f"a reranker said {part}")
    odds = LEARNED.base + sum(one.explanation.parts.values())
    relevance = min(one.relevance * _chance(odds + part) / _chance(odds), 1.0)
    parts = {**one.explanation.parts, _PART: round(part, 4)}
    return replace(one, relevance=relevance, explanation=replace(one.explanation, parts=parts))


def _chance(odds: float) -> float:
    """Of a logarithm of odds; never 0, so that it can be divided by."""
    return 1 / (1 + math.exp(min(-odds, 500.0)))
