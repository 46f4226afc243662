"""What turns texts into vectors, whoever computes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

Vector: TypeAlias = tuple[float, ...]
TokenIds: TypeAlias = list[int]


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors in order, tokens read (0: nobody said), how many texts were cut to the window, and which by their places;
    whether the tokens are an estimate.
    """

    vectors: tuple[Vector, ...]
    tokens: int
    truncated: int
    cut: tuple[int, ...] = ()
    estimated: bool = False


class Embedder(Protocol):
    """Turns texts into vectors of unit length."""

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """One vector a text, in order. Raises the errors of services.inference.errors."""


@dataclass(frozen=True, slots=True)
class Tokenised:
    """One text as its model reads it, cut to the model's window."""

    ids: TokenIds
    cut: bool


class VectorModel(Protocol):
    """A model in this process. Both calls compute and never await: they belong into a thread."""

    @property
    def name(self) -> str:
        """The mesh's name for it."""

    def tokenise(self, texts: Sequence[str]) -> list[Tokenised]:
        """The texts' tokens, cut to the window."""

    def vectors(self, texts: Sequence[TokenIds]) -> list[Vector]:
        """One vector a text. A vector does not depend on what else is in the batch."""
