"""One suite for both stores of conversations."""

from __future__ import annotations

from typing import Any

from services.memory.store import Conversation, Receipt, ShortTermTurn
from tests.support.memory import NOW


async def test_a_turn_is_kept_once_and_the_tail_is_in_order(conversations: Any, tenant: str) -> None:
    for number in range(5):
        held = await conversations.append_turn(tenant, "s", ShortTermTurn(f"t{number}", "A", str(number)), now=NOW)
    assert held == 5
    assert await conversations.append_turn(tenant, "s", ShortTermTurn("t4", "A", "again"), now=NOW) == 5
    tail = await conversations.tail(tenant, "s", limit=3)
    assert [(turn.content, turn.created_at) for turn in tail] == [("2", NOW), ("3", NOW), ("4", NOW)]
    assert await conversations.tail("another", "s", limit=3) == []


async def test_folding_replaces_turns_by_the_summary_once(conversations: Any, tenant: str) -> None:
    turns = [ShortTermTurn(f"t{number}", "A", str(number)) for number in range(3)]
    for turn in turns:
        await conversations.append_turn(tenant, "s", turn, now=NOW)
    first = Conversation("zero and one", 2)
    assert await conversations.fold(tenant, "s", turns[:2], Conversation(), first)
    assert not await conversations.fold(tenant, "s", turns[2:], Conversation(), Conversation("late", 1))
    assert await conversations.conversation(tenant, "s") == first
    assert [turn.turn_id for turn in await conversations.tail(tenant, "s", limit=9)] == ["t2"]
    assert await conversations.fold(tenant, "s", turns[2:], first, Conversation("all", 3))
    assert await conversations.conversation("another", "s") == Conversation()


async def test_a_forgotten_conversation_leaves_neither_turns_nor_summary(conversations: Any, tenant: str) -> None:
    for session in ("s", "other"):
        await conversations.append_turn(tenant, session, ShortTermTurn("t", "Athena", "said"), now=NOW)
        await conversations.fold(tenant, session, [], Conversation(), Conversation("sum", 1))
    await conversations.forget(tenant, "s", [Receipt("rct_1", "t", b"hash", "ada", NOW)])
    assert await conversations.tail(tenant, "s", limit=5) == []
    assert await conversations.conversation(tenant, "s") == Conversation()
    assert await conversations.conversation(tenant, "other") == Conversation("sum", 1)
