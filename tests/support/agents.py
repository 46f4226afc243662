"""What is around agents, on memory stores beside a World."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from services.orchestrator.agents.delegations import DelegationGate
from services.orchestrator.agents.history_memory import MemoryHappeningStore, MemoryHistoryStore
from services.orchestrator.agents.outcome import News
from services.orchestrator.agents.stores_memory import (
    MemoryDelegationStore,
    MemoryRelationshipStore,
    MemoryTemplateStore,
)
from services.orchestrator.agents.templates import read_shelf
from services.orchestrator.reasoning.governance import Judged
from services.orchestrator.reasoning.thinking import Thinking
from services.orchestrator.registration import AgentSide
from shared.errors import Unavailable
from shared.identity import Principal
from tests.support.orchestrator import ScriptedInference, World

SHELF = read_shelf()
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
    relationships: MemoryRelationshipStore = field(default_factory=MemoryRelationshipStore)
    delegations: MemoryDelegationStore = field(default_factory=MemoryDelegationStore)
    templates: MemoryTemplateStore = field(default_factory=MemoryTemplateStore)
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
            relationship_store=self.relationships,
            delegation_store=self.delegations,
            template_store=self.templates,
            keeps=self.world.memory.append,
            shelf=SHELF,
        )

    async def follow(self) -> int:
        """Follows all that waits; how much that was."""
        followed, follower = 0, self.side.follower(POLL)
        while found := await follower.follow():
            followed += found
        return followed

    def governed(self) -> ScriptedInference:
        """From now on the World thinks as the mesh does, with the gate; the model that speaks."""
        model = self.world.inference
        gate = DelegationGate(self.delegations, self.world.sessions, self.world.clock)
        thinking = Thinking(model, self.world.memory, OpenPolicy(), self.world.clock, gate=gate)
        self.world.inference = thinking  # type: ignore[assignment] # an InferencePeer, as every user of it asks
        return model


class OpenPolicy:
    """Lets everything pass."""

    async def judge(
        self, caller: Principal, text: str, *, target: str, agent: str, bundles: Sequence[str], session_id: str,
        override_token: str = "",
    ) -> Judged:  # fmt: skip
        return Judged(text)
