"""What services tell of risks: once in a while, in bounds, and only while it is news."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from shared.clock import FakeClock
from shared.errors import InvalidArgument, MeshError, Unavailable
from shared.risks import PROVIDER_OUTAGE, QUIET, Happened, RiskEvents
from shared.tasks import supervised


@dataclass
class Register:
    """Policy, which may be away or refuse."""

    failure: MeshError | None = None
    told: list[tuple[str, str]] = field(default_factory=list)
    asked: int = 0

    async def send(self, tenant: str, happened: Happened) -> None:
        self.asked += 1
        await asyncio.sleep(0)
        if self.failure:
            raise self.failure
        self.told.append((tenant, happened.agent))

    async def heard(self, count: int) -> list[tuple[str, str]]:
        async with asyncio.timeout(5):
            while len(self.told) < count:
                await asyncio.sleep(0.005)
        return self.told


@asynccontextmanager
async def running(register: Register, clock: FakeClock, *, waiting: int = 10) -> AsyncIterator[RiskEvents]:
    events = RiskEvents(register.send, clock, waiting=waiting)
    async with supervised("risks", events.run):
        yield events


def outage(agent: str = "Athena") -> Happened:
    return Happened(PROVIDER_OUTAGE, agent=agent)


async def test_what_repeats_itself_is_told_once_in_a_while_by_tenant_and_what_it_is_about() -> None:
    register, clock = Register(), FakeClock()
    async with running(register, clock) as events:
        for _ in range(3):
            for tenant, about in (("acme", "one"), ("acme", "two"), ("globex", "one")):
                events.tell(tenant, outage(about), about)
        assert await register.heard(3) == [("acme", "one"), ("acme", "two"), ("globex", "one")]
        clock.advance(QUIET)
        events.tell("acme", outage("again"), "one")
        assert (await register.heard(4))[-1] == ("acme", "again")


async def test_what_waits_while_policy_is_away_is_bounded_and_the_newest() -> None:
    register, clock = Register(Unavailable("away")), FakeClock()
    async with running(register, clock, waiting=3) as events:
        for number in range(8):
            events.tell("acme", outage(str(number)), str(number))
        await asyncio.sleep(0.05)
        assert (register.told, register.asked > 0) == ([], True)
        register.failure = None
        assert await register.heard(3) == [("acme", "5"), ("acme", "6"), ("acme", "7")]


async def test_what_is_no_news_any_more_is_not_told() -> None:
    register, clock = Register(Unavailable("away")), FakeClock()
    async with running(register, clock) as events:
        events.tell("acme", outage("old"), "old")
        await asyncio.sleep(0.02)
        clock.advance(timedelta(minutes=5))
        events.tell("acme", outage("new"), "new")
        register.failure = None
        assert await register.heard(1) == [("acme", "new")]


async def test_what_policy_refuses_holds_up_nothing() -> None:
    register, clock = Register(InvalidArgument("no such risk")), FakeClock()
    async with running(register, clock) as events:
        events.tell("acme", outage("refused"), "refused")
        await asyncio.sleep(0.02)
        register.failure = None
        events.tell("acme", outage("next"), "next")
        assert await register.heard(1) == [("acme", "next")]


async def test_what_waits_at_the_end_is_told_then() -> None:
    register, clock = Register(), FakeClock()
    events = RiskEvents(register.send, clock)
    events.tell("acme", outage("last"), "last")
    await events.flush()
    assert register.told == [("acme", "last")]
    register.failure = Unavailable("away")
    events.tell("acme", outage("lost"), "lost")
    await events.flush()
    register.failure = None
    await events.flush()
    assert register.told == [("acme", "last")]
