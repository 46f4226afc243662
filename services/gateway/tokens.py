"""Short-lived tokens this mesh makes itself: the same caller for an hour at most, or a narrower one in its name."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from services.gateway.claims import principal_of
from services.gateway.errors import DelegationTooWide
from services.gateway.issuers import decode
from shared.clock import Clock
from shared.identity import Grant, Principal, Purse
from shared.ids import Ids

ISSUER: Final = "agentnet-gateway"
_AUDIENCE: Final = "agentnet"
_ALGORITHM: Final = "EdDSA"
# The same key signs identity headers; kind and audience keep the two apart.
_PURSE: Final = "prs"
_KIND: Final = "agentnet-access+jwt"


class Tokens:
    """Makes and verifies the mesh's own tokens."""

    def __init__(self, private_key_pem: bytes, clock: Clock, ids: Ids) -> None:
        key = load_pem_private_key(private_key_pem, password=None)
        if not isinstance(key, Ed25519PrivateKey):
            raise TypeError("the gateway's private key must be an Ed25519 key in PEM")
        self._key = key
        self._clock = clock
        self.ids = ids

    def make(self, principal: Principal, ttl: timedelta) -> tuple[str, datetime]:
        """A token for this principal, which ends no later than the credential it comes from."""
        now = self._clock.now()
        end = min(now + ttl, principal.expires_at) if principal.expires_at else now + ttl
        claims: dict[str, Any] = {
            "iss": ISSUER,
            "aud": _AUDIENCE,
            "jti": self.ids.new("tok"),
            "sub": principal.subject,
            "tenant": principal.tenant_id,
            "roles": sorted(principal.roles),
            "iat": now,
            "exp": end,
        }
        if principal.grant:
            claims["grant"] = principal.grant.claim()
        return jwt.encode(claims, self._key, algorithm=_ALGORITHM, headers={"typ": _KIND}), end

    def verify(self, token: str) -> Principal:
        """Whose token it is; its grant is never None: it has what it was made with and gains nothing later.

        Raises TokenExpired, TokenUntrusted and ClaimMissing.
        """
        key = self._key.public_key()
        found = principal_of(decode(token, key, [_ALGORITHM], issuer=ISSUER, audience=_AUDIENCE, kind=_KIND))
        return found if found.grant else replace(found, grant=Grant())


def narrowed(caller: Principal, *, roles: frozenset[str], scopes: frozenset[str]) -> Principal:
    """The same caller with fewer roles and scopes; empty means as it is. Raises DelegationTooWide."""
    if not roles <= caller.roles:
        raise DelegationTooWide("a token cannot hold a role its maker lacks", field="roles")
    grant = narrow(caller.grant or Grant(), Grant(scopes=scopes or None))
    return replace(caller, roles=roles or caller.roles, grant=None if grant == Grant() else grant)


def delegated(caller: Principal, subject: str, *, roles: frozenset[str], grant: Grant, ids: Ids) -> Principal:
    """One who acts in the caller's name, narrower than it, with a purse when it is given money. Raises
    DelegationTooWide.
    """
    own = caller.grant or Grant()
    if own.depth == 0:
        raise DelegationTooWide("this credential may not be delegated on", field="grant.depth")
    if not roles <= caller.roles:
        raise DelegationTooWide("a delegated token cannot hold a role its maker lacks", field="roles")
    inner = narrow(replace(own, depth=None if own.depth is None else own.depth - 1), grant)
    kept = roles or (caller.roles - {"admin"})
    if not kept:
        raise DelegationTooWide("the role admin is passed on only when roles names it", field="roles")
    whole = replace(inner, delegators=(*own.delegators, caller.subject))
    if grant.budget_micros_usd is not None:
        whole = whole.given(Purse(ids.new(_PURSE), grant.budget_micros_usd))
    return replace(caller, subject=subject, roles=kept, grant=whole)


def narrow(own: Grant, asked: Grant) -> Grant:
    """What is asked, within what is had; what is had where nothing is asked. Raises DelegationTooWide."""
    return replace(
        own,
        scopes=_subset(own.scopes, asked.scopes, "scopes"),
        tools=_subset(own.tools, asked.tools, "tools"),
        budget_micros_usd=_at_most(own.budget_micros_usd, asked.budget_micros_usd, "budget_micros_usd"),
        depth=_at_most(own.depth, asked.depth, "depth"),
    )


def _subset(own: frozenset[str] | None, asked: frozenset[str] | None, field: str) -> frozenset[str] | None:
    if asked is None:
        return own
    if own is not None and not asked <= own:
        raise DelegationTooWide(f"{field} holds {min(asked - own)}, which its maker lacks", field=f"grant.{field}")
    return asked


def _at_most(own: int | None, asked: int | None, field: str) -> int | None:
    if asked is None:
        return own
    if own is not None and asked > own:
        raise DelegationTooWide(f"{field} is more than its maker's {own}", field=f"grant.{field}")
    return asked
