"""The embedded embedding model: unit vectors in order, near for near meanings, off the loop."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator

import numpy as np
import pytest

from services.inference.embeddings.token_axes import MOST, SCALE, WIDTH
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


async def test_tokens_have_vectors_of_their_own_without_the_marks_at_both_ends(embedder: EmbeddedEmbedder) -> None:
    found = await embedder.embed(["cat", "the cat sat", "word " * 300, ""])
    sizes = [len(tokens) // WIDTH for tokens in found.token_vectors]
    assert sizes == [1, 3, MOST, 0]
    tokens = np.frombuffer(found.token_vectors[1], np.int8).reshape(-1, WIDTH) / SCALE
    assert np.allclose(np.linalg.norm(tokens, axis=1), 1, atol=0.04)


async def test_tokens_of_like_meaning_are_nearer_than_others(embedder: EmbeddedEmbedder) -> None:
    found = await embedder.embed(["kitten", "My cat sleeps.", "Interest rates rose."])
    asked, cat, rates = (np.frombuffer(one, np.int8).reshape(-1, WIDTH) / SCALE for one in found.token_vectors)
    assert (cat @ asked.T).max() > (rates @ asked.T).max() + 0.1


async def test_a_tokens_vector_is_the_same_in_any_batch(embedder: EmbeddedEmbedder) -> None:
    texts = ["A cat sleeps.", "and more " * 30]
    together = (await embedder.embed(texts)).token_vectors[0]
    alone = (await embedder.embed(texts[:1])).token_vectors[0]
    one, other = (np.frombuffer(given, np.int8).astype(int) for given in (together, alone))
    assert np.abs(one - other).max() <= 2
