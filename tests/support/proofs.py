"""A key's reference that leads elsewhere in time."""

from __future__ import annotations

from pydantic import SecretStr

from services.inference.credentials import Proof
from services.inference.wiring import bearer


def proved(*keys: str) -> Proof:
    """Of a reference that leads to the first key, then to the next each time it is read, and to the last for good."""
    first, *later = keys

    async def read() -> SecretStr:
        return SecretStr(later.pop(0) if len(later) > 1 else keys[-1])

    return Proof(read, SecretStr(first), bearer)
