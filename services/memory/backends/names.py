"""Names of collections."""

from __future__ import annotations

import hashlib


def collection(tenant: str, width: int) -> str:
    """A name any engine takes, whatever the tenant is called."""
    return f"m{width}-{hashlib.sha256(tenant.encode()).hexdigest()[:40]}"
