"""The embedding models of a mesh by name: the embedded one and those behind OpenAI's wire format."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import aiohttp

from services.inference.embeddings.cache import CachingEmbedder, VectorCache
from services.inference.embeddings.contract import Embedded, Embedder, Worded
from services.inference.embeddings.gathering import GatheringEmbedder
from services.inference.embeddings.openai_compatible import EmbeddingEndpoint, OpenAICompatibleEmbedder
from services.inference.embeddings.retrying import Patience, RetryingEmbedder
from services.inference.errors import ModelNotFound
from services.inference.tokenizers import Tokenizers


@dataclass(frozen=True, slots=True)
class RemoteEmbeddings:
    """A model of the catalogue's, and the tokens its texts are cut to; 0: they are sent whole."""

    endpoint: EmbeddingEndpoint
    window: int = 0


@dataclass(frozen=True, slots=True)
class NamedEmbedder:
    """A model by its own name, and how it wants its texts worded."""

    name: str
    embedder: Embedder
    worded: Worded = field(default_factory=Worded)

    async def embed(self, texts: Sequence[str], *, query: bool) -> Embedded:
        """Vectors of what is searched with, or else of what is kept."""
        return await self.embedder.embed(self.worded.texts(texts, query=query))


class EmbeddingModels:
    """Which embedder a name means."""

    def __init__(
        self, models: Mapping[str, Embedder], *, default: str, worded: Mapping[str, Worded] | None = None
    ) -> None:
        """`default` is one of them, for calls that name none; `worded` of those that want it."""
        self._models = dict(models)
        self._worded = dict(worded or {})
        self._default = default

    @property
    def names(self) -> Sequence[str]:
        """All of them, sorted."""
        return sorted(self._models)

    def find(self, name: str) -> NamedEmbedder:
        """Raises ModelNotFound, which lists those there are."""
        chosen = name or self._default
        embedder = self._models.get(chosen)
        if embedder is None:
            known = ", ".join(self.names)
            raise ModelNotFound(f"no embedding model {chosen}; there are {known}", model=chosen, known=known)
        return NamedEmbedder(chosen, embedder, self._worded.get(chosen, Worded()))


def remote_embedder(
    endpoint: EmbeddingEndpoint,
    session: aiohttp.ClientSession,
    *,
    window: int,
    tokenizers: Tokenizers,
    cache: VectorCache | None,
    tenant: Callable[[], str],
    wait: timedelta = timedelta(),
    paid: Callable[[Embedder], Embedder] = lambda embedder: embedder,
) -> Embedder:
    """A model behind a URL: texts cut to `window` of its own tokens (0: never), asked again if need be, those of a
    tenant's callers together where they come within `wait`, paid for as `paid` does it, cached.
    """

    def cut(text: str) -> tuple[str, bool]:
        return tokenizers.cut(text, endpoint.model, window)

    asked = OpenAICompatibleEmbedder(endpoint, session, cut=cut if window else None)
    embedder = paid(GatheringEmbedder(RetryingEmbedder(asked, Patience()), wait=wait, tenant=tenant))
    if cache is None:
        return embedder
    return CachingEmbedder(embedder, cache, model=f"{endpoint.name}/{endpoint.model}/{endpoint.width}", tenant=tenant)
