"""A shorter text that says what matters, without a model: the sentences that stand for most of the others."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

from services.memory.tokens import estimate
from services.memory.words import counted

_SENTENCE: Final = re.compile(r"(?<=[.!?])\s+|\n+")
_TELLING: Final = re.compile(
    r"\d|[A-Z][a-z]+ [A-Z]|\b(?:decid|agree|must|will|because|prefer|deadline|never|always)", re.IGNORECASE
)
_MOST: Final = 400


def summarize(texts: Sequence[str], *, max_tokens: int) -> str:
    """Whole sentences of the texts, in their order, within the budget. Short input comes back as it is."""
    whole = "\n".join(text.strip() for text in texts if text.strip())
    if estimate(whole) <= max_tokens:
        return whole
    sentences = _sentences(texts)
    left = max_tokens
    kept = []
    for at in _by_worth(sentences):
        cost = estimate(sentences[at])
        if cost <= left:
            kept.append(at)
            left -= cost
    if not kept and sentences:
        return clipped(sentences[0], max_tokens)
    return "\n".join(sentences[at] for at in sorted(kept))


def clipped(text: str, max_tokens: int) -> str:
    """The beginning of a text that fits the budget, cut between words."""
    if estimate(text) <= max_tokens:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if estimate(text[:middle]) <= max_tokens - 1 else (low, middle - 1)
    cut = text[:low]
    return f"{cut.rsplit(maxsplit=1)[0] if ' ' in cut else cut}…" if low else ""


def _sentences(texts: Sequence[str]) -> list[str]:
    """Every sentence once; of a long history the newest ones."""
    found = [sentence.strip() for text in texts for sentence in _SENTENCE.split(text) if sentence.strip()]
    return list(dict.fromkeys(found))[-_MOST:]


def _by_worth(sentences: Sequence[str]) -> list[int]:
    """Best first: words that many sentences share, names, numbers and decisions, and what came first and last."""
    texts = [counted(sentence) for sentence in sentences]
    shared = Counter(word for text in texts for word in text)
    worth = []
    for at, (sentence, text) in enumerate(zip(sentences, texts, strict=True)):
        central = sum(math.log(1 + shared[word]) for word in text) / math.sqrt(1 + sum(text.values()))
        telling = min(len(_TELLING.findall(sentence)), 3) * 0.5
        edge = 0.5 if at in (0, len(sentences) - 1) else 0.0
        worth.append(central + telling + edge)
    return sorted(range(len(sentences)), key=lambda at: (-worth[at], at))
