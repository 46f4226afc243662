"""How many memories hold the words that many hold: counting them anew would cost a search most, and tell little."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

# Fewer are counted faster than they are looked up in a stale number.
_COMMON: Final = 500
_KEPT: Final = 50_000
_TTL: Final = timedelta(minutes=10)


class CommonWords:
    """The counts of common words, by tenant, none older than ten minutes, the longest unasked going first."""

    def __init__(self) -> None:
        self._counts: OrderedDict[tuple[str, str], tuple[datetime, int]] = OrderedDict()

    def known(self, tenant: str, words: Iterable[str], now: datetime) -> list[int | None]:
        """A count a word; None where it has to be counted."""
        return [self._count(tenant, word, now) for word in words]

    def note(self, tenant: str, counts: Iterable[tuple[str, int]], now: datetime) -> None:
        """Keeps what was counted."""
        for word, count in counts:
            if count >= _COMMON:
                made, _ = self._counts.pop((tenant, word), (now, count))
                self._counts[tenant, word] = (made if now - made < _TTL else now, count)
        while len(self._counts) > _KEPT:
            self._counts.popitem(last=False)

    def _count(self, tenant: str, word: str, now: datetime) -> int | None:
        made, count = self._counts.get((tenant, word), (now, None))
        return count if now - made < _TTL else None
