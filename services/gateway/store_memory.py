"""The honest fake."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from services.gateway.store import ApiKey
from shared.paging import Page


class MemoryKeyStore:
    """Everything is gone when the process ends."""

    def __init__(self) -> None:
        self._keys: dict[tuple[str, str], ApiKey] = {}
        self._requests: set[tuple[str, str]] = set()

    async def add(self, tenant: str, key: ApiKey, *, request_id: str | None) -> bool:
        if request_id and (tenant, request_id) in self._requests:
            return False
        if request_id:
            self._requests.add((tenant, request_id))
        self._keys[tenant, key.id] = key
        return True

    async def find(self, tenant: str, key_id: str) -> ApiKey | None:
        return self._keys.get((tenant, key_id))

    async def revoke(self, tenant: str, key_id: str, *, at: datetime) -> ApiKey | None:
        key = self._keys.get((tenant, key_id))
        if key and key.revoked_at is None:
            key = self._keys[tenant, key_id] = replace(key, revoked_at=at)
        return key

    async def end(self, tenant: str, key_id: str, *, at: datetime) -> ApiKey | None:
        key = self._keys.get((tenant, key_id))
        if key and (key.expires_at is None or key.expires_at > at):
            key = self._keys[tenant, key_id] = replace(key, expires_at=at)
        return key

    async def used(self, tenant: str, key_id: str, *, at: datetime) -> None:
        if key := self._keys.get((tenant, key_id)):
            self._keys[tenant, key_id] = replace(key, last_used_at=at)

    async def keys(self, tenant: str, *, active_at: datetime | None, page: Page) -> Sequence[ApiKey]:
        mine = [key for (owner, _), key in self._keys.items() if owner == tenant]
        fitting = [key for key in mine if active_at is None or key.works(active_at)]
        fitting.sort(key=_place, reverse=True)
        at, last = page.place
        return [key for key in fitting if at is None or _place(key) < (at, last)][: page.size + 1]


def _place(key: ApiKey) -> tuple[datetime, str]:
    return key.created_at, key.id
