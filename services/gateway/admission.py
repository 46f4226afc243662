"""Admission: from what Envoy verified, or an API key, to a caller who may do this; or why not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import jwt

from services.gateway.errors import (
    ClaimMissing,
    CredentialsMissing,
    KeyInvalid,
    MethodUnknown,
    RoleInsufficient,
    TokenExpired,
    TokenMalformed,
    TokenUntrusted,
)
from services.gateway.keys import PREFIX, Keys
from services.gateway.permissions import ROLES, Permissions
from shared.errors import Unauthenticated
from shared.identity import CredentialKind, Principal

_BEARER: Final = "bearer "
_TENANT: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_MAX_SUBJECT: Final = 255
_EXPIRED: Final = "expired"


@dataclass(frozen=True, slots=True)
class Request:
    """One call at the edge: its gRPC path, its headers, and what Envoy found of its token."""

    path: str
    headers: Mapping[str, str]
    claims: Mapping[str, Any] | None = None
    token_failure: str = ""
    rest: bool = False


class Admission:
    """Decides who enters."""

    def __init__(self, keys: Keys, permissions: Permissions) -> None:
        self._keys = keys
        self._permissions = permissions

    async def admit(self, request: Request) -> Principal:
        """The caller. Raises a subclass of Unauthenticated, or RoleInsufficient."""
        principal = await self._identify(request)
        path = request.path.partition("?")[0]
        permission = self._permissions.get(path)
        if permission is None:
            raise MethodUnknown(f"there is nothing at {path}", method=path)
        if not permission.roles & principal.roles:
            roles = ",".join(sorted(principal.roles))
            raise RoleInsufficient(f"none of the caller's roles may call {path}", method=path, roles=roles)
        return principal

    async def _identify(self, request: Request) -> Principal:
        if request.claims:
            return principal_of(request.claims)
        credential = _credential(request.headers)
        if not credential:
            raise CredentialsMissing("send a bearer token in authorization, or an API key in x-api-key")
        if credential.startswith(PREFIX):
            return await self._keys.resolve(credential)
        if "x-api-key" in request.headers:
            raise KeyInvalid("the API key is not valid")
        raise _refusal(request.token_failure, credential)


def principal_of(claims: Mapping[str, Any]) -> Principal:
    """The principal of a verified token. Raises ClaimMissing."""
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= _MAX_SUBJECT:
        raise ClaimMissing("the token needs the claim sub", claim="sub")
    tenant = claims.get("tenant")
    if not isinstance(tenant, str) or not _TENANT.fullmatch(tenant):
        raise ClaimMissing("the token needs the claim tenant: lower-case letters, digits and dashes", claim="tenant")
    roles = claims.get("roles")
    known = (
        ROLES.intersection(role for role in roles if isinstance(role, str)) if isinstance(roles, list) else frozenset()
    )
    if not known:
        raise ClaimMissing("the token needs the claim roles with a role of this mesh", claim="roles")
    ends = claims.get("exp")
    if not isinstance(ends, int | float):
        raise ClaimMissing("the token needs the claim exp", claim="exp")
    return Principal(tenant, subject, known, CredentialKind.TOKEN, datetime.fromtimestamp(ends, UTC))


def _credential(headers: Mapping[str, str]) -> str:
    if key := headers.get("x-api-key"):
        return key
    given = headers.get("authorization", "")
    return given[len(_BEARER) :].strip() if given.lower().startswith(_BEARER) else given


def _refusal(failure: str, credential: str) -> Unauthenticated:
    """Envoy's word on the token in ours."""
    if _EXPIRED in failure:
        return TokenExpired("the token has expired; get a new one")
    if not _is_jwt(credential):
        return TokenMalformed("the bearer token is not a JWT")
    return TokenUntrusted("the token's signature, algorithm, issuer or audience is not trusted here")


def _is_jwt(credential: str) -> bool:
    """Whether it looks like a JWT at all; whether to trust it was Envoy's to say."""
    try:
        return bool(jwt.get_unverified_header(credential))
    except jwt.PyJWTError:
        return False
