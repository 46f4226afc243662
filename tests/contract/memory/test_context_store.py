"""What was said is kept where another process, and a later session, finds it."""

from __future__ import annotations

from services.memory.context import Assembled, Contexts, Need, Options
from services.memory.conversation import Conversations
from services.memory.conversations_postgres import PostgresConversationStore
from services.memory.episodes import Episodes
from services.memory.fact_store_postgres import PostgresFactStore
from services.memory.facts import Facts, NewFact
from services.memory.policy import Held, MemoryPolicy
from services.memory.recall import Recall
from services.memory.remember import Remembering
from services.memory.store import Said, ShortTermTurn
from services.memory.store_postgres import PostgresMemoryStore
from services.memory.upkeep import Limits
from services.memory.used import Used
from shared.clock import FakeClock
from shared.ids import RandomIds
from shared.postgres import Database
from tests.support.memory import HashingEmbedder
from tests.support.published import enforcing


class Process:
    """Everything memory holds in one process; what another one knows of it comes from Postgres alone."""

    def __init__(self, database: Database, policy: MemoryPolicy) -> None:
        clock, ids, embedder, store = FakeClock(), RandomIds(), HashingEmbedder(), PostgresMemoryStore(database)
        limits = Limits(store, clock, memories=1_000)
        remembering = Remembering(store, embedder, limits, policy=policy, clock=clock, ids=ids)
        recall = Recall(store, embedder, Used(store, clock), policy=policy, clock=clock)
        conversations = Conversations(PostgresConversationStore(database), policy=policy, clock=clock, ids=ids)
        self.facts = Facts(PostgresFactStore(database), policy=policy, clock=clock, ids=ids)
        self.contexts = Contexts(conversations, recall, remembering, self.facts, automatic=True)
        self.episodes = Episodes(conversations, remembering, automatic=True)

    async def told(self, tenant: str, session: str, query: str) -> Assembled:
        options = Options(
            max_tokens=1_000, subjects=("ada",), handoff_from="Apollo", handoff_note="Go on with the launch."
        )
        found = await self.contexts.context(tenant, Need(session, "Athena", query, 4, 4, options))
        assert found.assembled is not None
        return found.assembled


async def test_a_conversation_outlives_its_process_and_reaches_the_next_session(
    database: Database, tenant: str
) -> None:
    policy = MemoryPolicy(await enforcing(Held.of), strict=True)
    first, second = Process(database, policy), Process(database, policy)
    for number in range(55):
        content = "We decided to launch in March." if number == 2 else f"Point {number} of the agenda is done."
        turn = ShortTermTurn(f"t{number}", "Athena", content)
        await first.episodes.append(tenant, Said("monday", turn, remember=number == 2))
    await first.facts.record(tenant, [NewFact("ada", "prefers", "German")])

    same = await second.told(tenant, "monday", "")
    later = await second.told(tenant, "tuesday", "When do we launch?")

    assert "Point 54 of the agenda" in same.text
    assert "launch in March" in same.summary
    assert "Go on with the launch." in later.text
    assert "We decided to launch in March." in later.text
    assert "ada prefers: German" in later.text
    assert "Point 54" not in later.text
