"""When agents are taken to agree: Jaccard similarity (Jaccard 1901) of the words of two successive rounds."""

from __future__ import annotations

import re
from typing import Final

DEFAULT_THRESHOLD: Final = 0.8
_WORD: Final = re.compile(r"\w+")


def similarity(before: str, now: str) -> float:
    """Shared words over all words, 0 to 1; 0 when either says nothing."""
    first, second = _words(before), _words(now)
    if not first or not second:
        return 0.0
    return len(first & second) / len(first | second)


def agreed(alike: float, threshold: float) -> bool:
    return alike >= (threshold or DEFAULT_THRESHOLD)


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower()))
