"""Credentials by reference: `env:`, `file:`, `sealed:` (an encrypted file), `vault:` and `aws:`. Never inline."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import aiohttp
from pydantic import SecretStr

from shared.log import log
from shared.sealed import MasterKey, SealBroken, Sealed
from shared.settings import BadSetting

MASTER_KEY: Final = "AGENTNET_SECRETS_KEY"
_SECONDS: Final = 10.0
_AGAIN_SECONDS: Final = 10.0
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OK: Final = 200


class CredentialMissing(BadSetting):
    """A reference leads nowhere. Says which, never what was found."""

    setting = "AGENTNET_INFERENCE_CATALOG"


class Credentials:
    """Reads references."""

    def __init__(self, session: aiohttp.ClientSession, environment: Mapping[str, str] = os.environ) -> None:
        self._session = session
        self._environment = environment
        self._readers: dict[str, Callable[[str], Awaitable[str]]] = {
            "env": self._from_environment,
            "file": self._from_file,
            "sealed": self._from_sealed,
            "vault": self._from_vault,
            "aws": self._from_aws,
        }

    async def read(self, reference: str) -> SecretStr:
        """The secret. Raises CredentialMissing."""
        scheme, colon, place = reference.partition(":")
        if not colon or scheme not in self._readers:
            known = ", ".join(f"{scheme}:" for scheme in self._readers)
            raise CredentialMissing(f"a credential is given by reference, beginning with one of {known}")
        try:
            async with asyncio.timeout(_SECONDS):
                found = (await self._readers[scheme](place)).strip()
        except TimeoutError:
            raise CredentialMissing(f"{reference} was not read within {_SECONDS:g} seconds") from None
        if not found:
            raise CredentialMissing(f"{reference} is empty")
        if not (found.isascii() and found.isprintable()):
            raise CredentialMissing(f"{reference} holds characters that no key has")
        return SecretStr(found)

    async def _from_environment(self, name: str) -> str:
        if not _VARIABLE.fullmatch(name):  # perhaps the key itself: it is not quoted
            raise CredentialMissing("env: takes the name of a variable, of letters, digits and _")
        if name not in self._environment:
            raise CredentialMissing(f"the environment has no {name}")
        return self._environment[name]

    async def _from_file(self, path: str) -> str:
        try:
            return (await asyncio.to_thread(Path(path).read_text, encoding="utf-8")).strip()
        except (OSError, UnicodeDecodeError) as error:
            raise CredentialMissing(f"{path} cannot be read: {type(error).__name__}") from None

    async def _from_sealed(self, place: str) -> str:
        """An encrypted file of secrets (shared/sealed.py), with the master key that AGENTNET_SECRETS_KEY refers to."""
        path, _, name = place.partition("#")
        reference = await self._from_environment(MASTER_KEY)
        if reference.startswith("sealed:"):
            raise CredentialMissing(f"{MASTER_KEY} must lead out of sealed files")
        key = await self.read(reference)
        try:
            opened = await asyncio.to_thread(Sealed.open, Path(path), MasterKey.parse(key.get_secret_value()))
        except SealBroken as error:
            raise CredentialMissing(str(error)) from None
        return _field(opened.secrets, name, path)

    async def _from_vault(self, place: str) -> str:
        """Vault's KV version 2 at VAULT_ADDR with VAULT_TOKEN (developer.hashicorp.com/vault/api-docs/secret/kv)."""
        path, _, field = place.partition("#")
        address = await self._from_environment("VAULT_ADDR")
        headers = {"x-vault-token": await self._from_environment("VAULT_TOKEN")}
        if namespace := self._environment.get("VAULT_NAMESPACE"):
            headers["x-vault-namespace"] = namespace
        mount, _, rest = path.partition("/")
        url = f"{address.rstrip('/')}/v1/{mount}/data/{rest}"
        try:
            async with self._session.get(url, headers=headers) as answer:
                status, body = answer.status, await answer.read()
        except aiohttp.ClientError as error:
            raise CredentialMissing(f"vault at VAULT_ADDR cannot be reached: {type(error).__name__}") from None
        if status != _OK:
            raise CredentialMissing(f"vault answers {status} for {path}")
        try:
            found = json.loads(body)["data"]["data"]
        except (ValueError, TypeError, KeyError):
            found = None
        return _field(found, field, path)

    async def _from_aws(self, place: str) -> str:
        """AWS Secrets Manager, with botocore's own search for credentials and region (extra `aws`)."""
        name, _, field = place.partition("#")
        text = await asyncio.to_thread(_aws_secret, name)
        if not field:
            return text
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        return _field(found, field, name)


def _aws_secret(name: str) -> str:
    try:
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - an optional extra
        from botocore.session import get_session  # noqa: PLC0415 - an optional extra
    except ImportError:
        raise CredentialMissing("aws: needs the extra `aws` (botocore)") from None
    try:
        answer: dict[str, Any] = get_session().create_client("secretsmanager").get_secret_value(SecretId=name)
    except (BotoCoreError, ClientError) as error:
        raise CredentialMissing(f"AWS Secrets Manager does not give {name}: {type(error).__name__}") from None
    if "SecretString" not in answer:
        raise CredentialMissing(f"{name} in AWS Secrets Manager is binary, not text")
    return str(answer["SecretString"])


def _field(found: object, field: str, where: str) -> str:
    name = field or "value"
    if not isinstance(found, Mapping):
        raise CredentialMissing(f"{where} holds no fields")
    if not isinstance(found.get(name), str):
        raise CredentialMissing(f"{where} has no field {name} of text")
    return str(found[name])


class Proof:
    """The headers that prove a key to its provider. Where it refuses them the reference is read again, at most once in
    ten seconds: a key may be replaced while the mesh runs.
    """

    def __init__(
        self, read: Callable[[], Awaitable[SecretStr]], key: SecretStr, shown: Callable[[SecretStr], Mapping[str, str]]
    ) -> None:
        self.headers = shown(key)
        self._read = read
        self._shown = shown
        self._reading = asyncio.Lock()
        self._read_at = -_AGAIN_SECONDS

    async def renewed(self, refused: Mapping[str, str]) -> bool:
        """Whether there are other headers by now than those that were refused."""
        async with self._reading:
            now = asyncio.get_running_loop().time()
            if self.headers == refused and now - self._read_at >= _AGAIN_SECONDS:
                self._read_at = now
                await self._renew()
        return self.headers != refused

    async def _renew(self) -> None:
        try:
            self.headers = self._shown(await self._read())
        except CredentialMissing as error:
            log.warning("provider.key_not_read_again", error=str(error))
