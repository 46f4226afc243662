"""Forgetting for good: what goes, and what it left in summaries."""

from __future__ import annotations

from collections.abc import Sequence

from services.memory.consolidate import Consolidation
from services.memory.remember import FORGET_AT_ONCE, Remembering
from services.memory.store import NEVER, Filter, Receipt
from shared.paging import Page


class Forgetting:
    """Deletes memories of all tenants, one tenant a call. What they said goes from summaries first, so that who is
    interrupted forgets again.
    """

    def __init__(self, remembering: Remembering, consolidation: Consolidation) -> None:
        self._remembering = remembering
        self._consolidation = consolidation

    async def forget(self, tenant: str, memory_id: str, *, requested_by: str) -> Receipt:
        """The proof of the deletion, also of what has ended and still waits for pruning. Raises MemoryNotFound."""
        memory = await self._remembering.find(tenant, memory_id, now=NEVER)
        await self._consolidation.without(tenant, [memory], requested_by=requested_by)
        return await self._remembering.forget(tenant, memory, requested_by=requested_by)

    async def forget_many(self, tenant: str, chosen: Filter, *, requested_by: str) -> tuple[Sequence[Receipt], bool]:
        """The proofs, and whether more is left to delete."""
        page = Page(FORGET_AT_ONCE)
        found = await self._remembering.every(tenant, chosen, newest_first=False, page=page, now=NEVER)
        going = found[:FORGET_AT_ONCE]
        if not chosen.session or chosen.agent or chosen.tags:
            # Of a session that goes as a whole the summary goes too.
            await self._consolidation.without(tenant, going, requested_by=requested_by)
        receipts = await self._remembering.forget_all(tenant, going, requested_by=requested_by)
        return receipts, len(found) > len(receipts)
