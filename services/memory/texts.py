"""The words of a question in many texts at once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.memory.closely import Closeness
from services.memory.kinds import columns
from services.memory.store import Found, Gathered
from services.memory.words import LENGTH, PART, SATURATION, cut_all, numbered, stems, weight

Floats = NDArray[np.float64]
NOTHING: Final = -1


class Texts:
    """A row a text, a column a word: how often each holds each, how long it is, how near, of what kind. Row `NOTHING`
    holds none.
    """

    def __init__(self, times: Floats, lengths: Floats, cosines: Floats, kinds: Floats) -> None:
        self.times = times
        self.lengths = lengths
        self.cosines = cosines
        self.kinds = kinds

    @classmethod
    def of(cls, found: Sequence[Found], words: Sequence[str]) -> Texts:
        """All texts are cut in one, each word among all of them looked at once."""
        contents = [*(one.memory.content for one in found), ""]
        cut = cut_all(contents)
        stems, asked = numbered(cut, words)
        size = len(found) + 1
        row = np.cumsum(stems == PART)
        times = [np.bincount(row[stems == number], minlength=size) for number in asked]
        return cls(
            np.array(times, float).reshape(len(asked), size).T,
            np.bincount(row[stems > 0], minlength=size).astype(float), np.array([*(one.cosine for one in found), 0.0]),
            columns(contents, cut),
        )  # fmt: skip

    def rows(self, rows: Sequence[int]) -> Texts:
        """These texts, in this order."""
        chosen = np.array(rows, np.intp)
        return Texts(self.times[chosen], self.lengths[chosen], self.cosines[chosen], self.kinds[:, chosen])

    def columns(self, chosen: Sequence[int]) -> Texts:
        """The same texts, these words alone."""
        return Texts(self.times[:, np.array(chosen, np.intp)], self.lengths, self.cosines, self.kinds)

    def joined(self, *others: Texts) -> Texts:
        """As if they were one text each with those of the others."""
        return Texts(
            sum((other.times for other in others), self.times),
            sum((other.lengths for other in others), self.lengths), self.cosines, self.kinds,
        )  # fmt: skip

    def bm25(self, weights: Floats, average: float) -> Floats:
        """Okapi BM25."""
        norm = SATURATION * (1 - LENGTH + LENGTH * self.lengths / average)
        scores: Floats = (self.times * (SATURATION + 1) / (self.times + norm[:, None])) @ weights
        return scores

    def rarest(self, weights: Floats) -> Floats:
        """What the rarest held word weighs, as a share of the rarest asked one."""
        if not len(weights):
            return np.zeros(len(self.lengths))
        shares: Floats = ((self.times > 0) * weights).max(axis=1) / (weights.max() or 1.0)
        return shares

    def covered(self, weights: Floats) -> Floats:
        """The share of what the words weigh that is held."""
        shares: Floats = (self.times > 0) @ weights / (weights.sum() or 1.0)
        return shares

    def held(self, row: int) -> NDArray[np.intp]:
        """The columns of the words that a text holds."""
        return np.flatnonzero(self.times[row])


class Reading:
    """A question's words in all that was gathered for it, and its tokens, as far as their vectors are known."""

    def __init__(self, query: str, gathered: Gathered, tokens: bytes = b"") -> None:
        self.words = query_words(query)
        self.weights: Floats = np.array([weight(word, gathered.corpus) for word in self.words])
        self.average = max(gathered.corpus.average_length, 1.0)
        beside = (one for near in gathered.beside.values() for _, one in near)
        found = {one.memory.place: one for one in chain(gathered.pool, beside)}
        self.row = {place: at for at, place in enumerate(found)}
        self.texts = Texts.of(list(found.values()), self.words)
        of_each = [*(gathered.tokens.get(place, b"") for place in found), b""]
        self.closeness = Closeness.of(tokens, of_each)
        self._covered = self.texts.covered(self.weights)

    def coverage(self, found: Found) -> float:
        """The share of what the question's words weigh that a memory holds."""
        return float(self._covered[self.row[found.memory.place]])


def query_words(query: str) -> tuple[str, ...]:
    """The words to look for, each once, in their order."""
    return tuple(dict.fromkeys(stems(query)))
