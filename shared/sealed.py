"""Secrets in an encrypted file: each sealed under the file's data key, and that under a master key kept elsewhere."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import BaseModel, ConfigDict, ValidationError

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_DATA_KEY: Final = b"agentnet sealed 1 data key"
_SECRET: Final = b"agentnet sealed 1 secret "


class SealBroken(ValueError):
    """The file cannot be opened. Says why, and never what is in it."""


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    data_keys: dict[str, str]
    """The data key, sealed under each master key that opens the file, by that key's fingerprint."""
    secrets: dict[str, str]


@dataclass(frozen=True, slots=True)
class MasterKey:
    """32 bytes that open a file of secrets."""

    raw: bytes = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> MasterKey:
        """From base64. Raises SealBroken."""
        try:
            raw = base64.b64decode(text.strip(), validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        if len(raw) != KEY_BYTES:
            raise SealBroken("a master key is 32 bytes in base64")
        return cls(raw)

    @classmethod
    def new(cls) -> MasterKey:
        return cls(secrets.token_bytes(KEY_BYTES))

    @property
    def text(self) -> str:
        return base64.b64encode(self.raw).decode()

    @property
    def fingerprint(self) -> str:
        """Tells keys apart and nothing about them."""
        return hashlib.sha256(b"agentnet sealed 1 fingerprint" + self.raw).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Sealed:
    """The secrets of one file, open."""

    secrets: Mapping[str, str] = field(repr=False)
    masters: Mapping[str, str] = field(default_factory=dict, repr=False)
    data_key: bytes = field(default_factory=lambda: secrets.token_bytes(KEY_BYTES), repr=False)

    @classmethod
    def open(cls, path: Path, master: MasterKey) -> Sealed:
        """Raises SealBroken: no file of secrets, another master key, or bytes that were changed."""
        document = _read(path)
        wrapped = document.data_keys.get(master.fingerprint)
        if wrapped is None:
            known = ", ".join(sorted(document.data_keys)) or "none"
            raise SealBroken(f"{path} does not open with the key {master.fingerprint}; it does with {known}")
        data_key = _opened(master.raw, wrapped, _DATA_KEY, path)
        found = {
            name: _opened(data_key, sealed, _SECRET + name.encode(), path).decode()
            for name, sealed in document.secrets.items()
        }
        return cls(found, document.data_keys, data_key)

    @classmethod
    def of(cls, secrets: Mapping[str, str], *masters: MasterKey) -> Sealed:
        """The same secrets under a fresh data key, which these master keys open."""
        made = cls(secrets)
        return cls(
            secrets, {key.fingerprint: _sealed(key.raw, made.data_key, _DATA_KEY) for key in masters}, made.data_key
        )

    def write(self, path: Path) -> None:
        """In one step: a reader finds the old file or the new one."""
        document = _Document(
            data_keys=dict(self.masters),
            secrets={
                name: _sealed(self.data_key, value.encode(), _SECRET + name.encode())
                for name, value in sorted(self.secrets.items())
            },
        )
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "w") as file:  # for its owner alone, as mkstemp makes it
            file.write(document.model_dump_json(indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)


def names(path: Path) -> tuple[list[str], list[str]]:
    """The names of a file's secrets and the fingerprints of the keys that open it; no key is needed."""
    document = _read(path)
    return sorted(document.secrets), sorted(document.data_keys)


def _read(path: Path) -> _Document:
    try:
        return _Document.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SealBroken(f"{path} cannot be read: {type(error).__name__}") from None
    except ValidationError:
        raise SealBroken(f"{path} is no file of sealed secrets") from None


def _sealed(key: bytes, value: bytes, context: bytes) -> str:
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return base64.b64encode(nonce + AESGCM(key).encrypt(nonce, value, context)).decode()


def _opened(key: bytes, sealed: str, context: bytes, path: Path) -> bytes:
    try:
        raw = base64.b64decode(sealed, validate=True)
        return AESGCM(key).decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], context)
    except (InvalidTag, ValueError, binascii.Error):
        raise SealBroken(f"{path} was changed, or is of another key") from None
