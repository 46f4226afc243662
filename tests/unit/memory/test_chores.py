"""What runs beside answering, and what happens when somebody else is faster."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Collection, Sequence
from datetime import timedelta
from typing import Any

import pytest

from services.memory import upkeep
from services.memory import used as used_of_late
from services.memory.conversation import Conversations
from services.memory.conversations_memory import InMemoryConversations
from services.memory.errors import MemoryNotFound
from services.memory.filters import fits
from services.memory.policy import Held, MemoryPolicy
from services.memory.remember import Change, Remembering
from services.memory.store import Conversation, Entry, Filter, Memory, MemoryType, Receipt, Said, ShortTermTurn
from services.memory.store_memory import InMemoryStore
from services.memory.upkeep import Limits, Upkeep
from services.memory.used import Used
from shared.clock import FakeClock
from shared.ids import SequentialIds
from tests.support.memory import NOW, HashingEmbedder, entry, memory
from tests.support.published import enforcing

SHORT = timedelta(milliseconds=5)


async def running(work: Any) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await work


class TendingStore(InMemoryStore):
    """Tells whom it was asked to tend."""

    def __init__(self) -> None:
        super().__init__()
        self.tended: list[tuple[str, bool]] = []

    async def tend(self, tenant: str, *, busy: Callable[[], bool]) -> int:
        self.tended.append((tenant, busy()))
        return 1


async def test_the_index_is_tended_for_those_that_stored() -> None:
    store, clock = TendingStore(), FakeClock()
    limits = Limits(store, clock, memories=10)
    await limits.admit("t", 1)
    await running(Upkeep(store, limits, clock, SequentialIds()).run_tending(SHORT))
    assert store.tended == [("t", False)]


async def test_a_bulk_is_tended_again_when_it_is_over() -> None:
    store, clock = TendingStore(), FakeClock()
    limits = Limits(store, clock, memories=1_000)
    chores = Upkeep(store, limits, clock, SequentialIds())
    await limits.admit("t", 50)
    clock.advance(timedelta(seconds=2))
    await chores.tend()
    await chores.tend()
    clock.advance(timedelta(seconds=2))
    await chores.tend()
    await chores.tend()
    assert store.tended == [("t", True), ("t", True), ("t", False)]


async def test_what_a_service_that_died_left_out_of_the_index_is_tended() -> None:
    store, clock = TendingStore(), FakeClock()
    await store.add("t", [entry("here")])
    await running(Upkeep(store, Limits(store, clock, memories=10), clock, SequentialIds()).run_tending(SHORT))
    assert store.tended == [("t", False)]


async def test_of_too_many_tenants_bulks_are_noted_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "_TENANTS", 1)
    limits = Limits(InMemoryStore(), FakeClock(), memories=1_000)
    for tenant in ("a", "b"):
        await limits.admit(tenant, 50)
    assert (limits.busy("a"), limits.busy("b")) == (False, True)


async def test_a_store_without_an_index_has_nothing_to_tend() -> None:
    store, clock = InMemoryStore(), FakeClock()
    limits = Limits(store, clock, memories=10)
    await limits.admit("t", 1)
    await Upkeep(store, limits, clock, SequentialIds()).tend()
    assert list(limits.take_stored()) == []


async def test_what_is_noted_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(used_of_late, "_MOST", 1)
    store, clock = InMemoryStore(), FakeClock(NOW)
    first, second = await store.add("t", [entry("first"), entry("second", 0, 1)])
    used = Used(store, clock)
    for places in ([], [first.place], [second.place]):
        used.note("t", places)
    clock.advance(timedelta(days=1))
    await used.write()
    assert await store.least("t", MemoryType.SEMANTIC, limit=2) == [second, first]


async def test_where_nothing_was_found_nothing_is_written() -> None:
    store, clock = InMemoryStore(), FakeClock(NOW)
    (first,) = await store.add("t", [entry("first")])
    used = Used(store, clock)
    used.note("t", [])
    await used.write()
    assert await store.least("t", MemoryType.SEMANTIC, limit=2) == [first]


async def test_found_memories_are_noted_now_and_then_and_decide_who_goes() -> None:
    store, clock = InMemoryStore(), FakeClock(NOW)
    first, second = await store.add("t", [entry("first"), entry("second", 0, 1)])
    used = Used(store, clock)
    clock.advance(timedelta(days=1))
    used.note("t", [first.place])
    used.note("t", [])
    await running(used.run(SHORT))
    assert await store.least("t", MemoryType.SEMANTIC, limit=2) == [second, first]


class HastyConversations(InMemoryConversations):
    """Somebody else is always faster."""

    async def fold(self, *args: Any) -> bool:
        return False


async def test_who_is_always_too_late_folds_nothing() -> None:
    policy = MemoryPolicy(await enforcing(Held.of), strict=True)
    conversations = Conversations(HastyConversations(), policy=policy, clock=FakeClock(), ids=SequentialIds())
    await conversations.append("t", [Said("s", ShortTermTurn(str(number), "A", "x")) for number in range(3)])
    assert await conversations.compact("t", "s", keep_turns=1, max_tokens=50) == 0
    assert (await conversations.history("t", "s")).conversation == Conversation()


class VanishingStore(InMemoryStore):
    """A memory is gone between reading and writing."""

    async def change(self, tenant: str, entry: Entry, *, before: Memory) -> Memory | None:
        await super().forget(tenant, [before], [])
        return None

    async def forget(self, tenant: str, memories: Sequence[Memory], receipts: Sequence[Receipt]) -> Collection[str]:
        await super().forget(tenant, memories, [])
        return ()


class ChangingStore(InMemoryStore):
    """A memory is changed between reading and the first deletion."""

    changing = True

    async def forget(self, tenant: str, memories: Sequence[Memory], receipts: Sequence[Receipt]) -> Collection[str]:
        if self.changing:
            self.changing = False
            (before,) = memories
            after = entry("there", id=before.id, place=before.place, updated_at=NOW)
            await super().change(tenant, after, before=before)
        return await super().forget(tenant, memories, receipts)


async def test_what_is_forgotten_is_proven_as_it_was_at_last() -> None:
    store, clock = ChangingStore(), FakeClock(NOW)
    policy, limits = MemoryPolicy(await enforcing(Held.of), strict=True), Limits(store, clock, memories=9)
    remembering = Remembering(store, HashingEmbedder(), limits, policy=policy, clock=clock, ids=SequentialIds())
    (kept,) = await store.add("t", [entry("here")])
    receipt = await remembering.forget("t", kept, requested_by="ada")
    assert receipt.content_sha256 == hashlib.sha256(b"there").digest()
    assert await store.find("t", kept.id, now=NOW) is None


async def test_what_vanishes_meanwhile_is_not_found() -> None:
    store, clock = VanishingStore(), FakeClock(NOW)
    policy, limits = MemoryPolicy(await enforcing(Held.of), strict=True), Limits(store, clock, memories=9)
    remembering = Remembering(store, HashingEmbedder(), limits, policy=policy, clock=clock, ids=SequentialIds())
    kept, other = await store.add("t", [entry("here"), entry("there")])
    with pytest.raises(MemoryNotFound):
        await remembering.update("t", kept.id, Change(importance=1.0))
    with pytest.raises(MemoryNotFound):
        await remembering.forget("t", other, requested_by="ada")


@pytest.mark.parametrize(
    ("value", "text", "same"),
    [(True, "true", True), (3, "3", True), (1.5, "1.5", True), ("x", "x", True), (None, "None", False), ({"a": 1}, "a", False)],
)  # fmt: skip
def test_a_value_is_compared_by_its_text(value: object, text: str, same: bool) -> None:
    held = memory("m")._replace(metadata={"key": value})
    assert fits(held, Filter(metadata={"key": text})) == same
