"""The honest fake of the receipts: stores that delete share it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from services.memory.receipts import ReceiptFilter
from services.memory.store import Receipt
from shared.paging import Page


class InMemoryReceipts:
    """One list of receipts a tenant."""

    def __init__(self) -> None:
        self._tenants: dict[str, dict[str, Receipt]] = {}

    def add(self, tenant: str, receipts: Iterable[Receipt]) -> None:
        self._tenants.setdefault(tenant, {}).update({one.id: one for one in receipts})

    async def find(self, tenant: str, receipt_id: str) -> Receipt | None:
        return self._tenants.get(tenant, {}).get(receipt_id)

    async def every(self, tenant: str, chosen: ReceiptFilter, page: Page) -> Sequence[Receipt]:
        seen = page.place
        mine = sorted(self._tenants.get(tenant, {}).values(), key=_order, reverse=True)
        fitting = (one for one in mine if _fits(one, chosen) and (seen[0] is None or _order(one) < seen))
        return list(fitting)[: page.size + 1]


def _order(receipt: Receipt) -> tuple[object, str]:
    return receipt.deleted_at, receipt.id


def _fits(receipt: Receipt, chosen: ReceiptFilter) -> bool:
    return chosen.subject_id in ("", receipt.subject_id) and chosen.requested_by in ("", receipt.requested_by)
