"""Secrets by reference: files that an operator put where only the service reads them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from services.tools.errors import SecretNotFound
from services.tools.executor import Work

_PLAIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SHARED: Final = "shared"


class Secrets:
    """`<folder>/<tenant>/<key_id>`, else `<folder>/shared/<key_id>`; read at each call: a new one counts at once."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def use(self, work: Work, key_id: str) -> str:
        """The secret, which from then on shows in nothing that the call returns. Raises SecretNotFound."""
        if self._folder and _PLAIN.fullmatch(key_id):
            for owner in (work.tenant, _SHARED):
                file = self._folder / owner / key_id
                if _PLAIN.fullmatch(owner) and file.is_file():
                    secret = file.read_text().strip()
                    work.secrets.append(secret)
                    return secret
        raise SecretNotFound(f"there is no secret {key_id}", key_id=key_id)
