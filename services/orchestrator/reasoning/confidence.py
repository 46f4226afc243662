"""How sure an answer is: what can be measured of a turn, and its mean.

No model is asked how sure it is: they say so of anything. What there was nothing of does not count.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Final

from agentnet.orchestrator.v1 import turn_pb2

EVIDENCE: Final = "evidence"
_STEPS: Final = 100
_SENTENCE: Final = re.compile(r"[^\s].*?(?:[.!?…](?=\s|$)|\n|$)", re.DOTALL)
_WORD: Final = re.compile(r"[^\W_]{4,}")


def steps(turn: turn_pb2.Turn) -> Sequence[tuple[str, float | None]]:
    """The sentences of an answer, each with the share of its longer words that the agent was given to read."""
    given = _words(" ".join((turn.prompt, *turn.context.short_term)))
    sentences = [found.strip() for found in _SENTENCE.findall(turn.content) if found.strip()]
    return [(sentence, _share(_words(sentence), given)) for sentence in sentences[:_STEPS]]


def factors(
    turn: turn_pb2.Turn, supported: Sequence[tuple[str, float | None]], *, verdicts: int
) -> Mapping[str, float]:
    """What was measured, each 0 to 1; ReasoningTree.factors in the contract says what each is."""
    known = (*turn.context.semantic_refs, *turn.context.episodic_refs)
    measured = {
        "support": _mean([share for _, share in supported if share is not None]),
        "memory": _mean([found.score for found in known]),
        "tools": _mean([float(not call.failed) for call in turn.tool_calls]),
        "attempts": 1 / max(turn.attempt, 1),
        "policy": 0.0 if verdicts else 1.0,
    }
    return {name: found for name, found in measured.items() if found is not None}


def judge(turn: turn_pb2.Turn, *, verdicts: int) -> None:
    """Writes into a finished turn how sure it is, and by what."""
    turn.confidence = fmean(factors(turn, steps(turn), verdicts=verdicts).values())
    turn.confidence_basis = EVIDENCE


def _share(words: frozenset[str], given: frozenset[str]) -> float | None:
    return len(words & given) / len(words) if words else None


def _mean(scores: Sequence[float]) -> float | None:
    return min(max(fmean(scores), 0.0), 1.0) if scores else None


def _words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text.lower()))
