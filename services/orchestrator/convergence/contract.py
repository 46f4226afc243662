"""What a measure of convergence is. It is pure: embeddings are handed to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from agentnet.orchestrator.v1 import session_pb2

Vector = Sequence[float]


@dataclass(frozen=True, slots=True)
class Rounds:
    """Every finished round, oldest first: its words, and the vectors of its turns where the measure wants them."""

    texts: tuple[str, ...]
    before: tuple[Vector, ...] = ()
    now: tuple[Vector, ...] = ()


@dataclass(frozen=True, slots=True)
class Meaning:
    """Vectors of the turns of the last two rounds. Degraded means nobody could say."""

    before: tuple[Vector, ...] = ()
    now: tuple[Vector, ...] = ()
    degraded: bool = False


UNASKED: Final = Meaning()


class Measure(Protocol):
    """How close a session is to its end, 0 to 1."""

    threshold: float
    """The score that counts when nothing else was asked for."""
    rounds: int
    """Rounds in a row that must reach it when nothing else was asked for."""
    by_meaning: bool
    """Whether it wants vectors of the turns of the last two rounds."""
    ends: session_pb2.StopReason.ValueType
    """What the session ends with when this measure decides."""

    def score(self, rounds: Rounds) -> float:
        """The score of the last round."""
