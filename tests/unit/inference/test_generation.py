"""A generation's readers: each event once, and signs of life while there is none."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from agentnet.inference.v1 import generation_pb2
from agentnet.inference.v1 import inference_service_pb2 as pb
from services.inference.generation import Generation
from services.inference.peers import Leased, Metered
from services.inference.providers.contract import Usage
from shared.clock import SystemClock


def said(text: str) -> generation_pb2.GenerationEvent:
    return generation_pb2.GenerationEvent(text=generation_pb2.TextProduced(text=text, token_count=1))


async def test_a_silent_generation_gives_each_reader_a_sign_of_life_that_is_no_event() -> None:
    generation = Generation("acme", "gen_1", grace=timedelta(), clock=SystemClock())
    read: list[tuple[int, str]] = []

    async def reading() -> None:
        async for data in generation.read(0):
            event = pb.GenerateResponse.FromString(data).event
            assert (event.generation_id, event.time.seconds > 0) == ("gen_1", True)
            read.append((event.sequence, event.WhichOneof("event") or ""))

    reader = asyncio.create_task(reading())
    for step in (lambda: generation.append(said("One ")), generation.beat, generation.beat, generation.beat):
        step()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    generation.append(said("two."), last=True)
    await reader
    assert read == [(1, "text"), (1, "heartbeat"), (1, "heartbeat"), (2, "text")]
    assert [pb.GenerateResponse.FromString(data).event.sequence for data in generation.events] == [1, 2]


async def test_a_generation_that_speaks_has_no_heartbeats() -> None:
    generation = Generation("acme", "gen_1", grace=timedelta(), clock=SystemClock())
    reader = generation.read(0)
    for _ in range(3):
        generation.append(said("more "))
        assert pb.GenerateResponse.FromString(await anext(reader)).event.HasField("text")
        waiting = asyncio.ensure_future(anext(reader))
        await asyncio.sleep(0)
        generation.beat()
        await asyncio.sleep(0)
        assert not waiting.done()
        generation.append(said("again "))
        assert pb.GenerateResponse.FromString(await waiting).event.HasField("text")
        generation.beat()
    await reader.aclose()


def test_a_lease_knows_what_anything_costs_that_a_price_book_has() -> None:
    leased = Leased((), 1_000_000, 2_000_000, 3_000_000, 15_000_000, 500_000, 40_000)
    assert leased.micros_usd(Usage(10, 20)) == 50
    assert leased.micros_usd(Usage(10, 0, audio_input_tokens=4)) == 6 + 12
    assert leased.micros_usd(Usage(0, 0), Metered(images=2, audio_output=3, embedding_tokens=3)) == 80_000 + 45 + 2
