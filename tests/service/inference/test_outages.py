"""An outage of a provider, told to a served policy, and what its rules do about it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import grpc
from redis.asyncio import Redis

from services.inference.breakers import BreakerState, LocalBreakers
from services.inference.errors import StreamBroken
from services.inference.peers_grpc import GrpcPolicy
from shared.clock import FakeClock
from shared.risks import PROVIDER_OUTAGE, reporting
from tests.service.inference.calls import Code, generated, refusal, said
from tests.support.identity import Keys
from tests.support.inference import Event, Replica, kinds, replica, request, text_of
from tests.support.media import World, world
from tests.support.policy import PolicyParts, served
from tests.support.risks import enforced, heard, mitigated

__all__ = ("world",)
COOLDOWN = timedelta(seconds=11)


@dataclass
class Mesh:
    """Inference that reports to a policy it also obeys, by one clock."""

    inference: Replica
    policy: grpc.aio.Channel
    clock: FakeClock
    keys: Keys

    async def asked(self, number: int, model: str = "scripted") -> list[Event]:
        wanted = request(generation_id=f"gen_{number}", session_id="ses_1", agent="Athena@1", model=model)
        return await generated(self.inference, self.keys, wanted)


@asynccontextmanager
async def governed(keys: Keys, redis: Redis) -> AsyncIterator[Mesh]:
    clock = FakeClock(datetime.now(UTC))
    async with (
        served(PolicyParts(keys, clock=clock)) as policy,
        reporting(policy, keys.signer, "inference", clock) as risks,
        replica(
            keys, redis, breakers=LocalBreakers(clock), measured=GrpcPolicy(policy, keys.signer), tell=risks.tell
        ) as running,
    ):
        running.model.steps = ["Half ", StreamBroken("gone")]
        running.others["backup"].steps = ["Whole."]
        yield Mesh(running, policy, clock, keys)


async def until_open(mesh: Mesh) -> None:
    for number in range(2):  # each asks three times
        assert kinds(await mesh.asked(number))[-1] == "failed"


async def test_an_outage_is_one_event_however_many_calls_it_fails(keys: Keys, redis: Redis) -> None:
    async with governed(keys, redis) as mesh:
        await until_open(mesh)
        for number in range(5, 9):
            assert said(await refusal(mesh.asked(number))) == (Code.UNAVAILABLE, "PROVIDER_UNAVAILABLE")
        assert await heard(mesh.policy, keys, PROVIDER_OUTAGE) == 1
        assert await heard(mesh.policy, keys, PROVIDER_OUTAGE, at_least=0, tenant="globex") == 0
        assert await enforced(mesh.policy, keys) == []


async def test_an_outage_that_lasts_alerts_and_has_calls_fall_back(keys: Keys, redis: Redis) -> None:
    async with governed(keys, redis) as mesh:
        await until_open(mesh)
        for number in (10, 11):
            mesh.clock.advance(COOLDOWN)
            assert kinds(await mesh.asked(number))[-1] == "failed"
            await heard(mesh.policy, keys, PROVIDER_OUTAGE, at_least=number - 8)
        assert await enforced(mesh.policy, keys) == [
            ("provider_outage_alerts", "acme"), ("provider_outage_falls_back", "acme"),
        ]  # fmt: skip
        events = await fallen_back(mesh)
        assert text_of(events) == "Whole."
        assert "provider_outage_falls_back" in events[1].downgraded.reason
        ((text, owner),) = await mitigated(mesh.policy, keys, PROVIDER_OUTAGE)
        assert ("provider_outage_falls_back" in text, "downgrade" in text, owner) == (True, True, "policy")
        elsewhere = await mesh.asked(100, "continuing")  # a provider that is well
        assert "downgraded" not in kinds(elsewhere)


async def fallen_back(mesh: Mesh) -> list[Event]:
    """The first call for the provider that is out which was not made of it, once the order has come round."""
    async with asyncio.timeout(5):
        for number in range(20, 100):
            mesh.clock.advance(COOLDOWN)
            events = await mesh.asked(number)
            if "downgraded" in kinds(events):
                return events
            await asyncio.sleep(0.2)
    raise AssertionError("no call fell back")


async def test_a_chain_that_fails_to_its_end_is_told_before_any_breaker_opens(keys: Keys, redis: Redis) -> None:
    async with governed(keys, redis) as mesh:
        assert kinds(await mesh.asked(1))[-1] == "failed"
        assert await mesh.inference.engine.breakers.state("scripted") is BreakerState.CLOSED
        assert await heard(mesh.policy, keys, PROVIDER_OUTAGE) == 1


async def test_makers_of_media_are_told_of_too(world: World) -> None:
    for _ in range(5):
        await world.studio.breakers.failed("openai")
    assert (await refusal(world.images(prompt="A door."))).reason_name == "PROVIDER_UNAVAILABLE"
    assert [(one.risk, one.detail["provider"]) for one in world.told] == [(PROVIDER_OUTAGE, "openai")]
