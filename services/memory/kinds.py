"""What kind of line a text is: numbers, names, quotes, words about oneself; and which kind answers a question."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import repeat
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from services.memory.words import PART_WORD, cut_all

Floats = NDArray[np.float64]
_NUMBERS: Final = frozenset(("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"))
_OWN: Final = frozenset(("i", "my", "me", "we", "our"))
_REPLIES: Final = frozenset(
    ("thanks", "thank", "wow", "that", "sounds", "yeah", "awesome", "cool", "great", "congrats")
)  # fmt: skip
_DIGIT: Final = re.compile(r"\d")
_MOST_NAMES: Final = 8
_PLACE: Final = re.compile(r"^\W*where\b|\b(?:city|cities|country|countries)\b")
_THING: Final = re.compile(r"^\W*what\b")
_PERSON: Final = re.compile(r"^\W*who\b")
# Of a word: a number, about oneself, a reply; what ends a text.
_NUMBER_MARK, _OWN_MARK, _REPLY_MARK, _END = 1, 2, 4, 8
_MARKS: Final = {
    **dict.fromkeys(_NUMBERS, _NUMBER_MARK), **dict.fromkeys(_OWN, _OWN_MARK), **dict.fromkeys(_REPLIES, _REPLY_MARK),
    PART_WORD: _END,
}  # fmt: skip
# Of a byte: small letter, comma, space, capital. No byte of a letter beyond ASCII is any of them.
_LETTER, _COMMA, _SPACE, _CAPITAL = 1, 2, 4, 8
_BYTES: Final = np.zeros(256, np.uint8)
for _bytes, _class in (
    (b"abcdefghijklmnopqrstuvwxyz", _LETTER), (b",", _COMMA), (b" ", _SPACE), (b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", _CAPITAL)
):  # fmt: skip
    _BYTES[list(_bytes)] = _class


class Kind(NamedTuple):
    """A number stands in it, something is quoted, how many names it has, it is about its speaker, it replies."""

    number: bool
    quote: bool
    names: int
    own: bool
    reply: bool


def kinds_of(texts: Sequence[str]) -> list[Kind]:
    """Of texts in English; where they are in another language most signs are missing."""
    return [Kind(bool(number), bool(quote), int(names), bool(own), bool(reply)) for number, quote, names, own, reply
            in columns(texts, cut_all(texts)).T]  # fmt: skip


def columns(texts: Sequence[str], words: Sequence[str]) -> Floats:
    """A row a sign, a column a text; `words` are theirs as `cut_all` has them."""
    marks = np.fromiter(map(_MARKS.get, words, repeat(0)), np.uint8, len(words))
    ends = np.flatnonzero(marks & _END)
    text = np.cumsum(marks & _END > 0)
    first = np.append(0, ends[:-1] + 1)[: len(texts)]
    held = [np.bincount(text[marks & mark > 0], minlength=len(texts)) > 0 for mark in (_NUMBER_MARK, _OWN_MARK)]
    digits, quotes = np.array([(bool(_DIGIT.search(one)), '"' in one) for one in texts], bool).reshape(-1, 2).T
    return np.array([held[0] | digits, quotes, _names(texts), held[1], marks[first] & _REPLY_MARK > 0], float)


def _names(texts: Sequence[str]) -> NDArray[np.intp]:
    """How many words of each begin with a capital where no sentence begins."""
    each = [one.encode() for one in texts]
    kinds = _BYTES[np.frombuffer(b"\n".join(each) + b"\n\n\n", np.uint8)]
    before, space, capital, letter = kinds[:-3], kinds[1:-2], kinds[2:-1], kinds[3:]
    found = np.flatnonzero(
        ((before == _LETTER) | (before == _COMMA)) & (space == _SPACE) & (capital == _CAPITAL) & (letter == _LETTER)
    )
    ends = np.cumsum([len(one) + 1 for one in each])
    counts = np.bincount(np.searchsorted(ends, found, side="right"), minlength=len(texts))
    return np.minimum(counts, _MOST_NAMES)


def signs(query: str, kinds: Floats) -> dict[str, Floats]:
    """One column a sign, those of a kind that the question asks for among them. `kinds` are those of `columns`."""
    low = query.lower()
    number, quote, names, own, reply = kinds
    return {
        "number": number,
        "quote": quote,
        "names": names,
        "own": own,
        "reply": reply,
        "number_asked": number * ("how many" in low),
        "place_asked": names * bool(_PLACE.search(low)),
        "title_asked": quote * bool(_THING.search(low)),
        "person_asked": names * bool(_PERSON.search(low)),
    }
