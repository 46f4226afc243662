"""Secrets of webhooks: sealed where they are kept, and used to sign what is sent (standardwebhooks.com)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

PREFIX: Final = "whsec_"
_SECRET_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_PURPOSE: Final = b"agentnet webhook secrets"


def new_secret() -> str:
    """A fresh secret, as its holder is shown it."""
    return PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def signature(secret: str, delivery_id: str, timestamp: int, body: bytes) -> str:
    """The header webhook-signature."""
    key = base64.b64decode(secret.removeprefix(PREFIX))
    signed = f"{delivery_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


class Seal:
    """Encrypts secrets with a key made of the mesh's own (AES-256-GCM), bound to the webhook they belong to."""

    def __init__(self, key: str) -> None:
        self._cipher = AESGCM(hmac.digest(key.encode(), _PURPOSE, hashlib.sha256))

    def close(self, secret: str, webhook_id: str) -> bytes:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, secret.encode(), webhook_id.encode())

    def open(self, sealed: bytes, webhook_id: str) -> str:
        """Raises InvalidTag when it was sealed with another key or for another webhook."""
        nonce, text = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        return self._cipher.decrypt(nonce, text, webhook_id.encode()).decode()
