"""What is read when it is over holds nothing that was taken back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TypeVar

from agentnet.inference.v1 import generation_pb2 as gen
from agentnet.orchestrator.v1 import event_pb2 as log
from services.gateway.facades.agents import _settled
from services.gateway.facades.models import settled

E = TypeVar("E", gen.GenerationEvent, log.SessionEvent)


async def told(*events: E) -> AsyncGenerator[E, None]:
    for event in events:
        yield event


def text(said: str) -> gen.GenerationEvent:
    return gen.GenerationEvent(text=gen.TextProduced(text=said))


def failover(*, restarted: bool) -> gen.GenerationEvent:
    return gen.GenerationEvent(failover=gen.Failover(restarted=restarted))


async def test_text_before_a_new_start_is_left_out_and_text_that_is_gone_on_with_is_not() -> None:
    started = gen.GenerationEvent(started=gen.GenerationStarted(model="m"))
    events = [started, text("a"), failover(restarted=True), text("b"), failover(restarted=False), text("c")]
    found = [event async for event in settled(told(*events))]
    assert [event.WhichOneof("event") for event in found] == ["started", "text", "failover", "text"]
    assert [event.text.text for event in found if event.HasField("text")] == ["b", "c"]


async def test_what_a_failure_made_void_is_left_out_and_the_beginning_is_told_at_once() -> None:
    gone_on = asyncio.Event()

    async def failing() -> AsyncGenerator[gen.GenerationEvent, None]:
        yield gen.GenerationEvent(started=gen.GenerationStarted(model="m"))
        await gone_on.wait()
        yield text("a")
        yield gen.GenerationEvent(failed=gen.GenerationFailed())

    events = settled(failing())
    assert (await anext(events)).HasField("started")
    gone_on.set()
    assert [event.WhichOneof("event") async for event in events] == ["failed"]


def tokens(turn: str, said: str) -> log.SessionEvent:
    return log.SessionEvent(tokens_produced=log.TokensProduced(turn_id=turn, text=said))


async def test_what_a_turn_said_before_it_broke_off_is_left_out_and_other_turns_stay() -> None:
    broke = log.SessionEvent(turn_interrupted=log.TurnInterrupted(turn_id="t2"))
    anew = log.SessionEvent(failed_over=log.FailedOver(turn_id="t2", restarted=True))
    goes_on = log.SessionEvent(failed_over=log.FailedOver(turn_id="t2"))
    said = [tokens("t1", "a"), tokens("t2", "b"), broke, tokens("t2", "c"), anew, tokens("t2", "d"), goes_on]
    found = [event async for event in _settled(told(*said, tokens("t2", "e")))]
    assert [event.tokens_produced.text for event in found if event.HasField("tokens_produced")] == ["a", "d", "e"]
