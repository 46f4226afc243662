"""The honest fake."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from services.gateway.responses.store import KEPT, LONGEST, Due, Record


class MemoryResponseStore:
    """Everything is gone when the process ends."""

    def __init__(self) -> None:
        self._records: dict[tuple[str, str], Record] = {}
        self._calls: dict[tuple[str, str], dict[str, bytes]] = {}
        self._work: dict[Due, datetime] = {}

    async def begin(self, tenant: str, record: Record, *, work: bool = False) -> None:
        for key, one in list(self._records.items()):
            if key[0] == tenant and one.created_at < record.created_at - KEPT:
                self._drop(*key)
        self._records[tenant, record.id] = record
        if work:
            self._work[Due(tenant, record.id)] = record.created_at

    async def claim(self, now: datetime, until: datetime, *, most: int) -> Sequence[Due]:
        due = sorted((at, one.tenant, one.id, one) for one, at in self._work.items() if at <= now)
        taken = [replace(one, claims=one.claims + 1) for *_, one in due[:most]]
        for one in taken:
            del self._work[one]
            self._work[one] = until
        return taken

    async def renew(self, mine: Sequence[Due], until: datetime) -> Sequence[Due]:
        kept = [one for one in mine if one in self._work]
        self._work.update(dict.fromkeys(kept, until))
        return kept

    async def note(self, tenant: str, response_id: str, call: str, outcome: bytes) -> bytes | None:
        found = self._records.get((tenant, response_id))
        if found is None or found.answer is not None:
            return None
        return self._calls.setdefault((tenant, response_id), {}).setdefault(call, outcome)

    async def noted(self, tenant: str, response_id: str) -> Mapping[str, bytes]:
        return dict(self._calls.get((tenant, response_id), {}))

    async def finish(self, tenant: str, response_id: str, answer: bytes) -> bool:
        found = self._records.get((tenant, response_id))
        if found is None or found.answer is not None:
            return False
        self._records[tenant, response_id] = replace(found, answer=answer)
        self._work.pop(Due(tenant, response_id), None)
        return True

    async def chain(self, tenant: str, response_id: str) -> Sequence[Record]:
        found: list[Record] = []
        while (one := self._records.get((tenant, response_id))) and len(found) < LONGEST:
            found.append(one)
            response_id = one.previous_id
        return found[::-1]

    async def forget(self, tenant: str, response_id: str) -> bool:
        return self._drop(tenant, response_id)

    def _drop(self, tenant: str, response_id: str) -> bool:
        self._work.pop(Due(tenant, response_id), None)
        self._calls.pop((tenant, response_id), None)
        return self._records.pop((tenant, response_id), None) is not None
