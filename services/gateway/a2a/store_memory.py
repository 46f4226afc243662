"""The honest fake."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from services.gateway.a2a.store import Record, Sought
from shared.paging import Page


class MemoryA2aStore:
    """Everything is gone when the process ends."""

    def __init__(self) -> None:
        self._tasks: dict[tuple[str, str], Record] = {}
        self._addresses: dict[tuple[str, str, str], bytes] = {}

    async def save(self, tenant: str, record: Record) -> None:
        self._tasks[tenant, record.id] = record

    async def find(self, tenant: str, task_id: str) -> Record | None:
        return self._tasks.get((tenant, task_id))

    async def search(self, tenant: str, sought: Sought, page: Page) -> tuple[Sequence[Record], int]:
        mine = [record for (owner, _), record in self._tasks.items() if owner == tenant and _fits(record, sought)]
        found = sorted(mine, key=_place, reverse=True)
        at, last = page.place
        return [record for record in found if at is None or _place(record) < (at, last)][: page.size + 1], len(mine)

    async def put_address(self, tenant: str, task_id: str, address_id: str, config: bytes) -> None:
        self._addresses[tenant, task_id, address_id] = config

    async def addresses(self, tenant: str, task_id: str) -> Sequence[bytes]:
        return [config for (*owner, _), config in sorted(self._addresses.items()) if owner == [tenant, task_id]]

    async def delete_address(self, tenant: str, task_id: str, address_id: str) -> None:
        self._addresses.pop((tenant, task_id, address_id), None)


def _fits(record: Record, sought: Sought) -> bool:
    return (
        sought.agent in {"", record.agent}
        and sought.context_id in {"", record.context_id}
        and sought.state in {0, record.state}
        and (sought.changed_since is None or record.updated_at >= sought.changed_since)
    )


def _place(record: Record) -> tuple[datetime, str]:
    return record.updated_at, record.id
