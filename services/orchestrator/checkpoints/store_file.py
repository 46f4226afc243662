"""Checkpoints as JSON files: a folder a tenant, a file a checkpoint, written beside and renamed."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from services.orchestrator.checkpoints.store import CheckpointFilter, Data, page_of
from shared.errors import Unavailable
from shared.paging import Page

_SUFFIX: Final = ".json"


class FileCheckpointStore:
    """Files under one folder, which is made. Ids and tenants must be names without separators, as the mesh's are."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def save(self, tenant: str, checkpoint_id: str, data: Data) -> None:
        await _apart(_write, self._path(tenant, checkpoint_id), json.dumps(data))

    async def load(self, tenant: str, checkpoint_id: str) -> Data | None:
        found: Data | None = await _apart(_read, self._path(tenant, checkpoint_id))
        return found

    async def every(self, tenant: str, chosen: CheckpointFilter, *, page: Page) -> Sequence[Data]:
        found: list[Data] = await _apart(self._every, tenant, chosen, page)
        return found

    async def delete(self, tenant: str, checkpoint_id: str) -> bool:
        gone: bool = await _apart(_remove, self._path(tenant, checkpoint_id))
        return gone

    def _every(self, tenant: str, chosen: CheckpointFilter, page: Page) -> list[Data]:
        """Reads no more files than the page needs."""
        names = [path.name.removesuffix(_SUFFIX) for path in (self._folder / tenant).glob(f"*{_SUFFIX}")]
        found: list[Data] = []
        for name in page_of(names, replace(page, size=len(names))):
            data = _read(self._path(tenant, name))
            if data is not None and chosen.fits(data):
                found.append(data)
            if len(found) > page.size:
                break
        return found

    def _path(self, tenant: str, checkpoint_id: str) -> Path:
        return self._folder / tenant / f"{checkpoint_id}{_SUFFIX}"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(f".{os.getpid()}.part")
    with beside.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def _read(path: Path) -> Data | None:
    try:
        data: Data = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return data


def _remove(path: Path) -> bool:
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


async def _apart(work: Any, *given: object) -> Any:
    """In a thread: the disk may be slow."""
    try:
        return await asyncio.to_thread(work, *given)
    except OSError as error:
        raise Unavailable("the folder of checkpoints cannot be used", dependency="files") from error
