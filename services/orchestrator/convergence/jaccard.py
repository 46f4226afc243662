"""Measure "jaccard": Jaccard similarity (Jaccard 1901) of the words of two successive rounds."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from agentnet.orchestrator.v1 import session_pb2
from services.orchestrator.convergence.contract import Rounds

_WORD: Final = re.compile(r"\w+")


class Jaccard:
    threshold = 0.8
    rounds = 1
    by_meaning = False
    ends = session_pb2.STOP_REASON_CONVERGED

    def score(self, rounds: Rounds) -> float:
        return similarity(*rounds.texts[-2:]) if len(rounds.texts) > 1 else 0.0


@lru_cache(maxsize=1)  # a round's is told beside its measures, and is one of them
def similarity(before: str, now: str) -> float:
    """Shared words over all words, 0 to 1; 0 when either says nothing."""
    first, second = words(before), words(now)
    if not first or not second:
        return 0.0
    return len(first & second) / len(first | second)


def words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower()))
