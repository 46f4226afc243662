"""The money of one attempt: a lease before it, more while tokens flow, one settlement after it, whatever happened."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from services.inference.peers import Cost, CostPeer, Ending, Leased, Notice, Payer, Settlement
from services.inference.providers.contract import ModelCall, Usage, estimate_input
from shared.errors import MeshError
from shared.log import log

_FIRST_LEASE_TOKENS: Final = 256
_EXTEND_AT: Final = 0.75
_RENEW_SECONDS: Final = 30.0  # a lease lasts two minutes
_SETTLE_TRIES: Final = 5
_SETTLE_PAUSE: Final = timedelta(milliseconds=200)


class Tab:
    """Opened, covered, settled: each at most once at a time."""

    def __init__(self, cost: CostPeer, payer: Payer, call: ModelCall) -> None:
        self.payer = payer
        """Who pays; the model it names is the one that is settled."""
        self._cost = cost
        self._input = estimate_input(call)
        self._most = call.max_output_tokens
        self._covered = min(call.max_output_tokens, _FIRST_LEASE_TOKENS)
        self._held_at = 0.0
        self._leased = Leased()

    async def open(self) -> Sequence[Notice]:
        """Sets the first money aside; what cost asks beside. Raises the cost service's errors."""
        self._held_at = asyncio.get_running_loop().time()
        self._leased = await self._cost.reserve(self.payer, input_tokens=self._input, output_tokens=self._covered)
        return self._leased.notices

    def so_far(self, counted: int) -> tuple[int, int]:
        """The tokens of an attempt that has produced so many, and what they cost in micro-USD, rounded up."""
        return self._input + counted, self._leased.micros_usd(Usage(self._input, counted))

    async def cover(self, counted: int) -> None:
        """Keeps the lease ahead of what is streamed, doubling it, and from running out. Raises BUDGET_EXHAUSTED."""
        now = asyncio.get_running_loop().time()
        ahead = counted < self._covered * _EXTEND_AT or self._covered >= self._most
        if ahead and now - self._held_at < _RENEW_SECONDS:
            return
        if not ahead:
            self._covered = min(max(self._covered, counted) * 2, self._most)
        self._held_at = now
        spent = Usage(self._input, counted, estimated=True)
        await self._cost.extend(self.payer, output_tokens=self._covered, spent=spent)

    async def settle(self, usage: Usage, outcome: Ending, *, ended_at: datetime) -> Cost | None:
        """The one settlement. Cost being away for seconds is bridged; longer is for whoever keeps settlements."""
        settlement = Settlement(self.payer, usage, outcome, ended_at)
        for attempt in range(1, _SETTLE_TRIES + 1):
            try:
                return await self._cost.settle(settlement)
            except MeshError as error:
                if not error.retryable or attempt == _SETTLE_TRIES:
                    log.error("generation.not_settled", generation_id=self.payer.generation_id, error=error.message)
                    return None
            await asyncio.sleep(_SETTLE_PAUSE.total_seconds() * attempt)
        return None
