"""The honest fake."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from services.gateway.responses.store import KEPT, LONGEST, Record


class MemoryResponseStore:
    """Everything is gone when the process ends."""

    def __init__(self) -> None:
        self._records: dict[tuple[str, str], Record] = {}

    async def begin(self, tenant: str, record: Record) -> None:
        for key, one in list(self._records.items()):
            if key[0] == tenant and one.created_at < record.created_at - KEPT:
                del self._records[key]
        self._records[tenant, record.id] = record

    async def finish(self, tenant: str, response_id: str, answer: bytes) -> bool:
        found = self._records.get((tenant, response_id))
        if found is None or found.answer is not None:
            return False
        self._records[tenant, response_id] = replace(found, answer=answer)
        return True

    async def chain(self, tenant: str, response_id: str) -> Sequence[Record]:
        found: list[Record] = []
        while (one := self._records.get((tenant, response_id))) and len(found) < LONGEST:
            found.append(one)
            response_id = one.previous_id
        return found[::-1]

    async def forget(self, tenant: str, response_id: str) -> bool:
        return self._records.pop((tenant, response_id), None) is not None
