"""A spike of tokens, told to a served policy by session, and what its rules do about it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

import grpc

from services.cost.prices import Usage
from services.cost.store_memory import MemoryCostStore
from services.cost.velocity import STEP
from shared.clock import FakeClock
from shared.risks import TOKEN_COST_SPIKE, reporting
from tests.support.cost import Replica, call, cost_replica
from tests.support.identity import Keys
from tests.support.policy import PolicyParts, served
from tests.support.risks import enforced, heard, mitigated

DOWNGRADES = "token_spike_downgrades"


@dataclass
class Mesh:
    cost: Replica
    policy: grpc.aio.Channel
    clock: FakeClock
    keys: Keys

    async def spent(self, tokens: int, session: str) -> None:
        path = {"agent": "Athena@1", "session_id": session}
        await self.cost.ledger.settle("acme", call(**path), Usage(0, tokens), ended_at=self.clock.now())

    async def watched(self) -> None:
        """What the watch does every few seconds while somebody spends."""
        self.cost.watch.seen("acme")
        await self.cost.watch.round()

    async def heard(self, at_least: int = 1) -> int:
        return await heard(self.policy, self.keys, TOKEN_COST_SPIKE, at_least=at_least)


@asynccontextmanager
async def reported(keys: Keys) -> AsyncIterator[Mesh]:
    clock = FakeClock()
    async with (
        served(PolicyParts(keys, clock=clock)) as policy,
        reporting(policy, keys.signer, "cost", clock, quiet=STEP) as risks,
    ):
        yield Mesh(cost_replica(MemoryCostStore(), clock, tell=risks.tell), policy, clock, keys)


async def test_the_session_that_spikes_is_downgraded_and_no_other(keys: Keys) -> None:
    async with reported(keys) as mesh:
        await mesh.spent(250_000, "ses_hungry")
        await mesh.spent(40_000, "ses_modest")
        await mesh.watched()
        assert await mesh.heard(2) == 2
        assert await enforced(mesh.policy, keys) == [(DOWNGRADES, "ses_hungry")]
        ((text, owner),) = await mitigated(mesh.policy, keys, TOKEN_COST_SPIKE)
        assert (text.startswith(f"rule {DOWNGRADES}: downgrade for the session ses_hungry"), owner) == (True, "policy")


async def test_what_a_session_took_counts_once_however_often_it_is_looked_at(keys: Keys) -> None:
    async with reported(keys) as mesh:
        for session in ("ses_1", "ses_2", "ses_3", "ses_4"):
            await mesh.spent(60_000, session)
        await mesh.watched()  # alerts of an agent and of the tenant
        mesh.clock.advance(timedelta(seconds=15))
        await mesh.spent(900_000, "ses_5")  # and now of the money as well
        await mesh.watched()
        assert await mesh.heard(5) == 5
        assert await enforced(mesh.policy, keys) == [(DOWNGRADES, "ses_5")]


async def test_what_no_alert_is_raised_about_is_no_spike(keys: Keys) -> None:
    async with reported(keys) as mesh:
        await mesh.spent(150_000, "ses_1")
        await mesh.watched()
        mesh.clock.advance(STEP)
        await mesh.spent(150_001, "ses_2")
        await mesh.watched()
        mesh.clock.advance(2 * STEP)
        await mesh.spent(900_000, "ses_3")
        await mesh.watched()
        assert await mesh.heard() == 1
        assert await enforced(mesh.policy, keys) == [(DOWNGRADES, "ses_3")]
