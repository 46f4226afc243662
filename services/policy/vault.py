"""Sealing what must not lie open in the database: AES-256-GCM, bound to the tenant and to what it is for."""

from __future__ import annotations

import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from shared.errors import Internal

_NONCE_BYTES: Final = 12
_KEY_BYTES: Final = 32


class Vault:
    """Its keys come from this service's private key, one a tenant: without that key the database tells nothing."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._secret = key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())

    def key(self, tenant: str, purpose: str) -> bytes:
        """32 bytes for one tenant and purpose."""
        info = f"agentnet-policy\n{tenant}\n{purpose}".encode()
        return HKDF(SHA256(), _KEY_BYTES, salt=None, info=info).derive(self._secret)

    def seal(self, tenant: str, purpose: str, text: str) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + AESGCM(self.key(tenant, purpose)).encrypt(nonce, text.encode(), None)

    def open(self, tenant: str, purpose: str, sealed: bytes) -> str:
        """What was sealed. Raises Internal when it was sealed under another key or changed since."""
        try:
            return (
                AESGCM(self.key(tenant, purpose)).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], None).decode()
            )
        except InvalidTag:
            raise Internal("sealed data does not open with this service's key") from None
