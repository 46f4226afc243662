"""The proofs of deletions, and what is asked of where they are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from services.memory.errors import ReceiptNotFound
from services.memory.store import Receipt
from shared.paging import Page

# Who asked for the deletion of what was beyond its bounds or had ended.
RETENTION: Final = "retention"


@dataclass(frozen=True, slots=True)
class ReceiptFilter:
    """Which receipts. Empty means all."""

    subject_id: str = ""
    requested_by: str = ""


class ReceiptStore(Protocol):
    """Where receipts are read. Those who delete write them, in the transaction that deletes."""

    async def find(self, tenant: str, receipt_id: str) -> Receipt | None:
        """One receipt."""

    async def every(self, tenant: str, chosen: ReceiptFilter, page: Page) -> Sequence[Receipt]:
        """The last ones first, at most `page.size` + 1. The cursor is (time, id) of the last one seen."""


class Receipts:
    """What was deleted, one tenant a call."""

    def __init__(self, store: ReceiptStore) -> None:
        self._store = store

    async def find(self, tenant: str, receipt_id: str) -> Receipt:
        """Raises ReceiptNotFound."""
        found = await self._store.find(tenant, receipt_id)
        if found is None:
            raise ReceiptNotFound(f"no receipt {receipt_id}", receipt_id=receipt_id)
        return found

    async def every(self, tenant: str, chosen: ReceiptFilter, page: Page) -> Sequence[Receipt]:
        """The last ones first."""
        return await self._store.every(tenant, chosen, page)
