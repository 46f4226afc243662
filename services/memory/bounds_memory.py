"""The honest fake of the bounds."""

from __future__ import annotations

from collections.abc import Mapping

from services.memory.bounds import Bounds, Kind


class InMemoryBounds:
    """Everything is gone when the process ends."""

    def __init__(self) -> None:
        self._tenants: dict[str, dict[Kind, Bounds]] = {}

    async def bounds(self, tenant: str) -> Mapping[Kind, Bounds]:
        return self._tenants.get(tenant, {})

    async def set_bounds(self, tenant: str, kind: Kind, bounds: Bounds) -> None:
        self._tenants.setdefault(tenant, {})[kind] = bounds
