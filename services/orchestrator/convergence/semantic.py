"""Measure "semantic": cosine of what two successive rounds mean, each the mean of its turns' embeddings."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence

from agentnet.orchestrator.v1 import session_pb2
from services.orchestrator.convergence.contract import Rounds, Vector


class Semantic:
    threshold = 0.95
    rounds = 1
    by_meaning = True
    ends = session_pb2.STOP_REASON_CONVERGED

    def score(self, rounds: Rounds) -> float:
        if not rounds.before or not rounds.now:
            return 0.0
        return min(max(_cosine(_mean(rounds.before), _mean(rounds.now)), 0.0), 1.0)


def _mean(vectors: Sequence[Vector]) -> list[float]:
    return [sum(values) / len(vectors) for values in zip(*vectors, strict=True)]


def _cosine(first: Vector, second: Vector) -> float:
    length = math.hypot(*first) * math.hypot(*second)
    return sum(map(operator.mul, first, second)) / length if length else 0.0
