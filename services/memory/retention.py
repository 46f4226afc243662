"""Conversations and facts within their bounds: what has outlived its time or its room goes, with receipts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Final, TypeAlias, TypeVar

from services.memory.bounds import Bounds, BoundsStore, Kept, Kind
from services.memory.conversation import Conversations
from services.memory.fact_store import Fact
from services.memory.facts import Facts
from services.memory.receipts import RETENTION
from shared.clock import Clock
from shared.log import log

_BATCH: Final = 500

Tenants = Callable[[], Awaitable[Sequence[str]]]
_One = TypeVar("_One")
# What goes next for one cause.
Batch: TypeAlias = Callable[[], Awaitable[Sequence[_One]]]


@dataclass(frozen=True, slots=True)
class KindUsage:
    """What a tenant keeps of a kind, and the bounds that hold for it."""

    kind: Kind
    kept: Kept
    bounds: Bounds


@dataclass(frozen=True, slots=True)
class Outlived:
    """How many went."""

    conversations: int
    facts: int


class Retention:
    """`bounds` are the mesh's, for tenants that set none of their own."""

    def __init__(
        self, store: BoundsStore, conversations: Conversations, facts: Facts, clock: Clock, *,
        bounds: Mapping[Kind, Bounds],
    ) -> None:  # fmt: skip
        self._store = store
        self._conversations = conversations
        self._facts = facts
        self._clock = clock
        self._bounds = bounds

    async def run(self, tenants: Tenants, every: timedelta) -> None:
        """Prunes all tenants, for ever."""
        while True:
            await asyncio.sleep(every.total_seconds())
            for tenant in await tenants():
                gone = await self.prune(tenant, dry_run=False)
                if gone != Outlived(0, 0):
                    log.info("memory.outlived", tenant=tenant, conversations=gone.conversations, facts=gone.facts)

    async def set_bounds(self, tenant: str, kind: Kind, bounds: Bounds) -> None:
        """Bounds a kind, in place of the mesh's bounds."""
        await self._store.set_bounds(tenant, kind, bounds)

    async def usage(self, tenant: str) -> list[KindUsage]:
        """By kind, without those of which there are none and which have no bound."""
        held = await self._held(tenant)
        now = self._clock.now()
        kept = {
            Kind.CONVERSATION: await self._conversations.kept(tenant),
            Kind.FACT: await self._facts.kept(tenant, ended_by=None),
            Kind.ENDED_FACT: await self._facts.kept(tenant, ended_by=now),
        }
        found = [KindUsage(kind, kept[kind], held[kind]) for kind in Kind]
        return [one for one in found if one.kept.count or one.bounds != Bounds()]

    async def prune(self, tenant: str, *, dry_run: bool) -> Outlived:
        """What is too old, then what is too much. A dry run counts the first batches: at most 500 a kind and cause."""
        held = await self._held(tenant)
        spoken = self._conversations_beyond(tenant, held[Kind.CONVERSATION])
        known = [
            *self._facts_beyond(tenant, held[Kind.FACT], ended_by=None),
            *self._facts_beyond(tenant, held[Kind.ENDED_FACT], ended_by=self._clock.now()),
        ]
        if dry_run:
            sessions = {session for batch in spoken for session in await batch()}
            return Outlived(len(sessions), len({fact.id for batch in known for fact in await batch()}))
        return Outlived(
            sum([await self._forget_conversations(tenant, batch) for batch in spoken]),
            sum([await self._forget_facts(tenant, batch) for batch in known]),
        )

    async def _held(self, tenant: str) -> Mapping[Kind, Bounds]:
        return dict.fromkeys(Kind, Bounds()) | dict(self._bounds) | dict(await self._store.bounds(tenant))

    def _conversations_beyond(self, tenant: str, bounds: Bounds) -> list[Batch[str]]:
        batches: list[Batch[str]] = []
        if bounds.days:
            batches.append(partial(self._conversations.silent, tenant, before=self._before(bounds), limit=_BATCH))
        if bounds.at_most:
            batches.append(partial(self._conversations.surplus, tenant, at_most=bounds.at_most, limit=_BATCH))
        return batches

    def _facts_beyond(self, tenant: str, bounds: Bounds, *, ended_by: datetime | None) -> list[Batch[Fact]]:
        batches: list[Batch[Fact]] = []
        if bounds.days:
            batches.append(partial(self._facts.outlived, tenant, before=self._before(bounds), ended_by=ended_by,
                                   limit=_BATCH))  # fmt: skip
        if bounds.at_most:
            batches.append(partial(self._facts.surplus, tenant, at_most=bounds.at_most, ended_by=ended_by,
                                   limit=_BATCH))  # fmt: skip
        return batches

    async def _forget_conversations(self, tenant: str, batch: Batch[str]) -> int:
        gone = 0
        while found := await batch():
            done = [await self._conversations.forget_silent(tenant, one, requested_by=RETENTION) for one in found]
            gone += sum(done)
            if not all(done):
                # Somebody speaks there now: another time.
                break
        return gone

    async def _forget_facts(self, tenant: str, batch: Batch[Fact]) -> int:
        gone = 0
        while found := await batch():
            gone += len(await self._facts.forget_all(tenant, found, requested_by=RETENTION))
        return gone

    def _before(self, bounds: Bounds) -> datetime:
        return self._clock.now() - timedelta(days=bounds.days)
