"""Measure "stagnation": the share of a round's words that were said in an earlier round."""

from __future__ import annotations

from agentnet.orchestrator.v1 import session_pb2
from services.orchestrator.convergence.contract import Rounds
from services.orchestrator.convergence.jaccard import words


class Stagnation:
    threshold = 0.9
    rounds = 2
    by_meaning = False
    ends = session_pb2.STOP_REASON_STAGNATED

    def score(self, rounds: Rounds) -> float:
        *earlier, now = rounds.texts
        said = words(now)
        if not earlier or not said:
            return 0.0
        return len(said & set().union(*(words(text) for text in earlier))) / len(said)
