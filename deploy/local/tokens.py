"""Tokens for the local mesh, signed by the key in its state folder."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import jwt

from deploy.local.state import State, write_private

ISSUER: Final = "agentnet-local"
AUDIENCE: Final = "agentnet"
DEFAULT_TTL: Final = timedelta(days=30)


def mint(
    state: State,
    *,
    tenant: str = "default",
    subject: str = "local-admin",
    roles: tuple[str, ...] = ("admin",),
    ttl: timedelta = DEFAULT_TTL,
) -> str:
    """A JWT the local edge trusts. Raises OSError when the mesh was never started here."""
    now = datetime.now(UTC)
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": subject,
        "tenant": tenant,
        "roles": list(roles),
        "iat": now,
        "exp": now + ttl,
    }
    return jwt.encode(claims, state.key("edge.pem").read_text(), algorithm="ES256", headers={"kid": "local"})


def write_client_file(state: State, address: str, *, authority: Path | None = None) -> None:
    """What the CLI and the Python client need to find the local mesh by themselves, and whose certificate to trust."""
    found = {"address": address, "token": mint(state)} | ({"authority": str(authority)} if authority else {})
    write_private(state.folder / "client.json", json.dumps(found))


def forget_client_file(state: State) -> None:
    """A mesh that is stopping is not to be found any more."""
    (state.folder / "client.json").unlink(missing_ok=True)
