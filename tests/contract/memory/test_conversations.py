"""One suite for both stores of conversations."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from services.memory.bounds import Bounds, Kept, Kind
from services.memory.bounds_memory import InMemoryBounds
from services.memory.bounds_postgres import PostgresBounds
from services.memory.conversations_postgres import PostgresConversationStore
from services.memory.store import Conversation, Receipt, Said, ShortTermTurn
from services.memory.store_postgres import PostgresMemoryStore
from shared.postgres import Database
from tests.support.memory import NOW

DAY = timedelta(days=1)


async def test_a_turn_is_kept_once_and_the_tail_is_in_order(conversations: Any, tenant: str) -> None:
    for number in range(5):
        said = Said("s", ShortTermTurn(f"t{number}", "A", str(number)))
        held = await conversations.append_turns(tenant, [said], now=NOW)
    assert held == {"s": 5}
    again = Said("s", ShortTermTurn("t4", "A", "again"))
    assert await conversations.append_turns(tenant, [again], now=NOW) == {"s": 5}
    tail = await conversations.tail(tenant, "s", limit=3)
    assert [(turn.content, turn.created_at) for turn in tail] == [("2", NOW), ("3", NOW), ("4", NOW)]
    assert await conversations.tail("another", "s", limit=3) == []


async def test_turns_of_many_sessions_are_kept_together_in_their_order(conversations: Any, tenant: str) -> None:
    places = [("s", 3), ("r", 0), ("s", 1), ("s", 2), ("r", 0)]
    said = [Said(session, ShortTermTurn(f"t{number}", "A", str(number))) for session, number in places]
    assert await conversations.append_turns(tenant, said, now=NOW) == {"s": 3, "r": 1}
    assert [turn.content for turn in await conversations.tail(tenant, "s", limit=9)] == ["3", "1", "2"]
    assert [turn.content for turn in await conversations.tail(tenant, "r", limit=9)] == ["0"]


async def test_folding_replaces_turns_by_the_summary_once(conversations: Any, tenant: str) -> None:
    turns = [ShortTermTurn(f"t{number}", "A", str(number)) for number in range(3)]
    await conversations.append_turns(tenant, [Said("s", turn) for turn in turns], now=NOW)
    first = Conversation("zero and one", 2)
    assert await conversations.fold(tenant, "s", turns[:2], Conversation(), first)
    assert not await conversations.fold(tenant, "s", turns[2:], Conversation(), Conversation("late", 1))
    assert await conversations.conversation(tenant, "s") == first
    assert [turn.turn_id for turn in await conversations.tail(tenant, "s", limit=9)] == ["t2"]
    assert await conversations.fold(tenant, "s", turns[2:], first, Conversation("all", 3))
    assert await conversations.conversation("another", "s") == Conversation()


async def test_a_forgotten_conversation_leaves_neither_turns_nor_summary(conversations: Any, tenant: str) -> None:
    for session in ("s", "other"):
        await conversations.append_turns(tenant, [Said(session, ShortTermTurn("t", "Athena", "said"))], now=NOW)
        await conversations.fold(tenant, session, [], Conversation(), Conversation("sum", 1))
    await conversations.forget(tenant, "s", [Receipt("rct_1", "t", b"hash", "ada", NOW)])
    assert await conversations.tail(tenant, "s", limit=5) == []
    assert await conversations.conversation(tenant, "s") == Conversation()
    assert await conversations.conversation(tenant, "other") == Conversation("sum", 1)


async def say(conversations: Any, tenant: str, session: str, *days_ago: int) -> None:
    for ago in days_ago:
        said = Said(session, ShortTermTurn(f"{session}-{ago}", "A", "said"))
        await conversations.append_turns(tenant, [said], now=NOW - ago * DAY)


async def test_the_longest_silent_are_known(conversations: Any, tenant: str) -> None:
    await say(conversations, tenant, "old", 9, 8)
    await say(conversations, tenant, "goes-on", 7, 1)
    await say(conversations, tenant, "quiet", 5)
    assert await conversations.kept(tenant) == Kept(3, NOW - 9 * DAY)
    assert sorted(await conversations.silent(tenant, before=NOW - 4 * DAY, limit=9)) == ["old", "quiet"]
    assert len(await conversations.silent(tenant, before=NOW - 4 * DAY, limit=1)) == 1
    assert await conversations.silent(tenant, before=NOW - 8 * DAY, limit=9) == []
    assert await conversations.surplus(tenant, at_most=2, limit=9) == ["old"]
    assert len(await conversations.surplus(tenant, at_most=0, limit=2)) == 2
    assert await conversations.surplus(tenant, at_most=3, limit=9) == []
    assert await conversations.kept("another") == Kept(0, None)
    assert await conversations.silent("another", before=NOW, limit=9) == []


async def test_who_speaks_meanwhile_is_not_forgotten(conversations: Any, tenant: str) -> None:
    await say(conversations, tenant, "s", 9, 8)
    assert not await conversations.forget(tenant, "s", [], newest="s-9")
    assert len(await conversations.tail(tenant, "s", limit=9)) == 2
    assert await conversations.forget(tenant, "s", [], newest="s-8")
    assert await conversations.tail(tenant, "s", limit=9) == []


@pytest.fixture(params=["memory", "postgres"])
def bounds(request: pytest.FixtureRequest, database: Database) -> Any:
    return InMemoryBounds() if request.param == "memory" else PostgresBounds(database)


async def test_bounds_are_a_tenants_own_and_the_last_ones_hold(bounds: Any, tenant: str) -> None:
    assert await bounds.bounds(tenant) == {}
    await bounds.set_bounds(tenant, Kind.FACT, Bounds(7, 30))
    await bounds.set_bounds(tenant, Kind.CONVERSATION, Bounds(days=2))
    await bounds.set_bounds(tenant, Kind.FACT, Bounds(8))
    assert await bounds.bounds(tenant) == {Kind.FACT: Bounds(8), Kind.CONVERSATION: Bounds(days=2)}
    assert await bounds.bounds("another") == {}


async def test_bounds_of_other_kinds_are_not_taken_for_those_of_memories(database: Database, tenant: str) -> None:
    await PostgresBounds(database).set_bounds(tenant, Kind.FACT, Bounds(8))
    assert await PostgresMemoryStore(database).usage(tenant) == []


async def test_who_only_spoke_is_known_by_name(database: Database, tenant: str) -> None:
    store = PostgresMemoryStore(database)
    assert tenant not in await store.tenants()
    await say(PostgresConversationStore(database), tenant, "s", 1)
    assert tenant in await store.tenants()
