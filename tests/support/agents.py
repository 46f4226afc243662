"""What is around agents, on memory stores beside a World."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from services.orchestrator.agents.history_memory import MemoryHappeningStore, MemoryHistoryStore
from services.orchestrator.agents.outcome import News
from services.orchestrator.registration import AgentSide
from shared.errors import Unavailable
from tests.support.orchestrator import World

POLL = timedelta(milliseconds=5)


@dataclass(slots=True)
class ScriptedHerald:
    """Hears the news; `away` is a bus that does not answer."""

    told: list[tuple[str, News]] = field(default_factory=list)
    away: bool = False

    async def tell(self, tenant: str, news: Sequence[News]) -> None:
        if self.away:
            raise Unavailable("away")
        self.told += [(tenant, one) for one in news]

    @property
    def names(self) -> list[str]:
        return [news.name for _, news in self.told]


@dataclass(slots=True)
class Surroundings:
    """A World's agent side and the levers on it."""

    world: World
    herald: ScriptedHerald = field(default_factory=ScriptedHerald)
    history: MemoryHistoryStore = field(default_factory=MemoryHistoryStore)
    happenings: MemoryHappeningStore = field(init=False)

    def __post_init__(self) -> None:
        self.happenings = MemoryHappeningStore(self.world.store)

    @property
    def side(self) -> AgentSide:
        return AgentSide(
            sessions=self.world.sessions,
            graphs=self.world.graphs,
            history_store=self.history,
            happenings=self.happenings,
            herald=self.herald,
        )

    async def follow(self) -> int:
        """Follows all that waits; how much that was."""
        followed, follower = 0, self.side.follower(POLL)
        while found := await follower.follow():
            followed += found
        return followed
