"""Settlements that survive the death of cost and of inference."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from services.inference.peers import Ending, Payer, Settlement
from services.inference.providers.contract import Usage
from services.inference.settling import Counted, KeptCost
from shared.clock import SystemClock
from shared.errors import NotFound, Unavailable
from shared.identity import CredentialKind, Grant, Principal, Purse
from shared.outbox import Outbox
from shared.tasks import stopped
from tests.support.inference import ScriptedCost

GRANT = Grant(tools=frozenset({"search"}), delegators=("eve",)).given(Purse("prs_1", 20))
ADA = Principal("acme", "ada", frozenset({"tenant_user"}), CredentialKind.TOKEN, grant=GRANT)
PAYER = Payer(ADA, "gen_1", "openai", "gpt-4o", "ses_1", "Athena@1.0.0", turn_id="gen_1")
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SETTLED = Settlement(PAYER, Usage(12, 34, cached_input_tokens=5, reasoning_tokens=6), Ending.COMPLETED, NOON)


async def _as_noted(settlement: Settlement) -> Settlement:
    return settlement


@contextmanager
def process(
    folder: Path, cost: ScriptedCost, *, patience: timedelta = timedelta(hours=1), counted: Counted = _as_noted
) -> Iterator[KeptCost]:
    """A process that has the folder's files open; it may end at any moment, the files stay."""
    with ExitStack() as stack:
        left = stack.enter_context(Outbox(folder / "left", clock=SystemClock(), patience=patience))
        begun = stack.enter_context(Outbox(folder / "begun", clock=SystemClock(), patience=timedelta(days=3650)))
        yield KeptCost(cost, left=left, begun=begun, counted=counted)


async def delivered(kept: KeptCost, cost: ScriptedCost, *, count: int) -> None:
    running = asyncio.create_task(kept.run())
    async with asyncio.timeout(5):
        while len(cost.settlements) < count:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    await stopped(running)


async def test_what_cost_was_away_for_is_settled_when_it_is_back(tmp_path: Path) -> None:
    cost = ScriptedCost(settle_failures=[Unavailable("away"), Unavailable("away")])
    with process(tmp_path, cost, patience=timedelta(milliseconds=10)) as kept:
        with pytest.raises(Unavailable):
            await kept.settle(SETTLED)
        await delivered(kept, cost, count=1)
    assert cost.settlements == [SETTLED]


async def test_what_this_process_left_is_settled_by_the_next(tmp_path: Path) -> None:
    with process(tmp_path, ScriptedCost(settle_failures=[Unavailable("away")])) as dying:
        with pytest.raises(Unavailable):
            await dying.settle(SETTLED)
    cost = ScriptedCost()
    with process(tmp_path, cost) as kept:
        await delivered(kept, cost, count=1)
    assert cost.settlements == [SETTLED]
    with process(tmp_path, cost) as nothing_left:
        running = asyncio.create_task(nothing_left.run())
        await asyncio.sleep(0.05)
        await stopped(running)
    assert cost.settlements == [SETTLED]


async def test_an_attempt_that_its_process_died_under_is_settled_as_cut_with_what_it_had_spent(tmp_path: Path) -> None:
    with process(tmp_path, ScriptedCost()) as dying:
        await dying.reserve(PAYER, input_tokens=20, output_tokens=256)
        await dying.extend(PAYER, output_tokens=512, spent=Usage(20, 200, estimated=True))
        await dying.reserve(replace(PAYER, generation_id="gen_2"), input_tokens=7, output_tokens=256)
    cost = ScriptedCost()
    with process(tmp_path, cost) as kept:
        await delivered(kept, cost, count=2)
    first, second = cost.settlements
    assert (first.payer, first.usage, first.outcome) == (PAYER, Usage(20, 200, estimated=True), Ending.CUT)
    assert (second.payer.generation_id, second.usage) == ("gen_2", Usage(7, 0, estimated=True))


async def test_what_was_shown_of_an_attempt_that_its_process_died_under_is_settled(tmp_path: Path) -> None:
    with process(tmp_path, ScriptedCost()) as dying:
        await dying.reserve(PAYER, input_tokens=20, output_tokens=256)

    async def shown(settlement: Settlement) -> Settlement:
        return replace(settlement, usage=replace(settlement.usage, output_tokens=150))

    cost = ScriptedCost()
    with process(tmp_path, cost, counted=shown) as kept:
        await delivered(kept, cost, count=1)
    assert cost.settlements == [Settlement(PAYER, Usage(20, 150, estimated=True), Ending.CUT)]


async def test_an_attempt_that_runs_is_not_settled_by_who_runs_it(tmp_path: Path) -> None:
    cost = ScriptedCost()
    with process(tmp_path, cost, patience=timedelta()) as kept:
        running = asyncio.create_task(kept.run())
        await kept.reserve(PAYER, input_tokens=20, output_tokens=256)
        await asyncio.sleep(0.2)
        assert cost.settlements == []
        await kept.settle(SETTLED)
        await asyncio.sleep(0.2)
        await stopped(running)
    assert cost.settlements == [SETTLED]


async def test_a_settlement_that_is_refused_is_not_kept(tmp_path: Path) -> None:
    with process(tmp_path, ScriptedCost(settle_failures=[NotFound("no price")])) as kept:
        with pytest.raises(NotFound):
            await kept.settle(SETTLED)
    assert (tmp_path / "left").read_bytes() == b""


async def test_asking_again_keeps_one(tmp_path: Path) -> None:
    cost = ScriptedCost(settle_failures=[Unavailable("away")] * 3)
    with process(tmp_path, cost) as kept:
        for _ in range(3):
            with pytest.raises(Unavailable):
                await kept.settle(SETTLED)
        size = (tmp_path / "left").stat().st_size
        await kept.settle(SETTLED)
    assert size < 600
    assert (tmp_path / "left").read_bytes() == b""
