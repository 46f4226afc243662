"""One entry of the audit trail, and the seal that ties it to the one before."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from services.policy.vault import Vault

FIRST_SEAL: Final = "0" * 64
KEYED: Final = "hmac:"
_LEAST_BYTES: Final = 32

KeyOf = Callable[[str], bytes]  # a tenant's key


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One act. `seal` is the HMAC-SHA-256 of the entry and the seal before it: an edit or a gap shows, and whoever can
    write to the database but has not the key cannot seal it anew.
    """

    sequence: int
    actor: str
    act: str
    subject: str
    detail: Mapping[str, object]
    created_at: datetime
    seal: str = ""

    def sealed_after(self, before: str, key: bytes) -> str:
        return KEYED + hmac.new(key, self._sealed_text(before), hashlib.sha256).hexdigest()

    def follows(self, before: str, key: bytes) -> bool:
        """Whether the seal is right. Seals without a key are older than keys: none comes after a keyed one."""
        if not self.seal.startswith(KEYED):
            return not before.startswith(KEYED) and self.seal == hashlib.sha256(self._sealed_text(before)).hexdigest()
        return hmac.compare_digest(self.seal, self.sealed_after(before, key))

    def _sealed_text(self, before: str) -> bytes:
        data = [
            before, self.sequence, self.actor, self.act, self.subject, dict(self.detail), self.created_at.isoformat(),
        ]  # fmt: skip
        return json.dumps(data, sort_keys=True, separators=(",", ":")).encode()


def seal_keys(vault: Vault, file: Path | None) -> KeyOf:
    """Each tenant's key: from the secret in the file, or from the service's own key; the database has neither. Raises
    ValueError when the file holds less than 32 bytes.
    """
    if file is None:
        return lambda tenant: vault.key(tenant, "audit")
    secret = file.read_bytes().strip()
    if len(secret) < _LEAST_BYTES:
        raise ValueError(f"{file} must hold at least {_LEAST_BYTES} bytes to seal the audit trail with")
    return lambda tenant: hmac.new(secret, f"agentnet-audit\n{tenant}".encode(), hashlib.sha256).digest()
