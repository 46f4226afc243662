"""How many tokens a text is, at most: for budgets, which hold whatever model reads it."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from functools import lru_cache
from pathlib import Path
from typing import Final

# Contractions, words and numbers, spaces beyond one between words, the same sign again and again, signs.
_PIECE: Final = re.compile(
    r"'(?:s|t|re|ve|m|ll|d)\b|[^\s!-/:-@\[-`{-~\u2010-\u2027]+| (?=\d)|[^\S\n]{2,}|[\t\r\f\v]"
    r"|(?<![.!?,:;])\n\s*|(?<=[.!?,:;])\n\s*\n\s*|([!-/:-@\[-`{-~])\1+|\S"
)
_CASED: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
# Words of four letters and more that are one token in both of OpenAI's vocabularies, cl100k and o200k, and come early.
_SINGLE: Final = frozenset(Path(__file__).with_name("single_tokens.txt").read_text("ascii").split())
_SHORTEST: Final = 4
# Tokens a character by where its script begins, as the hungrier of the two vocabularies cuts plain text in it.
_SCRIPTS: Final = (
    (0x0, 0.42), (0x80, 1.0), (0x250, 1.5), (0x370, 1.1), (0x400, 0.56), (0x530, 2.0), (0x590, 1.2), (0x600, 0.85),
    (0x700, 2.0), (0x900, 1.15), (0x980, 2.1), (0xE00, 1.15), (0xE80, 2.1), (0x1E00, 1.5), (0x1F00, 2.1),
    (0x2000, 1.0), (0x2100, 3.0), (0x3000, 1.35), (0xA000, 3.0), (0xAC00, 1.6), (0xD7B0, 3.0),
)  # fmt: skip
_BEGINS: Final = [begin for begin, _ in _SCRIPTS]
# What is longer is no word, or of a script without spaces, and may be cut.
_LONG: Final = 24


def estimate(text: str) -> int:
    """About as many as the hungrier of OpenAI's tokenizers makes, and seldom fewer: a few percent more of English, up
    to half as many again of other languages.
    """
    return sum(_cost(piece.group()) for piece in _PIECE.finditer(text))


def within(text: str, tokens: int) -> str:
    """The longest beginning of so many tokens that cuts no word, up to the last one."""
    for found in _PIECE.finditer(text):
        piece, cost = found.group(), _cost(found.group())
        if cost > tokens:
            ends = range(1, len(piece) + 1) if len(piece) > _LONG else ()
            return text[: found.start() + bisect_right(ends, tokens, key=lambda end: _cost(piece[:end]))]
        tokens -= cost
    return text


@lru_cache(maxsize=16_384)
def _cost(piece: str) -> int:
    if not piece.isascii():
        return math.ceil(sum(_SCRIPTS[bisect_right(_BEGINS, ord(one)) - 1][1] for one in piece))
    if piece.isalpha():
        return sum(_word(part) for part in _CASED.findall(piece))
    if piece.isdigit():
        return math.ceil(len(piece) / 3)
    if piece.isalnum():
        return len(piece)
    # A contraction, spaces, or one sign many times.
    return 1 if piece[0] in "' \n\t" else math.ceil(len(piece) / 3)


def _word(word: str) -> int:
    """Letters of the alphabet, capitals alone or at the beginning."""
    if len(word) > 1 and word.isupper():
        return 1 + math.ceil((len(word) - 2) / 2.2)
    low = word.lower()
    for end in range(len(low), _SHORTEST - 1, -1):
        if low[:end] in _SINGLE:
            return 1 + math.ceil((len(low) - end) / 3)
    return 1 + math.ceil(max(len(low) - _SHORTEST + 1, 0) / 2.6)
