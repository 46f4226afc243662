"""Whose credential it is: a token Envoy verified, one of ours, one of another issuer's, or an API key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import jwt

from services.gateway.claims import principal_of
from services.gateway.dashboard.cookies import Cookies
from services.gateway.errors import CredentialsMissing, KeyInvalid, TokenExpired, TokenMalformed, TokenUntrusted
from services.gateway.issuers import Issuers, unverified_issuer
from services.gateway.keys import PREFIX, Keys
from services.gateway.tokens import ISSUER, Tokens
from shared.errors import Unauthenticated
from shared.identity import Principal

_BEARER: Final = "bearer "
_EXPIRED: Final = "expired"
_LONGEST: Final = 16_384


class Credentials:
    """Knows every kind of credential."""

    def __init__(self, keys: Keys, tokens: Tokens, issuers: Issuers, cookies: Cookies) -> None:
        self._keys = keys
        self._cookies = cookies
        self._tokens = tokens
        self._issuers = issuers

    async def identify(
        self, path: str, headers: Mapping[str, str], *, claims: Mapping[str, Any] | None, token_failure: str
    ) -> Principal:
        """Whose it is. Raises a subclass of Unauthenticated. `token_failure` is why Envoy does not trust the token."""
        if claims:
            return principal_of(claims)
        credential = _credential(headers) or self._cookies.credential(path, headers)
        if not credential:
            raise CredentialsMissing("send a bearer token in authorization, or an API key in x-api-key")
        if credential.startswith(PREFIX):
            return await self._keys.resolve(credential)
        if "x-api-key" in headers:
            raise KeyInvalid("the API key is not valid")
        return await self._of_token(credential, token_failure)

    async def _of_token(self, token: str, failure: str) -> Principal:
        if not _is_jwt(token):
            raise TokenMalformed("the bearer token is not a JWT")
        issuer = unverified_issuer(token)
        if issuer == ISSUER:
            return self._tokens.verify(token)
        if self._issuers.trusts(issuer):
            return await self._issuers.verify(token)
        raise _refusal(failure)


def _credential(headers: Mapping[str, str]) -> str:
    if key := headers.get("x-api-key"):
        return key
    given = headers.get("authorization", "")
    return given[len(_BEARER) :].strip() if given.lower().startswith(_BEARER) else given


def _refusal(failure: str) -> Unauthenticated:
    """Envoy's word on the token in ours."""
    if _EXPIRED in failure:
        return TokenExpired("the token has expired; get a new one")
    return TokenUntrusted("the token's signature, algorithm, issuer or audience is not trusted here")


def _is_jwt(credential: str) -> bool:
    """Whether it looks like a JWT at all, of a length worth parsing."""
    try:
        return len(credential) <= _LONGEST and bool(jwt.get_unverified_header(credential))
    except jwt.PyJWTError:
        return False
