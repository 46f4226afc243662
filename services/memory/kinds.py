"""What kind of line a text is: numbers, names, quotes, words about oneself; and which kind answers a question."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from services.memory.words import cut

Floats = NDArray[np.float64]
_NUMBERS: Final = frozenset(("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"))
_OWN: Final = frozenset(("i", "my", "me", "we", "our"))
_REPLIES: Final = frozenset(
    ("thanks", "thank", "wow", "that", "sounds", "yeah", "awesome", "cool", "great", "congrats")
)  # fmt: skip
_DIGIT: Final = re.compile(r"\d")
# A capital where no sentence begins.
_NAME: Final = re.compile(r"(?<=[a-z,] )[A-Z][a-z]")
_MOST_NAMES: Final = 8
_PLACE: Final = re.compile(r"^\W*where\b|\b(?:city|cities|country|countries)\b")
_THING: Final = re.compile(r"^\W*what\b")
_PERSON: Final = re.compile(r"^\W*who\b")


class Kind(NamedTuple):
    """A number stands in it, something is quoted, how many names it has, it is about its speaker, it replies."""

    number: bool
    quote: bool
    names: int
    own: bool
    reply: bool


def kind_of(text: str) -> Kind:
    """Of a text in English; where it is another language most signs are missing."""
    words = cut(text)
    return Kind(
        number=bool(_DIGIT.search(text)) or not _NUMBERS.isdisjoint(words),
        quote='"' in text,
        names=min(len(_NAME.findall(text)), _MOST_NAMES),
        own=not _OWN.isdisjoint(words),
        reply=bool(words) and words[0] in _REPLIES,
    )


def signs(query: str, texts: Sequence[str]) -> dict[str, Floats]:
    """One column a sign, those of a kind that the question asks for among them."""
    low = query.lower()
    number, quote, names, own, reply = np.array([kind_of(text) for text in texts], float).reshape(-1, 5).T
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
