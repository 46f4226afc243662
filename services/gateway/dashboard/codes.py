"""Sign-in with an issuer of OpenID Connect: an authorization code with PKCE, turned into its access token."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from services.gateway.errors import IssuerUnavailable, TokenUntrusted
from services.gateway.issuers import Fetch
from services.gateway.settings import IssuerSettings
from shared.log import log

_LARGEST: Final = 64 * 1024
_OK: Final = 200
_REFUSED: Final = frozenset({400, 401, 403})


@dataclass(frozen=True, slots=True)
class Entrance:
    """One issuer as its discovery document describes it."""

    settings: IssuerSettings
    authorization_endpoint: str
    token_endpoint: str


class Codes:
    """Those trusted issuers at which the dashboard has a client."""

    def __init__(self, issuers: Sequence[IssuerSettings], fetch: Fetch, http: aiohttp.ClientSession) -> None:
        self._issuers = {one.issuer: one for one in issuers if one.client_id}
        self._fetch = fetch
        self._http = http

    async def entrances(self) -> Sequence[Entrance]:
        """Of those that answer and take PKCE."""
        found = await asyncio.gather(*(self._entrance(one) for one in self._issuers.values()))
        return [entrance for entrance in found if entrance]

    async def token(self, issuer: str, *, code: str, verifier: str, redirect: str) -> str:
        """The access token. Raises TokenUntrusted and IssuerUnavailable."""
        settings = self._issuers.get(issuer)
        entrance = await self._entrance(settings) if settings else None
        if entrance is None:
            raise TokenUntrusted("nobody signs in here by way of this issuer")
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "code_verifier": verifier,
            "redirect_uri": redirect,
            "client_id": entrance.settings.client_id,
        }
        if secret := entrance.settings.client_secret.get_secret_value():
            form["client_secret"] = secret
        return await self._redeemed(entrance.token_endpoint, form)

    async def _entrance(self, settings: IssuerSettings) -> Entrance | None:
        try:
            said = await self._fetch(f"{settings.issuer.rstrip('/')}/.well-known/openid-configuration")
        except IssuerUnavailable as error:
            log.warning("issuer.unavailable", issuer=settings.issuer, error=error.message)
            return None
        ends = [said.get(name) for name in ("authorization_endpoint", "token_endpoint")]
        pkce = "S256" in said.get("code_challenge_methods_supported", ())
        if said.get("issuer") != settings.issuer or not pkce or not all(isinstance(end, str) for end in ends):
            log.warning("issuer.no_sign_in", issuer=settings.issuer)
            return None
        return Entrance(settings, str(ends[0]), str(ends[1]))

    async def _redeemed(self, endpoint: str, form: Mapping[str, str]) -> str:
        try:
            async with self._http.post(endpoint, data=form, allow_redirects=False) as answer:
                status, body = answer.status, await answer.content.read(_LARGEST)
            said: Any = json.loads(body)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            message = f"the issuer's token endpoint gives no JSON: {type(error).__name__}"
            raise IssuerUnavailable(message, dependency="issuer") from error
        token = said.get("access_token") if isinstance(said, dict) else None
        if status == _OK and isinstance(token, str):
            return token
        if status in _REFUSED:
            raise TokenUntrusted("the issuer gives no token for this code; sign in again")
        raise IssuerUnavailable(f"the issuer's token endpoint answers {status}", dependency="issuer")
