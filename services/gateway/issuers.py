"""Tokens of other issuers (OpenID Connect): keys by discovery, rotated without a restart, claims by configuration."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import jwt

from services.gateway.claims import ClaimMapping, principal_of
from services.gateway.errors import ClaimMissing, IssuerUnavailable, TokenExpired, TokenMalformed, TokenUntrusted
from shared.clock import Clock
from shared.identity import Principal
from shared.log import log

# The algorithm follows from the key and is never taken from the token; shared secrets are no keys of an issuer.
_ALGORITHMS: Final[Mapping[str, Sequence[str]]] = {
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "EC": ("ES256", "ES384", "ES512"),
    "OKP": ("EdDSA",),
}
_LEEWAY: Final = timedelta(seconds=5)
_FRESH: Final = timedelta(minutes=5)
_AGAIN: Final = timedelta(seconds=5)
_CACHE: Final = 4096

Fetch = Callable[[str], Awaitable[Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class Issuer:
    """One trusted issuer. Without a `jwks_uri` it is discovered."""

    issuer: str
    audience: str
    claims: ClaimMapping
    jwks_uri: str = ""


class KeySet:
    """One issuer's keys. Unknown key ids fetch them anew, but not more often than every few seconds."""

    def __init__(self, issuer: Issuer, fetch: Fetch, clock: Clock) -> None:
        self._issuer = issuer
        self._fetch = fetch
        self._clock = clock
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched: datetime | None = None
        self._tried: datetime | None = None
        self._lock = asyncio.Lock()

    async def key(self, key_id: str) -> jwt.PyJWK:
        """Raises TokenUntrusted, and IssuerUnavailable when no keys were ever fetched."""
        if key_id not in self._keys or self._older(self._fetched, _FRESH):
            await self._refresh()
        if found := self._keys.get(key_id):
            return found
        if self._fetched is None:
            raise IssuerUnavailable(f"the keys of {self._issuer.issuer} cannot be fetched", dependency="issuer")
        raise TokenUntrusted("the token's key is not one of its issuer's")

    async def _refresh(self) -> None:
        async with self._lock:
            if not self._older(self._tried, _AGAIN):
                return
            self._tried = self._clock.now()
            try:
                found = await self._fetch(self._issuer.jwks_uri or await self._discovered())
                self._keys = _signing_keys(found)
                self._fetched = self._clock.now()
            except IssuerUnavailable as error:
                log.warning("issuer.unavailable", issuer=self._issuer.issuer, error=error.message)

    async def _discovered(self) -> str:
        document = await self._fetch(f"{self._issuer.issuer.rstrip('/')}/.well-known/openid-configuration")
        if document.get("issuer") != self._issuer.issuer or not isinstance(document.get("jwks_uri"), str):
            raise IssuerUnavailable("the discovery document is another issuer's", dependency="issuer")
        return str(document["jwks_uri"])

    def _older(self, time: datetime | None, limit: timedelta) -> bool:
        return time is None or self._clock.now() - time >= limit


class Issuers:
    """All trusted issuers."""

    def __init__(self, issuers: Sequence[Issuer], fetch: Fetch, clock: Clock) -> None:
        self._issuers = {issuer.issuer: issuer for issuer in issuers}
        self._keys = {issuer.issuer: KeySet(issuer, fetch, clock) for issuer in issuers}
        self._clock = clock
        self._known: OrderedDict[bytes, Principal] = OrderedDict()

    def trusts(self, issuer: object) -> bool:
        return isinstance(issuer, str) and issuer in self._issuers

    async def verify(self, token: str) -> Principal:
        """Whose token it is. Raises TokenMalformed, TokenExpired, TokenUntrusted, ClaimMissing, IssuerUnavailable."""
        mark = hashlib.sha256(token.encode()).digest()
        known = self._known.get(mark)
        if known and known.expires_at and known.expires_at > self._clock.now():
            return known
        principal = await self._verify(token)
        self._known[mark] = principal
        if len(self._known) > _CACHE:
            self._known.popitem(last=False)
        return principal

    async def _verify(self, token: str) -> Principal:
        issuer = self._issuers[unverified_issuer(token)]
        key_id = jwt.get_unverified_header(token).get("kid", "")
        key = await self._keys[issuer.issuer].key(key_id)
        claims = decode(token, key.key, _ALGORITHMS[str(key.key_type)], issuer=issuer.issuer, audience=issuer.audience)
        return principal_of(claims, issuer.claims)


def decode(
    token: str, key: Any, algorithms: Sequence[str], *, issuer: str, audience: str, kind: str | None = None
) -> Mapping[str, Any]:
    """The claims of a token that is what it must be. Raises TokenExpired, TokenUntrusted, ClaimMissing."""
    try:
        if kind is not None and jwt.get_unverified_header(token).get("typ") != kind:
            raise TokenUntrusted("the token is of another kind")
        return jwt.decode(
            token, key, algorithms=list(algorithms), issuer=issuer, audience=audience, leeway=_LEEWAY,
            options={"require": ["exp", "sub", "aud", "iss"]},
        )  # fmt: skip
    except jwt.ExpiredSignatureError:
        raise TokenExpired("the token has expired; get a new one") from None
    except jwt.MissingRequiredClaimError as error:
        raise ClaimMissing(f"the token needs the claim {error.claim}", claim=error.claim) from None
    except jwt.PyJWTError:
        message = "the token's signature, algorithm, time, issuer or audience is not trusted here"
        raise TokenUntrusted(message) from None


def unverified_issuer(token: str) -> str:
    """Who the token says made it, to know whose keys to try. Raises TokenMalformed."""
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
    except jwt.PyJWTError:
        raise TokenMalformed("the bearer token is not a JWT") from None
    return str(claims.get("iss", ""))


def _signing_keys(document: Mapping[str, Any]) -> dict[str, jwt.PyJWK]:
    found: dict[str, jwt.PyJWK] = {}
    for data in document.get("keys", []):
        if data.get("use", "sig") != "sig" or data.get("kty") not in _ALGORITHMS:
            continue
        try:
            found[str(data.get("kid", ""))] = jwt.PyJWK(data)
        except jwt.PyJWTError:
            log.warning("issuer.key_skipped", key_id=str(data.get("kid", "")))
    return found
