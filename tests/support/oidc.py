"""An identity provider for tests: two realms, discovery, a JWKS whose keys change."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm


class Provider:
    """Signs tokens and serves the keys to check them by; counts how often it is asked for them."""

    def __init__(self) -> None:
        self.base = ""
        self.asked = 0
        self._keys: dict[str, rsa.RSAPrivateKey] = {}
        self.rotate("first")

    def rotate(self, key_id: str) -> None:
        """From now on there is only this key."""
        self._keys = {key_id: rsa.generate_private_key(public_exponent=65537, key_size=2048)}

    def url(self, realm: str) -> str:
        return f"{self.base}/{realm}"

    def public_pem(self) -> bytes:
        (key,) = self._keys.values()
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return key.public_key().public_bytes(serialization.Encoding.PEM, form)

    def token(self, issuer: str, claims: dict[str, Any], **header: Any) -> str:
        ((key_id, key),) = self._keys.items()
        whole = {"iss": issuer, "sub": "grace", "iat": int(time.time()), "exp": int(time.time()) + 600, **claims}
        return jwt.encode(whole, key, algorithm="RS256", headers={"kid": key_id, **header})

    async def discovery(self, request: web.Request) -> web.Response:
        realm = request.match_info["realm"]
        issuer = self.url(realm) + ("/" if realm == "auth0" else "")
        return web.json_response({"issuer": issuer, "jwks_uri": f"{self.url(realm)}/keys"})

    async def keys(self, request: web.Request) -> web.Response:
        self.asked += 1
        public = [
            json.loads(RSAAlgorithm.to_jwk(key.public_key())) | {"kid": key_id, "use": "sig", "alg": "RS256"}
            for key_id, key in self._keys.items()
        ]
        return web.json_response({"keys": public})


@asynccontextmanager
async def running_provider() -> AsyncIterator[Provider]:
    provider, app = Provider(), web.Application()
    app.router.add_get("/{realm}/.well-known/openid-configuration", provider.discovery)
    app.router.add_get("/{realm}/keys", provider.keys)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    provider.base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield provider
    finally:
        await runner.cleanup()
