"""What this service vouches for: its signature under a bundle's digest, and under tokens it gives out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import jwt
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

KEY_ID: Final = "policy"


class BundleSigner:
    """Signs with this service's Ed25519 key, whose public half is in the mesh's JWKS under the name "policy"."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.key_id = KEY_ID

    @classmethod
    def from_file(cls, path: Path) -> BundleSigner:
        key = load_pem_private_key(path.read_bytes(), password=None)
        if not isinstance(key, Ed25519PrivateKey):
            raise TypeError("identity_private_key must be an Ed25519 key in PEM")
        return cls(key)

    @property
    def key(self) -> Ed25519PrivateKey:
        return self._key

    def sign(self, tenant: str, name: str, version: str, digest: str) -> bytes:
        return self._key.sign(signed_text(tenant, name, version, digest))


def signed_text(tenant: str, name: str, version: str, digest: str) -> bytes:
    """What a bundle's signature is over, as the contract says."""
    return f"agentnet-bundle\n{tenant}\n{name}\n{version}\n{digest}".encode()


def is_signed(jwks: Mapping[str, Any], key_id: str, signature: bytes, text: bytes) -> bool:
    """Whether a key of the mesh with this name signed the text."""
    for key in jwt.PyJWKSet.from_dict(dict(jwks)).keys:
        if key.key_id == key_id and isinstance(key.key, Ed25519PublicKey):
            try:
                key.key.verify(signature, text)
            except InvalidSignature:
                return False
            return True
    return False
