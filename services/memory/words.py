"""How a text is cut into words, how words weigh, and what a misspelt word may have meant."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
import Stemmer
from numpy.typing import NDArray

from services.memory.store import Corpus, Memory

_WORD: Final = re.compile(r"\w+")
# The same for ASCII, many times as fast: what is no letter or digit parts words.
_PLAIN: Final = "".join(chr(code).lower() if chr(code).isalnum() else " " for code in range(128))
_PLAIN_BYTES: Final = _PLAIN.encode() + bytes(range(128, 256))
# What ends a text among many: no word, and not ASCII.
PART_WORD: Final = "\u00b7"
PART: Final = -1
# So many words keep their numbers.
_NUMBERED: Final = 200_000
_STOP: Final = frozenset(
    [
        "a",
        "about",
        "also",
        "an",
        "and",
        "any",
        "are",
        "as",
        "at",
        "be",
        "been",
        "but",
        "by",
        "can",
        "could",
        "d",
        "did",
        "do",
        "does",
        "for",
        "from",
        "had",
        "has",
        "have",
        "he",
        "her",
        "him",
        "his",
        "how",
        "i",
        "if",
        "in",
        "is",
        "it",
        "its",
        "just",
        "ll",
        "m",
        "me",
        "my",
        "no",
        "not",
        "of",
        "on",
        "or",
        "our",
        "re",
        "s",
        "she",
        "should",
        "so",
        "some",
        "t",
        "than",
        "that",
        "the",
        "their",
        "them",
        "then",
        "there",
        "they",
        "this",
        "to",
        "us",
        "ve",
        "was",
        "we",
        "were",
        "what",
        "when",
        "where",
        "which",
        "who",
        "whom",
        "whose",
        "why",
        "will",
        "with",
        "would",
        "you",
        "your",
    ]
)
# What no rule of stemming brings together: "went" with "go". One line a word, its other forms behind it.
_IRREGULAR: Final = {
    form: line.split()[0]
    for line in Path(__file__).with_name("irregular.txt").read_text().splitlines()
    for form in line.split()[1:]
}
_STEMMER: Final = Stemmer.Stemmer("english")
SATURATION: Final = 1.2
LENGTH: Final = 0.75
_LONGEST: Final = 64
_SHORT: Final = 3
_LONG: Final = 8


@lru_cache(maxsize=4_096)
def counted(text: str) -> Mapping[str, int]:
    """The stems of a text and how often each occurs. Function words are left out."""
    return Counter(stems(text))


def words_of(memory: Memory) -> Mapping[str, int]:
    """The words a memory is found by: none for a text of an embedding set."""
    return {} if memory.embedding_set else counted(memory.content)


def filed_under(memory: Memory) -> Mapping[str, int]:
    """Its words and its tags, each tag as `tag_word` has it."""
    return {**words_of(memory), **({} if memory.embedding_set else dict.fromkeys(map(tag_word, memory.tags), 1))}


def tag_word(tag: str) -> str:
    """A tag as an entry of the inverted index: behind a sign that no word has."""
    return f"#{tag}"


def stems(text: str) -> list[str]:
    """The stems of a text in order, without function words."""
    return [found for word in cut(text) if (found := stem(word))]


def cut(text: str) -> list[str]:
    """The words of a text as they stand there, in lower case."""
    return text.translate(_PLAIN).split() if text.isascii() else _WORD.findall(text.lower().replace("_", " "))


def cut_all(texts: Iterable[str]) -> list[str]:
    """The words of all texts, as `cut` has them, with a `PART_WORD` behind each text."""
    plain = (text if text.isascii() else " ".join(cut(text)) for text in texts)
    return "".join(f"{text} {PART_WORD} " for text in plain).encode().translate(_PLAIN_BYTES).decode().split()


def numbered(words: Sequence[str], asked: Sequence[str]) -> tuple[NDArray[np.int32], list[int]]:
    """Every word of `cut_all` as the number of its stem, 0 for a function word, with `PART` behind each text; and the
    numbers of the stems that are asked for. A number serves this one answer.
    """
    if len(_NUMBERS) > _NUMBERED:
        _NUMBERS.forget()
    return np.fromiter(map(_NUMBERS.__getitem__, words), np.int32, len(words)), list(map(_NUMBERS.of_stem, asked))


def stem(word: str) -> str:
    """Of a word in lower case; empty for a function word."""
    return _stem(word[:_LONGEST])


class _Numbers(dict[str, int]):
    """By word in lower case the number of its stem."""

    def __init__(self) -> None:
        super().__init__()
        self._stems: dict[str, int] = {}
        self.forget()

    def forget(self) -> None:
        self.clear()
        self._stems = {"": 0}
        self[PART_WORD] = PART

    def of_stem(self, kept: str) -> int:
        return self._stems.setdefault(kept, len(self._stems))

    def __missing__(self, word: str) -> int:
        self[word] = found = self.of_stem(stem(word))
        return found


_NUMBERS: Final = _Numbers()


@lru_cache(maxsize=65_536)
def _stem(word: str) -> str:
    found: str = "" if word in _STOP else _STEMMER.stemWord(_IRREGULAR.get(word, word))
    return found


def weight(word: str, corpus: Corpus) -> float:
    """How much a word tells: rare words tell more."""
    holding = corpus.holding.get(word, 0)
    return math.log(1 + (max(corpus.memories, holding) - holding + 0.5) / (holding + 0.5))


def bm25(words: Mapping[str, int], query: Iterable[str], corpus: Corpus) -> float:
    """Okapi BM25 of a memory with these words."""
    length = sum(words.values()) / max(corpus.average_length, 1.0)
    norm = SATURATION * (1 - LENGTH + LENGTH * length)
    return sum(
        weight(word, corpus) * words[word] * (SATURATION + 1) / (words[word] + norm) for word in query if word in words
    )


def mended(text: str, slips: Mapping[str, str]) -> str:
    """The text with other words in place of those whose stems are misspelt."""
    return _WORD.sub(lambda word: slips.get(stem(word[0].lower()), word[0]), text)


def meant(word: str, known: Sequence[str]) -> str | None:
    """The known word that differs by one slip of the fingers, or by two in a long word; None when there is none."""
    allowed = 1 if len(word) < _LONG else 2
    near = [(slips, other) for other in known if (slips := _slips(word, other, allowed)) <= allowed]
    return min(near)[1] if near and len(word) > _SHORT else None


def _slips(first: str, second: str, most: int) -> int:
    """Letters added, left out, changed or swapped with the next; anything above `most` is not told apart."""
    if abs(len(first) - len(second)) > most:
        return most + 1
    before: list[int] = []
    row = list(range(len(second) + 1))
    for i, letter in enumerate(first, start=1):
        earlier, before, row = before, row, [i]
        for j, other in enumerate(second, start=1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == second[j - 2] and first[i - 2] == other:
                cost = min(cost, earlier[j - 2] + 1)
            row.append(cost)
    return row[-1]
