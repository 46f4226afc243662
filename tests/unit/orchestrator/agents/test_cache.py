"""What is known of agents is asked for once, until somebody changes it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta

from agentnet.orchestrator.v1 import agent_pb2
from services.orchestrator.agents import ACTIVE, ARCHIVED, Agents
from services.orchestrator.agents.cache import Versions
from services.orchestrator.store_memory import MemoryAgentStore
from shared.clock import FakeClock
from shared.ids import SequentialIds

ZEUS = agent_pb2.Agent(name="Zeus", version="1.0.0", system_prompt="You are Zeus.", state=ACTIVE)


class Counting:
    """A store that counts, and waits where told."""

    def __init__(self, store: MemoryAgentStore) -> None:
        self.store, self.asked, self.held = store, 0, asyncio.Event()
        self.held.set()

    async def versions(self, tenant: str, name: str) -> Sequence[agent_pb2.Agent]:
        self.asked += 1
        found = await self.store.versions(tenant, name)
        await self.held.wait()
        return found


def replica(store: MemoryAgentStore, clock: FakeClock) -> tuple[Agents, Counting]:
    source = Counting(store)
    versions = Versions(source, clock)
    store.hear.append(versions.forget)
    return Agents(store, [], clock=clock, ids=SequentialIds(), versions=versions), source


async def test_an_agent_is_looked_up_once() -> None:
    store, clock = MemoryAgentStore(), FakeClock()
    agents, source = replica(store, clock)
    await agents.create("acme", ZEUS)
    for _ in range(5):
        assert (await agents.find("acme", "Zeus")).version == "1.0.0"
    assert source.asked == 1
    clock.advance(timedelta(seconds=31))
    await agents.find("acme", "Zeus")
    assert source.asked == 2


async def test_another_replica_sees_a_change_at_once() -> None:
    store, clock = MemoryAgentStore(), FakeClock()
    (one, _), (other, _) = replica(store, clock), replica(store, clock)
    await one.create("acme", ZEUS)
    assert (await other.find("acme", "Zeus")).state == ACTIVE
    await one.set_state("acme", "Zeus", "1.0.0", ARCHIVED)
    assert (await other.find("acme", "Zeus")).state == ARCHIVED


async def test_what_changed_during_a_look_up_is_not_kept() -> None:
    store, clock = MemoryAgentStore(), FakeClock()
    agents, source = replica(store, clock)
    await agents.create("acme", ZEUS)
    source.held.clear()
    looking = asyncio.create_task(agents.find("acme", "Zeus"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await agents.set_state("acme", "Zeus", "1.0.0", ARCHIVED)
    source.held.set()
    await looking
    assert (await agents.find("acme", "Zeus")).state == ARCHIVED
