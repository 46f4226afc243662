"""The money of one attempt: ahead of the stream, never run out, settled once."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from services.inference.peers import Ending, Payer
from services.inference.providers.contract import ModelCall, Role, Sampling, Usage, said
from services.inference.tab import Tab
from shared.errors import NotFound, Unavailable
from shared.identity import Principal
from tests.support.inference import ScriptedCost

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
CALL = ModelCall("m", (said(Role.USER, "Hello?"),), Sampling(), 2000)
PAYER = Payer(Principal("acme", "ada", frozenset()), "gen_1", "p", "m", "", "")


@pytest.fixture
def cost() -> ScriptedCost:
    return ScriptedCost()


async def opened(cost: ScriptedCost) -> Tab:
    tab = Tab(cost, PAYER, CALL)
    await tab.open()
    return tab


async def test_the_lease_doubles_before_the_stream_reaches_it_up_to_the_most(cost: ScriptedCost) -> None:
    tab = await opened(cost)
    for counted in (1, 191, 192, 300, 384, 768, 1536, 1999):
        await tab.cover(counted)
    assert cost.extended == [512, 1024, 2000]


async def test_a_slow_stream_does_not_let_its_lease_run_out(
    cost: ScriptedCost, monkeypatch: pytest.MonkeyPatch
) -> None:
    tab, now = await opened(cost), asyncio.get_running_loop().time()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now + 31)
    await tab.cover(1)
    await tab.cover(2)
    assert cost.extended == [256]


async def test_cost_that_is_away_for_a_moment_is_asked_again(
    cost: ScriptedCost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.inference.tab._SETTLE_PAUSE", timedelta())
    cost.settle_failures = [Unavailable("away"), Unavailable("away")]
    assert await (await opened(cost)).settle(Usage(1, 2), Ending.COMPLETED, ended_at=NOON)
    assert len(cost.settled) == 1


async def test_a_settlement_that_is_refused_is_not_repeated(cost: ScriptedCost) -> None:
    cost.settle_failures = [NotFound("no price"), NotFound("no price")]
    assert await (await opened(cost)).settle(Usage(1, 2), Ending.COMPLETED, ended_at=NOON) is None
    assert len(cost.settle_failures) == 1
