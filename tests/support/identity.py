"""Keys, signed identities and settings for tests, as the embedded mesh makes them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import OKPAlgorithm

from shared.clock import SystemClock
from shared.identity import HEADER, CredentialKind, Grant, Principal, Signer


@dataclass(frozen=True, slots=True)
class Keys:
    """A signer and the JWKS file that vouches for it."""

    signer: Signer
    jwks: Path
    private_key: Path

    def metadata(
        self,
        tenant: str = "acme",
        *,
        subject: str = "ada",
        roles: tuple[str, ...] = ("admin",),
        kind: str = "token",
        grant: Grant | None = None,
    ) -> tuple[tuple[str, str], ...]:
        """Metadata for a call of this caller's."""
        principal = Principal(tenant, subject, frozenset(roles), CredentialKind(kind), grant=grant)
        return ((HEADER, self.signer.sign(principal, timedelta(minutes=5))),)


def make_keys(folder: Path, key_id: str = "gateway") -> Keys:
    """A fresh key pair in the folder."""
    key = Ed25519PrivateKey.generate()
    public = json.loads(OKPAlgorithm.to_jwk(key.public_key())) | {"kid": key_id, "use": "sig", "alg": "EdDSA"}
    jwks = folder / f"{key_id}.jwks"
    jwks.write_text(json.dumps({"keys": [public]}))
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    private_key = folder / f"{key_id}.pem"
    private_key.write_bytes(pem)
    return Keys(signer=Signer(key_id, pem, SystemClock()), jwks=jwks, private_key=private_key)
