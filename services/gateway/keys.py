"""API keys: made once, shown once, known by a keyed hash. A key names its tenant: `ank.<tenant>.<id>.<secret>`."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from services.gateway.claims import TENANT
from services.gateway.errors import (
    DelegationTooWide,
    KeyEnded,
    KeyInvalid,
    KeyNotFound,
    RequestIdReused,
    RoleInsufficient,
)
from services.gateway.store import ApiKey, KeyStore
from services.gateway.tokens import narrow
from shared.clock import Clock
from shared.fields import ID
from shared.identity import CredentialKind, Grant, Principal
from shared.ids import Ids
from shared.paging import Page

PREFIX: Final = "ank."
ID_PREFIX: Final = "key"
_PARTS: Final = 4
_CACHE: Final = 4096
_USE_NOTED_EVERY: Final = timedelta(minutes=1)


class Keys:
    """The keys of all tenants, one tenant a call."""

    def __init__(self, store: KeyStore, *, pepper: str, clock: Clock, ids: Ids, cache_ttl: timedelta) -> None:
        self._store = store
        self._pepper = pepper.encode()
        self._mark = secrets.token_bytes(32)
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
        scopes: frozenset[str] = frozenset(),
        service_account: str = "",
    ) -> tuple[ApiKey, str]:
        """A key and its credential. Raises RoleInsufficient, DelegationTooWide and RequestIdReused."""
        grant = _given(maker, roles, scopes)
        draft = ApiKey(
            id="",
            display_name=display_name,
            roles=tuple(sorted(roles)),
            secret_hash=b"",
            creator=maker.subject,
            created_at=self._clock.now(),
            expires_at=_earlier(expires_at, maker.expires_at if maker.grant else None),
            scopes=tuple(sorted(grant.scopes or ())),
            service_account=service_account,
        )
        return await self._add(maker.tenant_id, draft, request_id=request_id)

    async def rotate(self, maker: Principal, key_id: str, *, grace: timedelta) -> tuple[ApiKey, str, ApiKey]:
        """A new key like the old one, its credential, and the old one with its end. Raises KeyNotFound, KeyEnded and
        what making such a key would raise.
        """
        tenant, now = maker.tenant_id, self._clock.now()
        old = await self._store.find(tenant, key_id)
        if old is None:
            raise KeyNotFound(f"no key {key_id}", key_id=key_id)
        if not old.works(now):
            raise KeyEnded("the key is revoked or has ended; make a new one")
        if _given(maker, frozenset(old.roles), frozenset(old.scopes)).scopes != (frozenset(old.scopes) or None):
            raise DelegationTooWide("the key may do more than who rotates it")
        new, credential = await self._add(tenant, replace(old, created_at=now, last_used_at=None), request_id=None)
        ended = await self._store.end(tenant, key_id, at=now + grace)
        return new, credential, ended or old

    async def _add(self, tenant: str, draft: ApiKey, *, request_id: str | None) -> tuple[ApiKey, str]:
        secret = secrets.token_urlsafe(32)
        key = replace(draft, id=self._ids.new(ID_PREFIX), secret_hash=self._hash(secret))
        if not await self._store.add(tenant, key, request_id=request_id):
            raise RequestIdReused("a key was made for this request_id; its secret cannot be shown again")
        return key, f"{PREFIX}{tenant}.{key.id}.{secret}"

    async def resolve(self, credential: str) -> Principal:
        """Who holds this credential. Raises KeyInvalid. A good answer is remembered for a few seconds."""
        mark = hashlib.blake2b(credential.encode(), key=self._mark).digest()
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
        if len(parts) != _PARTS or not TENANT.fullmatch(parts[1]) or not ID.fullmatch(parts[2]):
            raise KeyInvalid("the API key is not valid")
        _, tenant, key_id, secret = parts
        key = await self._store.find(tenant, key_id)
        given = self._hash(secret)
        if key is None or not hmac.compare_digest(key.secret_hash, given) or not key.works(now):
            raise KeyInvalid("the API key is not valid")
        if key.last_used_at is None or now - key.last_used_at >= _USE_NOTED_EVERY:
            await self._store.used(tenant, key.id, at=now)
        grant = Grant(scopes=frozenset(key.scopes)) if key.scopes else None
        subject = key.service_account or key.id
        return Principal(tenant, subject, frozenset(key.roles), CredentialKind.API_KEY, key.expires_at, grant)

    def _hash(self, secret: str) -> bytes:
        return hmac.digest(self._pepper, secret.encode(), hashlib.sha256)


def of_service_account(principal: Principal) -> bool:
    """Whether a key speaks for a service account, which then must still exist."""
    return principal.kind is CredentialKind.API_KEY and not principal.subject.startswith(f"{ID_PREFIX}_")


def _given(maker: Principal, roles: frozenset[str], scopes: frozenset[str]) -> Grant:
    """How far a key that the maker makes is narrowed. Raises RoleInsufficient and DelegationTooWide."""
    if not roles <= maker.roles and "admin" not in maker.roles:
        raise RoleInsufficient("a key cannot hold a role its maker lacks", roles=",".join(sorted(maker.roles)))
    own = maker.grant or Grant()
    if own.beyond_scopes:
        raise DelegationTooWide("a key can be narrowed by roles and scopes only; delegate a token instead")
    return narrow(own, Grant(scopes=scopes or None))


def _earlier(one: datetime | None, other: datetime | None) -> datetime | None:
    return min(one, other) if one and other else one or other
