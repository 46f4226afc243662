"""How near texts are to a question token by token: for every token of the question the nearest of a text's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.products import product

Floats = NDArray[np.float64]
# A token is so many signed bytes, of which so many are the length of its vector, as inference's Embed has it.
WIDTH: Final = 64
_SCALE: Final = 127.0
_LITTLE: Final = 1e-6


class Closeness:
    """A row a text, a column a token of the question: the cosine of the nearest. Texts without tokens have zeros."""

    def __init__(self, near: Floats, read: NDArray[np.bool_]) -> None:
        self.near = near
        self.read = read

    @classmethod
    def of(cls, asked: bytes, texts: Sequence[bytes]) -> Closeness:
        sizes = np.array([len(text) // WIDTH for text in texts], np.intp)
        read = sizes > 0
        question = _vectors(asked)
        near = np.zeros((len(texts), len(question)))
        if len(question) and read.any():
            each = product(_vectors(b"".join(texts)), question.T)
            near[read] = np.maximum.reduceat(each, np.cumsum(sizes[read]) - sizes[read])
        return cls(near, read & bool(len(question)))

    def rows(self, rows: Sequence[int]) -> Closeness:
        """These texts, in this order."""
        chosen = np.array(rows, np.intp)
        return Closeness(self.near[chosen], self.read[chosen])

    def joined(self, *others: Closeness) -> Closeness:
        """As if each were one text with those of the others."""
        return Closeness(np.maximum.reduce([self.near, *(other.near for other in others)]), self.read)

    def telling(self, *, sharply: bool = False) -> Floats:
        """What each token of the question weighs, 1 in all: as much as its best text stands out among those read, or,
        sharply, the square of that.
        """
        if not self.read.any():
            return np.zeros(self.near.shape[1])
        near = self.near[self.read]
        weights: Floats = near.max(axis=0) - near.mean(axis=0) + _LITTLE
        weights = weights**2 if sharply else weights
        weights /= weights.sum()
        return weights

    def above_usual(self, weights: Floats) -> Floats:
        """How much nearer than the average text each is; 0 where it was not read."""
        if not self.read.any():
            return np.zeros(len(self.near))
        found = self.near @ weights
        above: Floats = np.where(self.read, found - found[self.read].mean(), 0.0)
        return above

    def standing_out(self, weights: Floats, deviations: float) -> Floats:
        """The share of the question's tokens to which each is nearer than the average text by so many deviations."""
        if not self.read.any():
            return np.zeros(len(self.near))
        near = self.near[self.read]
        bound = near.mean(axis=0) + deviations * near.std(axis=0)
        shares: Floats = ((self.near > bound) & self.read[:, None]) @ weights
        return shares


def _vectors(tokens: bytes) -> NDArray[np.float32]:
    """One row a token."""
    whole = np.frombuffer(tokens, np.int8).reshape(-1, WIDTH)
    return whole.astype(np.float32) / np.float32(_SCALE)
