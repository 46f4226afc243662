"""Large things by name: a folder, or S3 or what speaks like it."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import parse_qs, urlsplit

from shared.errors import Unavailable

_ABSENT: Final = ("NoSuchKey", "404", "NotFound")


class Objects(Protocol):
    """Objects by name. What is written is never changed."""

    async def put(self, name: str, data: bytes) -> None:
        """Writes it, whole or not at all. Raises Unavailable."""

    async def get(self, name: str) -> bytes | None:
        """None when there is no such object. Raises Unavailable."""


class FolderObjects:
    """A folder; a name's slashes are folders in it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def put(self, name: str, data: bytes) -> None:
        await asyncio.to_thread(self._put, self._folder / name, data)

    async def get(self, name: str) -> bytes | None:
        path = self._folder / name
        return await asyncio.to_thread(lambda: path.read_bytes() if path.is_file() else None)

    def _put(self, path: Path, data: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        written = path.with_name(f"{path.name}.part")
        written.write_bytes(data)
        written.replace(path)


class S3Objects:
    """A bucket and a prefix. Credentials and region come as boto3 finds them; `endpoint` is another server than AWS."""

    def __init__(self, bucket: str, *, prefix: str = "", endpoint: str | None = None) -> None:
        self._client: Any = importlib.import_module("boto3").client("s3", endpoint_url=endpoint)
        faults = importlib.import_module("botocore.exceptions")
        self._faults = (faults.BotoCoreError, faults.ClientError)
        self._bucket = bucket
        self._prefix = prefix

    async def put(self, name: str, data: bytes) -> None:
        await self._apart(lambda: self._client.put_object(Bucket=self._bucket, Key=self._prefix + name, Body=data))

    async def get(self, name: str) -> bytes | None:
        found: bytes | None = await self._apart(lambda: self._get(self._prefix + name))
        return found

    def _get(self, key: str) -> bytes | None:
        try:
            data: bytes = self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read()
        except self._client.exceptions.ClientError as error:
            if error.response["Error"]["Code"] in _ABSENT:
                return None
            raise
        return data

    async def _apart(self, work: Callable[[], Any]) -> Any:
        try:
            return await asyncio.to_thread(work)
        except self._faults as error:
            raise Unavailable("the object store does not answer", dependency="objects") from error


def objects(place: str, *, what: str = "the object store") -> Objects:
    """The store that `file:///folder` or `s3://bucket/prefix?endpoint=http://host:9000` names. Raises ValueError."""
    parts = urlsplit(place)
    if parts.scheme == "file" and parts.path:
        return FolderObjects(Path(parts.path))
    if parts.scheme == "s3" and parts.netloc:
        prefix = parts.path.strip("/")
        endpoint = parse_qs(parts.query).get("endpoint", [None])[0]
        return S3Objects(parts.netloc, prefix=f"{prefix}/" if prefix else "", endpoint=endpoint)
    raise ValueError(f"{what} is file:///folder or s3://bucket/prefix, not {place}")
