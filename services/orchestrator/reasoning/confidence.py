"""How sure an answer is: what can be measured of a turn, and its mean.

No model is asked how sure it is: they say so of anything. What there was nothing of does not count.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from statistics import fmean
from typing import Final

from agentnet.orchestrator.v1 import turn_pb2

EVIDENCE: Final = "evidence"
_STEPS: Final = 100
_SENTENCE: Final = re.compile(r"[^\s].*?(?:[.!?…](?=\s|$)|\n|$)", re.DOTALL)
_WORD: Final = re.compile(r"[^\W_]{4,}")


def steps(turn: turn_pb2.Turn) -> Sequence[tuple[str, float | None]]:
    """The sentences of an answer, each with the share of its longer words that the agent was given to read."""
    given = " ".join((turn.prompt, *turn.context.short_term)).lower()
    sentences = [found.strip() for found in _SENTENCE.findall(turn.content) if found.strip()][:_STEPS]
    spoken = [frozenset(_WORD.findall(sentence.lower())) for sentence in sentences]
    known = {word for word in frozenset[str]().union(*spoken) if _stands(word, given)}
    return [(sentence, _share(words, known)) for sentence, words in zip(sentences, spoken, strict=True)]


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


def _share(words: frozenset[str], known: AbstractSet[str]) -> float | None:
    return len(words & known) / len(words) if words else None


def _stands(word: str, text: str) -> bool:
    """Whether a text has the word as such, and not in a longer one. Far more was given to read than is answered, so it
    is searched and not taken apart.
    """
    at = text.find(word)
    while at >= 0:
        end = at + len(word)
        if not text[at - 1 : at].isalnum() and not text[end : end + 1].isalnum():
            return True
        at = text.find(word, end)
    return False


def _mean(scores: Sequence[float]) -> float | None:
    return min(max(fmean(scores), 0.0), 1.0) if scores else None
