"""The embedded embedding model: unit vectors in order, near for near meanings, off the loop."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator

import pytest

from tests.support.plain_embedder import EmbeddedEmbedder


@pytest.fixture(scope="module")
def embedder() -> Iterator[EmbeddedEmbedder]:
    made = EmbeddedEmbedder()
    yield made
    made.close()


def similarity(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


async def test_vectors_are_384_wide_and_of_unit_length(embedder: EmbeddedEmbedder) -> None:
    (vector,) = (await embedder.embed(["The cat sits on the mat."])).vectors
    assert len(vector) == 384
    assert math.isclose(similarity(vector, vector), 1, abs_tol=1e-5)


async def test_near_meanings_are_near_and_far_ones_far(embedder: EmbeddedEmbedder) -> None:
    found = await embedder.embed(["A cat lies on a rug.", "A kitten rests on the carpet.", "Interest rates rose."])
    cat, kitten, rates = found.vectors
    assert similarity(cat, kitten) > 0.5 > 0.3 > similarity(cat, rates)


async def test_a_batch_is_what_each_text_is_alone(embedder: EmbeddedEmbedder) -> None:
    texts = [f"Sentence {number} " + "and more " * (number % 7) for number in range(40)]
    together = await embedder.embed(texts)
    for place in (0, 31, 32, 39):
        (alone,) = (await embedder.embed([texts[place]])).vectors
        assert similarity(together.vectors[place], alone) > 0.98
    assert len(together.vectors) == 40


async def test_a_text_longer_than_the_window_is_cut_and_counted(embedder: EmbeddedEmbedder) -> None:
    found = await embedder.embed(["short", "word " * 1000])
    assert (len(found.vectors), found.truncated) == (2, 1)
    assert 256 < found.tokens < 300


async def test_the_loop_goes_on_while_vectors_are_computed(embedder: EmbeddedEmbedder) -> None:
    work = asyncio.ensure_future(embedder.embed(["some words to read " * 40] * 32))
    turns = 0
    while not work.done():
        turns += 1
        await asyncio.sleep(0.001)
    assert turns > 20
