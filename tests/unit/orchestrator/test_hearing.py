"""How a generation is heard: at once while somebody reads, in pieces while nobody does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentnet.inference.v1 import generation_pb2
from agentnet.orchestrator.v1 import event_pb2
from services.orchestrator.peers import Utterance
from services.orchestrator.store import Entry, Lease
from services.orchestrator.store_memory import MemorySessionStore
from services.orchestrator.tail_memory import MemoryTail
from shared.identity import Principal
from tests.support.orchestrator import TENANT, ScriptedInference, Watching, World, driving

ONE = {"agents": ["Athena"], "mode": "single", "max_rounds": 1}


@dataclass(slots=True)
class KeepingBack(ScriptedInference):
    """Sends the first event and keeps the rest back from whom nobody waits behind, for ever."""

    begun: asyncio.Event = field(default_factory=asyncio.Event)
    attached: list[int] = field(default_factory=list)

    async def generate(
        self, caller: Principal, utterance: Utterance
    ) -> AsyncGenerator[generation_pb2.GenerationEvent, None]:
        async for event in ScriptedInference.generate(self, caller, utterance):
            yield event
            if utterance.gather:
                self.begun.set()
                await asyncio.Event().wait()

    async def attach(
        self, caller: Principal, generation_id: str, *, after: int
    ) -> AsyncGenerator[generation_pb2.GenerationEvent, None]:
        self.attached.append(after)
        async for event in ScriptedInference.attach(self, caller, generation_id, after=after):
            yield event


class CommittedLate(MemorySessionStore):
    """A store that commits the end of a turn only when it is allowed to."""

    allowed: asyncio.Event

    async def append(self, lease: Lease, entries: Sequence[Entry], **given: Any) -> int:
        if any(entry.kind == "turn_finished" for entry in entries):
            await self.allowed.wait()
        return await super().append(lease, entries, **given)


class AtOnce(ScriptedInference):
    """Answers whole, as inference does whom nobody waits behind."""

    async def generate(
        self, caller: Principal, utterance: Utterance
    ) -> AsyncGenerator[generation_pb2.GenerationEvent, None]:
        for event in [event async for event in ScriptedInference.generate(self, caller, utterance)]:
            yield event


class Waking(MemoryTail):
    """Notes the commits that readers are woken for."""

    def __init__(self) -> None:
        super().__init__()
        self.commits: list[list[str]] = []

    def wake(self, lease: Lease, committed: Sequence[Entry]) -> None:
        self.commits += [[entry.kind for entry in committed]] if committed else []
        super().wake(lease, committed)


async def test_once_it_is_known_that_nobody_reads_nobody_is_woken_before_the_end() -> None:
    world = World(inference=AtOnce(), tail=(tail := Waking()))
    await world.start(**ONE)
    await world.drive()
    assert [kinds[-1] for kinds in tail.commits] == ["turn_started", "session_finished"]


async def test_text_nobody_reads_is_asked_for_in_pieces() -> None:
    world = World()
    await world.start(**ONE)
    await world.drive()
    assert [utterance.gather for utterance in world.inference.started] == [1.0]


async def test_text_somebody_reads_is_asked_for_as_it_comes() -> None:
    world = World()
    session_id = await world.start(**ONE)
    with world.tail.woken(TENANT, session_id):
        await world.drive()
    assert [utterance.gather for utterance in world.inference.started] == [0.0]


async def test_a_reader_that_comes_in_mid_turn_gets_what_was_kept_back_at_once() -> None:
    world = World(inference=KeepingBack())
    session_id = await world.start(**ONE)
    async with driving(world, "one"):
        await asyncio.wait_for(world.inference.begun.wait(), 5)
        await Watching(world, session_id).end()

    (turn,) = [event.turn_finished.turn for event in await world.log(session_id) if event.HasField("turn_finished")]
    assert turn.content == "Athena has one idea about it."
    assert (world.inference.attached, world.inference.cancelled, turn.attempt) == ([1], [], 1)


async def test_the_last_words_of_a_turn_do_not_wait_for_its_commit() -> None:
    world = World()
    world.store = CommittedLate(world.leases)
    world.store.allowed = asyncio.Event()
    session_id = await world.start(**ONE)
    watching = Watching(world, session_id)
    async with driving(world, "one"):
        text = ""
        while text != "Athena has one idea about it.":
            seen = len(watching.seen)
            text = "".join(event_pb2.SessionEvent.FromString(one).tokens_produced.text for one in watching.seen)
            if text != "Athena has one idea about it.":
                await watching.until(seen + 1)
        assert not any(event.HasField("turn_finished") for event in await world.log(session_id))
        world.store.allowed.set()
        await watching.end()
