"""What turns texts into vectors, whoever computes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

Vector: TypeAlias = tuple[float, ...]
TokenIds: TypeAlias = list[int]


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors in order, tokens read (0: nobody said), how many texts were cut to the window, and which by their places.
    By text the vectors of its tokens, as `Computed` has them; none at all from a model that has none. Whether the count
    of tokens is an estimate.
    """

    vectors: tuple[Vector, ...]
    tokens: int
    truncated: int
    cut: tuple[int, ...] = ()
    token_vectors: tuple[bytes, ...] = ()
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class Worded:
    """What a model wants before the texts it reads."""

    query: str = ""
    passage: str = ""

    def texts(self, texts: Sequence[str], *, query: bool) -> list[str]:
        """As the model reads them: what is searched with, or what is kept."""
        prefix = self.query if query else self.passage
        return [prefix + text for text in texts]


class Computed(NamedTuple):
    """A text's vector, and those of its tokens one behind the other, each `token_axes.WIDTH` signed bytes."""

    vector: Vector
    token_vectors: bytes = b""


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

    def vectors(self, texts: Sequence[TokenIds]) -> list[Computed]:
        """What it makes of each text. That does not depend on what else is in the batch."""
