"""Who is calling, inside the mesh: a principal signed by gateway (or a service that may), verified by everyone."""

from __future__ import annotations

import json
from collections import OrderedDict
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from shared.clock import Clock
from shared.errors import Unauthenticated

HEADER: Final = "x-agentnet-identity"
_AUDIENCE: Final = "agentnet-mesh"
_ALGORITHM: Final = "EdDSA"
_CACHE: Final = 1024
_REUSED: Final = 30


class CredentialKind(StrEnum):
    TOKEN = "token"  # noqa: S105 - a kind, not a secret
    API_KEY = "api_key"
    SERVICE = "service"


@dataclass(frozen=True, slots=True)
class Purse:
    """Money a credential was given; all that is made from it spends from it too."""

    id: str
    micros_usd: int


@dataclass(frozen=True, slots=True)
class Grant:
    """How far a credential is narrowed; None is not narrowed. A grant made from another can only be narrower."""

    scopes: frozenset[str] | None = None
    tools: frozenset[str] | None = None
    budget_micros_usd: int | None = None
    depth: int | None = None
    delegators: tuple[str, ...] = ()
    purses: tuple[Purse, ...] = ()

    def given(self, purse: Purse) -> Grant:
        """With a budget of its own, inside those it comes from."""
        return replace(self, budget_micros_usd=purse.micros_usd, purses=(*self.purses, purse))

    @property
    def beyond_scopes(self) -> bool:
        """Whether anything but scopes narrows it."""
        return self != Grant(scopes=self.scopes)

    def claim(self) -> dict[str, Any]:
        """As it stands in tokens."""
        parts = {
            "scopes": None if self.scopes is None else sorted(self.scopes),
            "tools": None if self.tools is None else sorted(self.tools),
            "budget_micros_usd": self.budget_micros_usd,
            "depth": self.depth,
            "delegators": list(self.delegators) or None,
            "purses": [[purse.id, purse.micros_usd] for purse in self.purses] or None,
        }
        return {name: value for name, value in parts.items() if value is not None}

    @classmethod
    def from_claim(cls, claim: dict[str, Any]) -> Grant:
        scopes, tools = claim.get("scopes"), claim.get("tools")
        return cls(
            scopes=None if scopes is None else frozenset(scopes),
            tools=None if tools is None else frozenset(tools),
            budget_micros_usd=claim.get("budget_micros_usd"),
            depth=claim.get("depth"),
            delegators=tuple(claim.get("delegators", ())),
            purses=tuple(Purse(*purse) for purse in claim.get("purses", ())),
        )


@dataclass(frozen=True, slots=True)
class Principal:
    """A verified caller."""

    tenant_id: str
    subject: str
    roles: frozenset[str]
    kind: CredentialKind = CredentialKind.TOKEN
    expires_at: datetime | None = None
    grant: Grant | None = None


_current: ContextVar[Principal | None] = ContextVar("principal", default=None)
_header: ContextVar[str | None] = ContextVar("identity_header", default=None)


def current() -> Principal:
    """The caller of the call being served."""
    principal = _current.get()
    if principal is None:
        raise Unauthenticated("the call carries no identity; call through Envoy")
    return principal


def current_header() -> str | None:
    """The signed header to hand on, if there is one."""
    return _header.get()


def enter(principal: Principal, header: str) -> None:
    """Makes the principal the caller of the current task and of the calls it makes."""
    _current.set(principal)
    _header.set(header)


class Signer:
    """Signs principals with an Ed25519 key under its name. Only gateway and services that act for tenants have one."""

    def __init__(self, key_id: str, private_key_pem: bytes, clock: Clock) -> None:
        key = load_pem_private_key(private_key_pem, password=None)
        if not isinstance(key, Ed25519PrivateKey):
            raise TypeError("identity_private_key must be an Ed25519 key in PEM")
        self._key = key
        self._key_id = key_id
        self._clock = clock
        self._signed: OrderedDict[tuple[Principal, timedelta], tuple[datetime, str]] = OrderedDict()

    @classmethod
    def from_file(cls, key_id: str, path: Path, clock: Clock) -> Signer:
        return cls(key_id, path.read_bytes(), clock)

    def sign(self, principal: Principal, ttl: timedelta) -> str:
        """A header that vouches for the principal for at most `ttl`, and not beyond its credential's end.

        It is the same one again for a thirtieth of that time, by which it may fall short of `ttl`.
        """
        now, key = self._clock.now(), (principal, ttl)
        if (found := self._signed.get(key)) and found[0] > now:
            return found[1]
        header = self._fresh(principal, now, ttl)
        self._signed[key] = (now + ttl / _REUSED, header)
        if len(self._signed) > _CACHE:
            self._signed.popitem(last=False)
        return header

    def _fresh(self, principal: Principal, now: datetime, ttl: timedelta) -> str:
        end = min(now + ttl, principal.expires_at) if principal.expires_at else now + ttl
        claims: dict[str, Any] = {
            "iss": self._key_id,
            "aud": _AUDIENCE,
            "sub": principal.subject,
            "tenant": principal.tenant_id,
            "roles": sorted(principal.roles),
            "kind": principal.kind.value,
            "exp": int(end.timestamp()) + 1,
        }
        if principal.expires_at:
            claims["cred_exp"] = int(principal.expires_at.timestamp())
        if principal.grant:
            claims["grant"] = principal.grant.claim()
        return jwt.encode(claims, self._key, algorithm=_ALGORITHM, headers={"kid": self._key_id})


class Verifier:
    """Checks identity headers against the mesh's public keys. Good headers are remembered until they end."""

    def __init__(self, jwks: dict[str, Any], clock: Clock) -> None:
        self._keys = {key.key_id: key for key in jwt.PyJWKSet.from_dict(jwks).keys}
        self._clock = clock
        self._known: OrderedDict[str, tuple[datetime, Principal]] = OrderedDict()

    @classmethod
    def from_file(cls, path: Path, clock: Clock) -> Verifier:
        return cls(json.loads(path.read_text()), clock)

    def verify(self, header: str) -> Principal:
        """The principal the header vouches for.

        Raises Unauthenticated when the header is not signed by a key of the mesh or has ended.
        """
        if (found := self._known.get(header)) and found[0] > self._clock.now():
            return found[1]
        end, principal = self._parse(header)
        self._known[header] = (end, principal)
        if len(self._known) > _CACHE:
            self._known.popitem(last=False)
        return principal

    def _parse(self, header: str) -> tuple[datetime, Principal]:
        try:
            key = self._keys[jwt.get_unverified_header(header).get("kid", "")]
            claims = jwt.decode(
                header, key.key, algorithms=[_ALGORITHM], audience=_AUDIENCE, issuer=key.key_id,
                options={"require": ["exp", "sub", "tenant", "roles", "kind"], "verify_exp": False},
            )  # fmt: skip
        except (jwt.PyJWTError, KeyError):
            raise Unauthenticated("the identity header is not signed by this mesh") from None
        end = datetime.fromtimestamp(claims["exp"], UTC)
        if end <= self._clock.now():
            raise Unauthenticated("the identity header has ended")
        credential_end = claims.get("cred_exp")
        return end, Principal(
            tenant_id=claims["tenant"],
            subject=claims["sub"],
            roles=frozenset(claims["roles"]),
            kind=CredentialKind(claims["kind"]),
            expires_at=datetime.fromtimestamp(credential_end, UTC) if credential_end else None,
            grant=Grant.from_claim(claims["grant"]) if "grant" in claims else None,
        )
