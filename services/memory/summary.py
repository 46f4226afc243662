"""A shorter text that says what matters, without a model: the sentences that stand for most of the others."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from services.memory.tokens import estimate, within
from services.memory.words import counted

# "The 3. of May" is one, and so is what ends without a space in a script that has none.
_SENTENCE: Final = re.compile(r"(?<=[.!?؟।])(?:(?<!\d\.)\s+|\s+(?![a-z]))|(?<=[。\uff01\uff1f])\s*|\n+")
_TELLING: Final = re.compile(
    r"\d|[A-Z][a-z]+ [A-Z]|\b(?:decid|agree|must|will|because|prefer|deadline|never|always)", re.IGNORECASE
)
_MOST: Final = 200
_SHORTEST: Final = 3
_TELLING_PARTS: Final = 3


def summarize(texts: Sequence[str], *, max_tokens: int) -> str:
    """Whole sentences of the texts, in their order, within the budget. Short input comes back as it is."""
    whole = "\n".join(text.strip() for text in texts if text.strip())
    if estimate(whole) <= max_tokens:
        return whole
    sentences = _sentences(texts)
    left = max_tokens
    kept = list[int]()
    for at in _by_worth(sentences):
        cost = estimate(sentences[at]) + bool(kept)
        if cost <= left:
            kept.append(at)
            left -= cost
        if left < _SHORTEST:
            break
    if not kept and sentences:
        return clipped(sentences[0], max_tokens)
    return "\n".join(sentences[at] for at in sorted(kept))


def without(summary: str, gone: Sequence[str]) -> str:
    """A summary without the sentences, whole or clipped, that stand in these texts."""
    lines = [
        " ".join(
            one for one in _SENTENCE.split(told) if one and not any(one.removesuffix("…") in text for text in gone)
        )
        for told in summary.splitlines()
    ]
    return "\n".join(filter(None, lines))


def clipped(text: str, max_tokens: int) -> str:
    """The beginning of a text that fits the budget, cut between words."""
    if within(text, max_tokens) == text:
        return text
    cut = within(text, max_tokens - 1).rstrip()
    return f"{cut}…" if cut else ""


def _sentences(texts: Sequence[str]) -> list[str]:
    """Every sentence once; of a long history the newest ones."""
    found = [sentence.strip() for text in texts for sentence in _SENTENCE.split(text) if sentence.strip()]
    return list(dict.fromkeys(found))[-_MOST:]


def _by_worth(sentences: Sequence[str]) -> Iterator[int]:
    """Best first: words that several sentences share, names, numbers and decisions, what came first and last. What a
    chosen sentence says counts half in those after it.
    """
    texts = [counted(sentence) for sentence in sentences]
    shared = Counter(word for text in texts for word in text)
    edges = (0, len(texts) - 1)
    telling = [
        min(len(_TELLING.findall(sentence)), _TELLING_PARTS) + (at in edges) for at, sentence in enumerate(sentences)
    ]
    worth = {word: math.log(1 + times) * math.log(1 + len(texts) / times) for word, times in shared.items()}
    left = set(range(len(sentences)))

    def value(at: int) -> float:
        return sum(worth[word] for word in texts[at]) / math.sqrt(1 + sum(texts[at].values())) + 0.5 * telling[at]

    while left:
        best = max(left, key=lambda at: (value(at), -at))
        left.remove(best)
        yield best
        for word in texts[best]:
            worth[word] /= 2
