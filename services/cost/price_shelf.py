"""Which price books hold for a tenant: its own, imported at run time, before the mesh's."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from services.cost import price_document
from services.cost.errors import PriceBookNotFound
from services.cost.prices import PriceBook, PriceList
from services.cost.store import CostStore, StoredBook
from shared.clock import Clock

MESH: Final = "*"
_FRESH_FOR: Final = timedelta(seconds=5)


class PriceShelf:
    """Books by tenant, read again every few seconds so that an import reaches every replica."""

    def __init__(self, store: CostStore, base: PriceBook, *, clock: Clock) -> None:
        self._store = store
        self._base = base
        self._clock = clock
        self._known: dict[str, tuple[timedelta, PriceList]] = {}

    async def publish(self) -> None:
        """Keeps the mesh's book, so that entries priced by it can be checked for ever."""
        await self._store.adopt_prices(MESH, self._stored(self._base))

    async def of(self, tenant: str) -> PriceList:
        """What the tenant pays."""
        now = self._clock.monotonic()
        known = self._known.get(tenant)
        if known and now - known[0] < _FRESH_FOR:
            return known[1]
        stored = await self._store.price_book(tenant, "")
        if known and stored and known[1].books[0].version == stored.version:
            listed = known[1]
        else:
            own = (price_document.parse_stored(stored.document),) if stored else ()
            listed = PriceList((*own, self._base))
        self._known[tenant] = (now, listed)
        return listed

    async def adopt(self, tenant: str, document: str, *, validate_only: bool) -> PriceBook:
        """Makes the document the tenant's own book. Raises PriceBookInvalid."""
        book = price_document.parse(document)
        if not validate_only:
            await self._store.adopt_prices(tenant, self._stored(book))
            self._known.pop(tenant, None)
        return book

    async def book(self, tenant: str, version: str) -> StoredBook:
        """The book of this version; for an empty one the tenant's own, else the mesh's. Raises PriceBookNotFound."""
        found = await self._store.price_book(tenant, version)
        if found is None and version in ("", self._base.version):
            return self._stored(self._base)
        if found is None:
            raise PriceBookNotFound("no such version of the price book", version=version)
        return found

    def _stored(self, book: PriceBook) -> StoredBook:
        return StoredBook(book.version, book.document, self._clock.now())
