"""What a graph's driver writes together, and what it never waits with."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from agentnet.orchestrator.v1 import session_pb2
from services.orchestrator.drivers import graph
from services.orchestrator.errors import LeaseLost
from services.orchestrator.peers import Utterance
from services.orchestrator.store import Entry, Lease
from services.orchestrator.store_memory import MemorySessionStore
from shared.identity import Principal
from tests.support.graphs import node
from tests.support.orchestrator import TENANT, ScriptedInference, World


class Counting(MemorySessionStore):
    """Knows what came together."""

    def __init__(self, real: MemorySessionStore) -> None:
        super().__init__(real._leases)
        self._kept = real._kept
        self.writes: list[Counter[str]] = []

    async def append(self, lease: Lease, entries: Sequence[Entry], **given: Any) -> int:
        self.writes.append(Counter(entry.kind for entry in entries))
        return await super().append(lease, entries, **given)


class Paced(ScriptedInference):
    """Each agent's answer comes when it is let go."""

    gates: dict[str, asyncio.Event]

    async def generate(self, caller: Principal, utterance: Utterance) -> AsyncGenerator[Any, None]:
        await self.gates[utterance.lines[-1].text.split()[-1].rstrip(".")].wait()
        async for event in super().generate(caller, utterance):
            yield event


def world_of(*names: str) -> tuple[World, dict[str, asyncio.Event]]:
    inference = Paced()
    inference.gates = {name: asyncio.Event() for name in names}
    return World(inference=inference), inference.gates


async def test_ends_that_let_nothing_begin_are_written_with_the_one_that_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "_TOGETHER_SECONDS", 30)
    world, gates = world_of("a", "b", "c", "join")
    kept = await world.execute(node("a"), node("b"), node("c"), node("join", "a", "b", "c"))
    store = Counting(world.store)
    driving = asyncio.create_task(world.graph_driver(store=store).drive(await world.claim(), asyncio.Event()))
    for name in ("a", "b", "c", "join"):
        for _ in range(50):
            await asyncio.sleep(0)
        gates[name].set()
    async with asyncio.timeout(10):
        await driving
    assert [(write["task_finished"], write["task_started"]) for write in store.writes] == [(0, 3), (3, 1), (1, 0)]
    assert (await world.find(kept.session.id)).status == session_pb2.SESSION_STATUS_COMPLETED


async def test_independent_nodes_run_at_the_same_time_five_of_them_unless_told_otherwise() -> None:
    names = [f"n{place}" for place in range(7)]
    world, gates = world_of(*names)
    kept = await world.execute(*(node(name) for name in names))
    driving = asyncio.create_task(world.graph_driver().drive(await world.claim(), asyncio.Event()))
    for _ in range(200):
        await asyncio.sleep(0)
    assert (await world.graphs.shown(TENANT, kept.graph.id)).progress.running == 5
    for gate in gates.values():
        gate.set()
    async with asyncio.timeout(10):
        await driving
    assert len(world.inference.started) == 7


async def test_what_lets_another_node_begin_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "_TOGETHER_SECONDS", 30)
    world, gates = world_of("slow", "a", "b", "c")
    kept = await world.execute(node("slow"), node("a"), node("b", "a"), node("c", "b"))
    driving = asyncio.create_task(world.graph_driver().drive(await world.claim(), asyncio.Event()))
    for name in "abc":
        gates[name].set()
    async with asyncio.timeout(10):
        while len(world.inference.started) < 3:
            await asyncio.sleep(0)
        gates["slow"].set()
        await driving
    assert (await world.find(kept.session.id)).status == session_pb2.SESSION_STATUS_COMPLETED


async def test_an_end_is_in_the_log_soon_though_others_go_on() -> None:
    world, gates = world_of("slow", "quick", "end")
    kept = await world.execute(node("slow"), node("quick"), node("end", "slow", "quick"))
    driving = asyncio.create_task(world.graph_driver().drive(await world.claim(), asyncio.Event()))
    gates["quick"].set()
    async with asyncio.timeout(10):
        while "task_finished" not in await world.kinds(kept.session.id):
            await asyncio.sleep(0.001)
        assert (await world.graphs.shown(TENANT, kept.graph.id)).progress.running == 1
        gates["slow"].set()
        gates["end"].set()
        await driving


async def test_a_node_spends_as_a_sub_agent_of_its_session() -> None:
    world = World()
    await world.execute(node("a"), node("b", "a", agent="Apollo"))
    await world.graph_driver().drive(await world.claim(), asyncio.Event())
    assert [one.sub_agent for one in world.inference.started] == ["Athena@1.0.0/a", "Apollo@1.0.0/b"]


async def test_who_lost_the_lease_drives_no_further() -> None:
    world = World()
    kept = await world.execute(node("a"), node("b", "a"))
    lease = await world.claim()
    world.inference.held_at = 4
    with world.tail.woken(TENANT, kept.session.id):
        driving = asyncio.create_task(world.graph_driver().drive(lease, asyncio.Event()))
        while not world.inference.started:
            await asyncio.sleep(0)
        await world.tail.take_over(replace(lease, fence=lease.fence + 1), 0)
        world.inference.release()
        with pytest.raises(LeaseLost):
            await driving
    assert "task_finished" not in await world.kinds(kept.session.id)
