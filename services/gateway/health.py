"""The health of the whole mesh, asked at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from services.gateway.errors import MeshUnhealthy

_LIMIT_SECONDS: Final = 1.5
NEEDED: Final = frozenset({"orchestrator", "inference", "policy", "cost", "postgres"})

Probe = Callable[[], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class PartHealth:
    """One service or store."""

    name: str
    serving: bool


class MeshHealth:
    """Knows how to ask every part."""

    def __init__(self, probes: Mapping[str, Probe]) -> None:
        self._probes = probes

    async def parts(self) -> Sequence[PartHealth]:
        """Every part, within two seconds."""
        answers = await asyncio.gather(*(self._ask(probe) for probe in self._probes.values()))
        return [PartHealth(name, serving) for name, serving in zip(self._probes, answers, strict=True)]

    async def require(self) -> Sequence[PartHealth]:
        """Every part. Raises MeshUnhealthy when the main job cannot be done."""
        parts = await self.parts()
        down = [part.name for part in parts if part.name in NEEDED and not part.serving]
        if down:
            raise MeshUnhealthy(f"down: {', '.join(down)}", dependency=",".join(down))
        return parts

    async def _ask(self, probe: Probe) -> bool:
        try:
            async with asyncio.timeout(_LIMIT_SECONDS):
                return await probe()
        except TimeoutError:
            return False
