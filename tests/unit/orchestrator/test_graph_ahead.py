"""What begins while its reservation is being written, what never does, and what a death in between comes to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agentnet.orchestrator.v1 import session_pb2, task_graph_pb2
from services.orchestrator.drivers.graph import _AHEAD, _Drive
from services.orchestrator.store import Entry, Lease
from services.orchestrator.store_memory import MemorySessionStore
from shared.errors import Unavailable
from tests.support.graphs import node
from tests.support.orchestrator import TTL, ScriptedInference, World

PLAN = '{"nodes": [{"id": "made", "prompt": "Do it.", "agent": "Athena", "depends_on": []}]}'
CHAIN = [node("n0"), *(node(f"n{place}", f"n{place - 1}") for place in range(1, 12))]


class Stuck(MemorySessionStore):
    """Writes when it is let; `broken` says that it cannot instead."""

    def __init__(self, real: MemorySessionStore) -> None:
        super().__init__(real._leases)
        self._kept = real._kept
        self.let, self.broken = asyncio.Event(), False
        self.writes: list[list[str]] = []

    async def append(self, lease: Lease, entries: Sequence[Entry], **given: Any) -> int:
        await self.let.wait()
        if self.broken:
            raise Unavailable("the database does not answer", dependency="postgres")
        self.writes.append([entry.kind for entry in entries])
        return await super().append(lease, entries, **given)


class Whole(ScriptedInference):
    """Every answer comes at once, so that none of it has to be shown."""

    async def _read(self, generation_id: str, after: int) -> AsyncGenerator[Any, None]:
        for event in self._generations[generation_id].events[after:]:
            yield event


@asynccontextmanager
async def stuck(world: World) -> AsyncIterator[tuple[Stuck, asyncio.Task[None]]]:
    """A graph driven as far as it goes without a write."""
    store = Stuck(world.store)
    driving = asyncio.create_task(world.graph_driver(store=store).drive(await world.claim(), asyncio.Event()))
    for _ in range(500):
        await asyncio.sleep(0)
    try:
        async with asyncio.timeout(10):
            yield store, driving
    finally:
        store.let.set()
        driving.cancel()
        await asyncio.gather(driving, return_exceptions=True)


def asked(world: World) -> list[str]:
    return [utterance.lines[-1].text.rpartition("Do ")[2] for utterance in world.inference.started]


async def test_tries_begin_while_the_log_is_written_but_only_so_far_ahead() -> None:
    world = World(inference=Whole())
    kept = await world.execute(*CHAIN)
    async with stuck(world) as (store, driving):
        assert asked(world) == [f"n{place}." for place in range(_AHEAD + 1)], "one being written, so many waiting"
        store.let.set()
        await driving
    assert len(store.writes) < len(CHAIN), "what waited was written together"
    assert len(world.inference.started) == len(CHAIN)
    assert (await world.find(kept.session.id)).status == session_pb2.SESSION_STATUS_COMPLETED


async def test_who_drives_next_comes_to_the_keys_of_what_was_never_written() -> None:
    world = World(inference=Whole())
    kept = await world.execute(*CHAIN)
    async with stuck(world) as (store, driving):
        begun = [utterance.generation_id for utterance in world.inference.started]
        store.broken = True
        store.let.set()
        await driving_ends(driving)
    assert await world.kinds(kept.session.id) == ["session_started"]
    world.clock.advance(TTL * 2)
    await world.drive("two")
    assert len(begun) > 1
    assert [utterance.generation_id for utterance in world.inference.started][: len(begun)] == begun
    assert len(world.inference.started) == len(CHAIN), "nothing was paid twice"
    reserved = [one.task_started.turn_id for one in await world.log(kept.session.id) if one.HasField("task_started")]
    assert reserved[: len(begun)] == begun


async def test_what_cannot_be_written_ends_the_drive_though_a_try_is_at_work() -> None:
    world = World()
    world.inference.held_at = 2
    await world.execute(node("a"))
    async with stuck(world) as (store, driving):
        assert asked(world) == ["a."]
        store.broken = True
        store.let.set()
        await driving_ends(driving)


async def driving_ends(driving: asyncio.Task[None]) -> None:
    with pytest.raises(Unavailable):
        await driving


async def test_a_tool_is_called_when_its_key_is_in_the_log_and_not_before() -> None:
    world = World()
    await world.execute(node("a", agent="", tool="book"))
    async with stuck(world) as (store, driving):
        assert not world.tools.done
        store.let.set()
        await driving
    assert world.tools.done


async def test_another_attempt_begins_when_it_is_in_the_log() -> None:
    world = World(inference=Whole())
    world.inference.failures = [Unavailable("the provider is away")]
    await world.execute(node("a"))
    async with stuck(world) as (store, driving):
        assert len(world.inference.started) == 1
        store.let.set()
        await driving
    assert [entry for write in store.writes for entry in write].count("task_started") == 2


async def test_what_a_planner_wants_begins_when_it_is_in_the_log() -> None:
    world = World(inference=ScriptedInference(reply=lambda utterance: PLAN))
    planner = node("plan", kind=task_graph_pb2.TASK_KIND_PLANNER)
    await world.execute(planner, node("first"))
    async with stuck(world) as (store, driving):
        assert not world.inference.started, "what a planner reads is not in the log: whom it may name may change"
        store.let.set()
        await driving
    assert len(world.inference.started) == 3


async def test_one_that_drives_step_by_step_has_every_step_in_the_log() -> None:
    world = World()
    kept = await world.execute(*CHAIN)
    drive = await world.graph_driver().open(await world.claim(), asyncio.Event())
    assert isinstance(drive, _Drive)
    await drive.go()
    assert (await world.kinds(kept.session.id))[-1] == "task_started"
    await drive.stop()
