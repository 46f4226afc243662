"""What is remembered of downgrades, and how soon another replica's orders are obeyed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from redis.asyncio import Redis

from services.inference.downgrades import Downgrade, Downgrades
from services.inference.errors import StreamBroken
from services.inference.peers import Ending, Measure, Notice
from services.inference.route import Model, Router
from shared.errors import MeshError
from shared.rpc.status import from_rpc
from shared.tasks import stopped
from tests.service.inference.calls import generated
from tests.support.identity import Keys
from tests.support.inference import Replica, kinds, request

CHEAPER = Downgrade("backup", "80 % of the budget is spent")
LONG = timedelta(minutes=1)


@asynccontextmanager
async def watching(redis: Redis) -> AsyncIterator[Downgrades]:
    downgrades = Downgrades(redis)
    await downgrades.look()
    task = asyncio.create_task(downgrades.watch())
    try:
        yield downgrades
    finally:
        await stopped(task)


async def commands(redis: Redis) -> int:
    return int((await redis.info("stats"))["total_commands_processed"])


async def test_what_is_known_costs_no_round_trip(redis: Redis) -> None:
    downgrades = Downgrades(redis)
    await downgrades.look()
    assert await downgrades.of("acme", "dear") is None
    before = await commands(redis)
    for _ in range(10):
        assert await downgrades.of("acme", "dear") is None
    assert await commands(redis) - before == 1  # the count itself


async def test_an_order_given_at_another_replica_is_obeyed_within_half_a_second(redis: Redis) -> None:
    async with watching(redis) as one, watching(redis) as other:
        assert await other.of("acme", "dear") is None
        await one.order("acme", "dear", CHEAPER, lasts=LONG)
        assert await one.of("acme", "dear") == CHEAPER
        async with asyncio.timeout(0.5):
            while await other.of("acme", "dear") != CHEAPER:
                await asyncio.sleep(0.01)
        await one.end("acme", "dear")
        assert await one.of("acme", "dear") is None
        async with asyncio.timeout(0.5):
            while await other.of("acme", "dear"):
                await asyncio.sleep(0.01)


async def test_an_order_that_is_known_ends_at_its_time(redis: Redis) -> None:
    downgrades = Downgrades(redis)
    await downgrades.look()
    await downgrades.order("acme", "dear", CHEAPER, lasts=timedelta(milliseconds=30))
    assert await downgrades.of("acme", "dear") == CHEAPER
    await asyncio.sleep(0.04)
    assert await downgrades.of("acme", "dear") is None


async def test_nothing_is_remembered_where_nobody_looks(redis: Redis) -> None:
    one, other = Downgrades(redis), Downgrades(redis)
    assert await one.of("acme", "dear") is None
    await other.order("acme", "dear", CHEAPER, lasts=LONG)
    assert await one.of("acme", "dear") == CHEAPER


async def test_a_cheaper_model_that_cost_asks_for_is_taken_and_paid_and_said(served: Replica, keys: Keys) -> None:
    served.cost.notices = [Notice("the soft limit of agent:Athena is passed", cheaper=True)]
    served.others["backup"].steps = ["Cheap."]
    events = await generated(served, keys, request(agent="Athena"))
    assert kinds(events) == ["started", "downgraded", "text", "finished"]
    downgraded = events[1].downgraded
    assert (downgraded.from_model, downgraded.to_model) == ("scripted", "backup")
    assert downgraded.reason == "the soft limit of agent:Athena is passed"
    assert served.model.calls == []
    (settlement,) = served.cost.settlements
    assert (settlement.payer.model, settlement.payer.turn_id, settlement.payer.attempt) == ("backup", "gen_1", 0)
    assert settlement.outcome is Ending.COMPLETED


async def test_who_insists_on_a_model_keeps_it_whatever_cost_asks(served: Replica, keys: Keys) -> None:
    served.cost.notices = [Notice("the soft limit is passed", cheaper=True)]
    served.model.steps = ["Dear."]
    assert kinds(await generated(served, keys, request(no_fallback=True))) == ["started", "text", "finished"]
    (settlement,) = served.cost.settlements
    assert settlement.payer.model == "scripted"


async def test_each_attempt_is_settled_with_its_turn_its_number_and_how_it_ended(served: Replica, keys: Keys) -> None:
    served.model.steps = ["One ", StreamBroken("broken", provider="scripted")]
    served.others["backup"].steps = ["Two."]
    await generated(served, keys, request(model="safe"))
    found = [(one.payer.turn_id, one.payer.attempt, one.outcome) for one in served.cost.settlements]
    assert found == [("gen_1", 0, Ending.FAILED_OVER), ("gen_1", 1, Ending.COMPLETED)]


CHEAP = "the soft limit of agent:Athena is passed"


async def away(served: Replica, *providers: str) -> None:
    """Opens the breakers of these providers."""
    for provider in providers:
        for _ in range(5):
            await served.engine.breakers.failed(provider)


async def refused(served: Replica, keys: Keys, **changes: Any) -> MeshError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await generated(served, keys, request(agent="Athena", **changes))
    return from_rpc(raised.value)


async def test_a_cheaper_model_that_is_away_is_not_replaced_by_a_dearer_one(served: Replica, keys: Keys) -> None:
    served.cost.notices = [Notice(CHEAP, cheaper=True)]
    await away(served, "backup")

    for changes in ({}, {"fallback_models": ["scripted"]}):
        error = await refused(served, keys, **changes)
        assert (error.reason_name, error.code) == ("PROVIDER_UNAVAILABLE", grpc.StatusCode.UNAVAILABLE)
        assert error.message.startswith(f"{CHEAP}, so calls for scripted go to a cheaper model")
        assert error.facts["model"] == "scripted"
        assert error.retry_after == timedelta(seconds=10)
    assert served.model.calls == []


async def test_the_money_of_a_call_that_no_cheaper_model_answers_goes_back(served: Replica, keys: Keys) -> None:
    served.cost.notices = [Notice(CHEAP, cheaper=True)]
    await away(served, "backup")
    await refused(served, keys)

    (settlement,) = served.cost.settlements
    assert (settlement.usage.input_tokens, settlement.usage.output_tokens, settlement.outcome) == (0, 0, Ending.CUT)


async def test_the_next_cheaper_model_is_taken_when_the_first_is_away(served: Replica, keys: Keys) -> None:
    served.cost.notices = [Notice(CHEAP, cheaper=True)]
    served.others["roomy"].steps = ["Cheapest."]
    models = [Model("scripted", "scripted", cheaper="backup"), Model("backup", "backup", cheaper="roomy")]
    models.append(Model("roomy", "roomy", fallback=("backup", "scripted")))
    providers = {"scripted": served.model, **served.others}
    served.engine.admission.router = Router(models, providers, default="scripted")
    await away(served, "backup")

    events = await generated(served, keys, request(agent="Athena"))
    assert (events[1].downgraded.from_model, events[1].downgraded.to_model) == ("scripted", "roomy")
    assert served.cost.settlements[0].payer.model == "roomy"


async def test_a_model_ordered_to_a_cheaper_one_that_is_away_is_refused(served: Replica, keys: Keys) -> None:
    await served.engine.admission.downgrades.order("acme", "scripted", CHEAPER, lasts=LONG)
    await away(served, "backup")
    error = await refused(served, keys, fallback_models=["scripted"])
    assert (error.reason_name, error.retry_after) == ("PROVIDER_UNAVAILABLE", timedelta(seconds=10))
    assert served.model.calls == []


async def test_policy_moves_calls_off_a_provider_whose_breaker_is_open(served: Replica, keys: Keys) -> None:
    until = datetime(3000, 1, 1, tzinfo=UTC)
    served.policy.orders = [Measure("provider_outage_falls_back", "downgrade", "session", "ses_1", until)]
    served.others["backup"].steps = ["Cheap."]
    await away(served, "scripted")
    events = await generated(served, keys, request(session_id="ses_1"))
    assert kinds(events) == ["started", "downgraded", "text", "finished"]
    assert events[1].downgraded.to_model == "backup"
