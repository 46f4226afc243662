"""What gateway asks of storage: API keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from shared.paging import Page


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key. The secret itself is nowhere, only its keyed hash."""

    id: str
    display_name: str
    roles: tuple[str, ...]
    secret_hash: bytes
    creator: str
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    scopes: tuple[str, ...] = ()
    last_used_at: datetime | None = None
    service_account: str = ""

    def works(self, now: datetime) -> bool:
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > now)


class KeyStore(Protocol):
    """Where keys are kept."""

    async def add(self, tenant: str, key: ApiKey, *, request_id: str | None) -> bool:
        """Stores a key. False when one was made for this request_id before."""

    async def find(self, tenant: str, key_id: str) -> ApiKey | None:
        """The key, if there is one."""

    async def revoke(self, tenant: str, key_id: str, *, at: datetime) -> ApiKey | None:
        """Revokes a key; the first time of revocation stays. None when there is no such key."""

    async def end(self, tenant: str, key_id: str, *, at: datetime) -> ApiKey | None:
        """Lets a key end at a time, or earlier if it does so already. None when there is no such key."""

    async def used(self, tenant: str, key_id: str, *, at: datetime) -> None:
        """Notes when a call last came with it."""

    async def keys(self, tenant: str, *, active_at: datetime | None, page: Page) -> Sequence[ApiKey]:
        """Keys, newest first, at most `page.size` + 1; only those that work at a time, when one is given.
        The cursor is (time, id) of the last one seen.
        """
