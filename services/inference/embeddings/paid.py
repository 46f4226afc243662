"""Embedding models of providers: texts leave if policy lets them; their cost is leased before and settled after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from services.inference.embeddings.contract import Embedded, Embedder
from services.inference.errors import ReplayMissed
from services.inference.peers import Metered, Payer
from services.inference.providers.contract import Usage
from services.inference.purchase import Purchases, Spent
from shared.identity import Principal
from shared.ids import Ids

_CHARACTERS_A_TOKEN: Final = 4  # of English; only the lease rests on it


class PaidEmbedder:
    """One model of a provider's. Each call is a generation of its own in the ledger."""

    def __init__(
        self,
        embedder: Embedder,
        provider: str,
        model: str,
        *,
        purchases: Purchases,
        caller: Callable[[], Principal],
        ids: Ids,
    ) -> None:
        self._embedder = embedder
        self._provider = provider
        self._model = model
        self._purchases = purchases
        self._caller = caller
        self._ids = ids

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """As the model does. Raises PolicyBlocked, PolicyUnavailable and what cost refuses with."""
        payer = Payer(self._caller(), self._ids.new("emb"), self._provider, self._model, "", "")
        _, texts = await self._purchases.judged(payer, texts)
        tokens = sum(len(text) // _CHARACTERS_A_TOKEN + 1 for text in texts)
        async with self._purchases.paid(payer, _spent(tokens, estimated=True)) as purchase:
            found = await self._embedder.embed(texts)
            if found.tokens:  # else what was leased is the best that is known
                purchase.spent = _spent(found.tokens, estimated=found.estimated)
        return found


def paying(
    purchases: Purchases, *, caller: Callable[[], Principal], ids: Ids, offline: bool
) -> Callable[..., Embedder]:
    """How an embedder, its provider and its model become one that pays, or offline one that asks nobody."""
    if offline:
        return lambda *_, **__: Unrecorded()
    return partial(PaidEmbedder, purchases=purchases, caller=caller, ids=ids)


class Unrecorded:
    """A provider's model under strict replay: vectors are not recorded, so nobody is asked."""

    async def embed(self, texts: Sequence[str]) -> Embedded:
        raise ReplayMissed("vectors are not recorded and strict replay asks no provider; the embedded model answers")


def _spent(tokens: int, *, estimated: bool = False) -> Spent:
    return Spent(Usage(0, 0, estimated=estimated), Metered(embedding_tokens=tokens))
