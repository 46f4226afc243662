"""The synthetic model is the same every time, and counts exactly."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import timedelta

from services.inference.providers.contract import FinishReason, ModelCall, Role, Sampling, Usage, infer, said
from services.inference.providers.synthetic import SyntheticProvider

FAST = SyntheticProvider(timedelta())


def call(text: str = "Why a mesh?", *, tokens: int = 40, seed: int | None = None) -> ModelCall:
    return ModelCall("synthetic", (said(Role.USER, text),), Sampling(seed=seed), tokens)


async def test_the_same_prompt_gives_the_same_words() -> None:
    assert await infer(FAST, call()) == await infer(FAST, call())


async def test_another_prompt_or_seed_gives_other_words() -> None:
    texts = [(await infer(FAST, one)).text for one in (call(), call("Why not?"), call(seed=1), call(seed=2))]
    assert len(set(texts)) == 4


async def test_as_many_tokens_come_as_were_asked_for_and_usage_is_exact() -> None:
    whole = await infer(FAST, call(tokens=100))
    assert len(whole.text.split()) == 100
    assert (whole.usage, whole.finish_reason) == (Usage(7, 100), FinishReason.LENGTH)


async def test_a_scripted_text_comes_word_by_word_and_unchanged() -> None:
    chunks = [chunk async for chunk in FAST.stream(call("say: Mail  ada@example.org\nnow."))]
    assert [chunk.text for chunk in chunks[:-1]] == ["Mail  ", "ada@example.org\n", "now."]
    assert chunks[-1].finish_reason is FinishReason.STOP


async def test_a_scripted_text_beyond_the_limit_ends_with_the_reason_length() -> None:
    whole = await infer(FAST, call("say: one two three", tokens=2))
    assert (whole.text, whole.finish_reason, whole.usage.output_tokens) == ("one two ", FinishReason.LENGTH, 2)


async def test_a_scripted_text_of_exactly_the_limit_ends_by_itself() -> None:
    assert (await infer(FAST, call("say: one two", tokens=2))).finish_reason is FinishReason.STOP


async def test_a_paced_stream_keeps_its_gap() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await infer(SyntheticProvider(timedelta(milliseconds=10)), call(tokens=5))
    assert loop.time() - began >= 0.045


async def test_without_latency_others_still_run() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    async with aclosing(FAST.stream(call(tokens=50))) as stream:
        async for _ in stream:
            pass
    task.cancel()
    assert turns >= 50
