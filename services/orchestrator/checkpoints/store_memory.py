"""The honest fake: checkpoints in memory, as text, so that nobody changes a saved one by accident."""

from __future__ import annotations

import json
from collections.abc import Sequence

from services.orchestrator.checkpoints.store import CheckpointFilter, Data, page_of
from shared.paging import Page


class MemoryCheckpointStore:
    """By tenant and id."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], str] = {}

    async def save(self, tenant: str, checkpoint_id: str, data: Data) -> None:
        self._kept[tenant, checkpoint_id] = json.dumps(data)

    async def load(self, tenant: str, checkpoint_id: str) -> Data | None:
        text = self._kept.get((tenant, checkpoint_id))
        return json.loads(text) if text is not None else None

    async def every(self, tenant: str, chosen: CheckpointFilter, *, page: Page) -> Sequence[Data]:
        mine = {name: json.loads(text) for (owner, name), text in self._kept.items() if owner == tenant}
        return [mine[name] for name in page_of([name for name in mine if chosen.fits(mine[name])], page)]

    async def delete(self, tenant: str, checkpoint_id: str) -> bool:
        return self._kept.pop((tenant, checkpoint_id), None) is not None
