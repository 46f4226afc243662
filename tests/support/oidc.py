"""An identity provider for tests: two realms, discovery, a JWKS whose keys change."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
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
        self._codes: dict[str, tuple[str, str, str]] = {}
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
        url = self.url(realm)
        return web.json_response(
            {
                "issuer": url + ("/" if realm == "auth0" else ""),
                "jwks_uri": f"{url}/keys",
                "authorization_endpoint": f"{url}/authorize",
                "token_endpoint": f"{url}/token",
                "code_challenge_methods_supported": ["S256"],
            }
        )

    def granted(self, realm: str, challenge: str, redirect: str, claims: dict[str, Any]) -> str:
        """A code for whoever shows what the challenge was made of, once."""
        code = secrets.token_hex(8)
        self._codes[code] = (challenge, redirect, self.token(self.url(realm), claims))
        return code

    async def authorize(self, request: web.Request) -> web.Response:
        """The user agrees at once."""
        said = request.query
        assert (said["response_type"], said["code_challenge_method"]) == ("code", "S256")
        claims = {"aud": said["audience"], "organization": ["acme"], "realm_access": {"roles": ["mesh-admin"]}}
        code = self.granted(request.match_info["realm"], said["code_challenge"], said["redirect_uri"], claims)
        raise web.HTTPFound(f"{said['redirect_uri']}?code={code}&state={said['state']}")

    async def redeem(self, request: web.Request) -> web.Response:
        said = await request.post()
        challenge, redirect, token = self._codes.pop(str(said["code"]), ("", "", ""))
        digest = hashlib.sha256(str(said["code_verifier"]).encode()).digest()
        shown = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        if (challenge, redirect, "dashboard") != (shown, said["redirect_uri"], said["client_id"]):
            return web.json_response({"error": "invalid_grant"}, status=400)
        return web.json_response({"access_token": token, "token_type": "Bearer"})

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
    app.router.add_get("/{realm}/authorize", provider.authorize)
    app.router.add_post("/{realm}/token", provider.redeem)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    provider.base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield provider
    finally:
        await runner.cleanup()
