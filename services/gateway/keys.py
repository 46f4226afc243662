"""API keys: made once, shown once, known by a keyed hash. A key names its tenant: `ank.<tenant>.<id>.<secret>`."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from services.gateway.errors import KeyInvalid, KeyNotFound, RequestIdReused, RoleInsufficient
from services.gateway.store import ApiKey, KeyStore
from shared.clock import Clock
from shared.identity import CredentialKind, Principal
from shared.ids import Ids
from shared.paging import Page

PREFIX: Final = "ank."
_PARTS: Final = 4
_CACHE: Final = 4096


class Keys:
    """The keys of all tenants, one tenant a call."""

    def __init__(self, store: KeyStore, *, pepper: str, clock: Clock, ids: Ids, cache_ttl: timedelta) -> None:
        self._store = store
        self._pepper = pepper.encode()
        self._clock = clock
        self._ids = ids
        self._ttl = cache_ttl
        self._known: OrderedDict[bytes, tuple[datetime, Principal]] = OrderedDict()

    async def make(
        self,
        maker: Principal,
        *,
        display_name: str,
        roles: frozenset[str],
        expires_at: datetime | None,
        request_id: str | None,
    ) -> tuple[ApiKey, str]:
        """A key and its credential. Raises RoleInsufficient and RequestIdReused."""
        if not roles <= maker.roles and "admin" not in maker.roles:
            raise RoleInsufficient("a key cannot hold a role its maker lacks", roles=",".join(sorted(maker.roles)))
        secret = secrets.token_urlsafe(32)
        key = ApiKey(
            id=self._ids.new("key"),
            display_name=display_name,
            roles=tuple(sorted(roles)),
            secret_hash=self._hash(secret),
            creator=maker.subject,
            created_at=self._clock.now(),
            expires_at=expires_at,
        )
        if not await self._store.add(maker.tenant_id, key, request_id=request_id):
            raise RequestIdReused("a key was made for this request_id; its secret cannot be shown again")
        return key, f"{PREFIX}{maker.tenant_id}.{key.id}.{secret}"

    async def resolve(self, credential: str) -> Principal:
        """Who holds this credential. Raises KeyInvalid. A good answer is remembered for a few seconds."""
        mark = self._hash(credential)
        now = self._clock.now()
        if (found := self._known.get(mark)) and found[0] > now:
            return found[1]
        principal = await self._check(credential, now)
        self._known[mark] = (now + self._ttl, principal)
        if len(self._known) > _CACHE:
            self._known.popitem(last=False)
        return principal

    async def revoke(self, tenant: str, key_id: str) -> ApiKey:
        """Raises KeyNotFound."""
        key = await self._store.revoke(tenant, key_id, at=self._clock.now())
        if key is None:
            raise KeyNotFound(f"no key {key_id}", key_id=key_id)
        return key

    async def every(self, tenant: str, *, active_only: bool, page: Page) -> Sequence[ApiKey]:
        """Keys, newest first."""
        return await self._store.keys(tenant, active_at=self._clock.now() if active_only else None, page=page)

    async def _check(self, credential: str, now: datetime) -> Principal:
        parts = credential.split(".")
        if len(parts) != _PARTS:
            raise KeyInvalid("the API key is not valid")
        _, tenant, key_id, secret = parts
        key = await self._store.find(tenant, key_id)
        given = self._hash(secret)
        if key is None or not hmac.compare_digest(key.secret_hash, given) or not key.works(now):
            raise KeyInvalid("the API key is not valid")
        return Principal(tenant, key.id, frozenset(key.roles), CredentialKind.API_KEY, key.expires_at)

    def _hash(self, secret: str) -> bytes:
        return hmac.digest(self._pepper, secret.encode(), hashlib.sha256)
