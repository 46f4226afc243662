"""What a replica that died had said is found in its live tail and settled."""

from __future__ import annotations

from datetime import timedelta

import pytest
from redis.asyncio import Redis

from services.inference import events
from services.inference.counting import TokenCounter
from services.inference.errors import StreamBroken
from services.inference.generation import Generation
from services.inference.peers import Ending, Payer, Settlement
from services.inference.providers.contract import ToolCall, Usage
from services.inference.providers.synthetic import SyntheticProvider
from services.inference.remains import Remains
from services.inference.route import Model, Router, Target
from services.inference.tail import GenerationTail
from services.inference.tokenizers import Tokenizers, known_tokenizers
from shared.clock import SystemClock
from shared.identity import Principal

PAYER = Payer(Principal("acme", "ada", frozenset()), "gen_1-try2", "p", "exact", "", "", turn_id="gen_1")
NOTED = Settlement(PAYER, Usage(7, 3, estimated=True), Ending.CUT)
EXACT = known_tokenizers({}).of("gpt-4o")
SAID = "Packed into one piece, as some providers send it."


@pytest.fixture
def remains(redis: Redis) -> Remains:
    tail = GenerationTail(redis, ttl=timedelta(minutes=1), clock=SystemClock())
    provider = SyntheticProvider(timedelta())
    router = Router([Model("exact", "p"), Model("other", "p")], {"p": provider}, default="exact")
    return Remains(tail, router, TokenCounter(Tokenizers({"exact": lambda: EXACT})))


async def left_by_the_dead(remains: Remains, *told: events.Event) -> None:
    generation = Generation("acme", "gen_1", grace=timedelta(), clock=SystemClock(), noted=remains.tail.note)
    for event in told:
        generation.append(event)
    await remains.tail.flush()


async def test_what_the_last_attempt_had_said_is_counted_by_the_models_tokenizer(remains: Remains) -> None:
    target = Target(remains.router.resolve("exact"), SyntheticProvider(timedelta()))
    broken = StreamBroken("cut")
    await left_by_the_dead(
        remains,
        events.text("An attempt before, which is settled.", token_count=7),
        events.failover(target, target, restarted=True, at=0, failure=broken),
        events.reasoning("Hm. ", token_count=1),
        events.text(SAID, token_count=1),
        events.tool_call(0, ToolCall("call_1", "look_up", '{"city": "Ulm"}')),
    )
    said = EXACT.tokenizer.count(f'Hm. {SAID}look_up{{"city": "Ulm"}}')
    assert (await remains.counted(NOTED)).usage == Usage(7, said, estimated=True)


async def test_never_less_than_noted_and_as_noted_where_nothing_is_left(remains: Remains) -> None:
    assert await remains.counted(NOTED) == NOTED
    await left_by_the_dead(remains, events.text("Yes.", token_count=1))
    assert await remains.counted(NOTED) == NOTED
