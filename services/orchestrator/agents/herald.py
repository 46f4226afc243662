"""The way to gateway's bus."""

from __future__ import annotations

from collections.abc import Sequence

from services.orchestrator.agents.outcome import News
from shared import bus
from shared.errors import Unavailable


class BusHerald:
    """Tells gateway's bus. The news' own ids make telling them twice harmless."""

    def __init__(self, outlet: bus.Outlet) -> None:
        self._outlet = outlet

    async def tell(self, tenant: str, news: Sequence[News]) -> None:
        """Returns when the bus has them. Raises Unavailable."""
        told = [
            bus.entry(
                tenant, one.name, source="orchestrator", time=one.time, event_id=one.id, subject=one.subject[:255],
                session_id=one.session_id, agent=one.agent[:200], data=dict(one.data),
            )
            for one in news
        ]  # fmt: skip
        if await self._outlet.put(bus.STREAM, told) < len(told):
            raise Unavailable("the bus does not answer", dependency="bus")
