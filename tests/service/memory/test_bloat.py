"""A tenant that keeps too much, told to a served policy, and what its rules do about it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc

from shared.clock import FakeClock
from shared.risks import MEMORY_BLOAT, reporting
from tests.service.memory.calls import refused, remember, remember_many
from tests.service.memory.conftest import Served, serve
from tests.support.identity import Keys, make_keys
from tests.support.policy import PolicyParts, served
from tests.support.risks import enforced, heard, mitigated

LATER = timedelta(seconds=11)
MEMORIES = 20


@dataclass
class Mesh:
    memory: Served
    policy: grpc.aio.Channel
    clock: FakeClock
    keys: Keys

    async def full_to(self, memories: int) -> None:
        await remember_many(self.memory, [{"content": str(number)} for number in range(memories)])

    async def remembered(self, content: str) -> Any:
        return await remember(self.memory, content, agent="Athena", session_id="ses_1")

    async def heard(self, at_least: int) -> int:
        return await heard(self.policy, self.keys, MEMORY_BLOAT, at_least=at_least)


@asynccontextmanager
async def reported(folder: Path) -> AsyncIterator[Mesh]:
    keys, clock = make_keys(folder, "policy"), FakeClock()
    async with (
        served(PolicyParts(keys, clock=clock)) as policy,
        reporting(policy, keys.signer, "memory", clock) as risks,
        serve(keys, {"tenant_memories": MEMORIES}, tell=risks.tell) as memory,
    ):
        yield Mesh(memory, policy, clock, keys)


async def test_an_agent_that_goes_on_storing_near_the_limit_is_throttled(tmp_path: Path) -> None:
    async with reported(tmp_path) as mesh:
        await mesh.full_to(18)
        await mesh.remembered("at nine tenths, which is not beyond")
        assert await mesh.heard(0) == 0
        await mesh.remembered("half of the last tenth")
        await mesh.heard(1)
        assert await enforced(mesh.policy, mesh.keys) == []
        mesh.clock.advance(LATER)
        assert await refused(mesh.remembered("too much")) == ("RESOURCE_EXHAUSTED", "MEMORY_FULL", None)
        await mesh.heard(2)
        assert await enforced(mesh.policy, mesh.keys) == [("memory_bloat_throttles", "Athena")]
        ((text, owner),) = await mitigated(mesh.policy, mesh.keys, MEMORY_BLOAT)
        assert (text.startswith("rule memory_bloat_throttles: throttle for the agent Athena"), owner) == (
            True,
            "policy",
        )


async def test_what_is_refused_over_and_over_is_one_event_in_a_while(tmp_path: Path) -> None:
    async with reported(tmp_path) as mesh:
        await mesh.full_to(18)
        await mesh.remembered("19")
        await mesh.remembered("20")
        for number in range(5):
            await refused(mesh.remembered(f"too much {number}"))
        assert await mesh.heard(1) == 1
        mesh.clock.advance(LATER)
        await refused(mesh.remembered("still too much"))
        assert await mesh.heard(2) == 2
