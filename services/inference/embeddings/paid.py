"""Embedding models of providers: texts leave if policy lets them; their cost is leased before and settled after."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from services.inference.embeddings.contract import Embedded, Embedder
from services.inference.enforcement import Enforcement, report
from services.inference.errors import REFUSED
from services.inference.peers import CostPeer, Ending, Payer, PolicyPeer, Settlement
from services.inference.providers.contract import Usage
from shared.clock import Clock
from shared.errors import MeshError
from shared.identity import Principal
from shared.ids import Ids
from shared.log import log

_CHARACTERS_A_TOKEN: Final = 4  # of English; only the lease rests on it


class PaidEmbedder:
    """One model of a provider's. Each call is a generation of its own in the ledger."""

    def __init__(
        self,
        embedder: Embedder,
        provider: str,
        model: str,
        *,
        cost: CostPeer,
        policy: PolicyPeer,
        enforcement: Enforcement,
        caller: Callable[[], Principal],
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._embedder = embedder
        self._provider = provider
        self._model = model
        self._cost = cost
        self._policy = policy
        self._enforcement = enforcement
        self._caller = caller
        self._clock = clock
        self._ids = ids

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """As the model does. Raises PolicyBlocked, PolicyUnavailable and what cost refuses with."""
        payer = Payer(self._caller(), self._ids.new("emb"), self._provider, self._model, "", "")
        await self._judged(payer, texts)
        tokens = sum(len(text) // _CHARACTERS_A_TOKEN + 1 for text in texts)
        await self._cost.reserve(payer, input_tokens=0, output_tokens=0, embedding_tokens=tokens)
        spent, told, ending = tokens, False, Ending.CUT
        try:
            found = await self._embedder.embed(texts)
            spent, told, ending = found.tokens, True, Ending.COMPLETED
        except REFUSED:
            spent, told = 0, True
            raise
        finally:
            usage = Usage(0, 0, estimated=not told)
            settlement = Settlement(payer, usage, ending, self._clock.now(), embedding_tokens=spent)
            await asyncio.shield(self._settle(settlement))
        return found

    async def _judged(self, payer: Payer, texts: Sequence[str]) -> None:
        held = await self._enforcement.held(payer, ())
        verdicts, refusal = await self._enforcement.check_prompt(held, payer, texts)
        if verdicts:
            await report(self._policy, payer, verdicts, at=self._clock.now())
        if refusal:
            raise refusal

    async def _settle(self, settlement: Settlement) -> None:
        """Cost being away costs the caller nothing: the settlement is kept where there is a folder for it."""
        try:
            await self._cost.settle(settlement)
        except MeshError as error:
            log.error("embedding.not_settled", generation_id=settlement.payer.generation_id, error=error.message)
