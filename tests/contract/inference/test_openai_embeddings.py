"""The OpenAI-compatible embedder against a real HTTP server: what comes in, and how it fails."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import aiohttp
import grpc
import pytest

from services.inference.embeddings.cache import MemoryVectorCache
from services.inference.embeddings.contract import Embedder
from services.inference.embeddings.models import EmbeddingModels, remote_embedder
from services.inference.embeddings.openai_compatible import EmbeddingEndpoint, OpenAICompatibleEmbedder
from services.inference.tokenizers import known_tokenizers
from shared.clock import FakeClock
from shared.errors import MeshError
from tests.support.embeddings_server import (
    WIDTH,
    Act,
    EmbeddingsServer,
    Refusal,
    answer,
    embeddings_server,
    encoded,
    numbers,
    only_floats,
)
from tests.support.proofs import proved
from tests.support.valkey import free_port


@pytest.fixture
async def server() -> AsyncIterator[EmbeddingsServer]:
    async with embeddings_server() as running:
        yield running


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None, sock_connect=1)) as opened:
        yield opened


@pytest.fixture
def embedder(server: EmbeddingsServer, session: aiohttp.ClientSession) -> OpenAICompatibleEmbedder:
    return embedder_at(server.url, session)


def embedder_at(url: str, session: aiohttp.ClientSession, **changes: Any) -> OpenAICompatibleEmbedder:
    cut = changes.pop("cut", None)
    settings = {
        "name": "any",
        "base_url": url,
        "proof": proved("k-1"),
        "model": "small",
        "timeout": timedelta(seconds=5),
    }
    return OpenAICompatibleEmbedder(EmbeddingEndpoint(**settings | changes), session, cut=cut)


def unit(text: str, width: int = WIDTH) -> list[float]:
    values = numbers(text, width)
    length = math.sqrt(sum(value * value for value in values))
    return [value / length for value in values]


async def failure(embedder: OpenAICompatibleEmbedder, texts: tuple[str, ...] = ("my secret",)) -> MeshError:
    with pytest.raises(MeshError) as raised:
        await embedder.embed(texts)
    return raised.value


async def test_base64_vectors_arrive_in_order_at_unit_length(
    server: EmbeddingsServer, embedder: OpenAICompatibleEmbedder
) -> None:
    found = await embedder.embed(["one", "two words"])
    assert [list(vector) for vector in found.vectors] == [pytest.approx(unit("one")), pytest.approx(unit("two words"))]
    assert (found.tokens, found.truncated) == (3, 0)
    assert server.heard == [{"model": "small", "input": ["one", "two words"], "encoding_format": "base64"}]
    assert server.keys == ["Bearer k-1"]


async def test_plain_numbers_are_the_same_vectors(server: EmbeddingsServer, embedder: OpenAICompatibleEmbedder) -> None:
    plain = await _after(server, embedder, only_floats)
    packed = await _after(server, embedder, answer)
    assert plain.vectors[0] == pytest.approx(packed.vectors[0], abs=1e-12)


async def _after(server: EmbeddingsServer, embedder: OpenAICompatibleEmbedder, script: Any) -> Any:
    server.script = [script]
    return await embedder.embed(["one"])


async def test_rows_are_placed_by_their_index(server: EmbeddingsServer, embedder: OpenAICompatibleEmbedder) -> None:
    server.script = [lambda asked: answer(asked) | {"data": answer(asked)["data"][::-1]}]
    found = await embedder.embed(["one", "two"])
    assert [list(vector) for vector in found.vectors] == [pytest.approx(unit("one")), pytest.approx(unit("two"))]


async def test_a_width_is_asked_for_and_demanded(server: EmbeddingsServer, session: aiohttp.ClientSession) -> None:
    narrow = embedder_at(server.url, session, width=4)
    assert len((await narrow.embed(["one"])).vectors[0]) == 4
    assert server.heard[0]["dimensions"] == 4
    server.script = [lambda asked: answer(asked | {"dimensions": 5})]
    assert (await failure(narrow)).reason_name == "STREAM_BROKEN"


async def test_much_text_is_asked_for_in_parts(server: EmbeddingsServer, embedder: OpenAICompatibleEmbedder) -> None:
    texts = [f"{place} " + "ü" * 70_000 for place in range(5)]
    found = await embedder.embed(texts)
    assert [len(asked["input"]) for asked in server.heard] == [2, 2, 1]
    assert [list(vector) for vector in found.vectors] == [pytest.approx(unit(text)) for text in texts]
    assert found.tokens == 10


async def test_a_long_text_is_cut_to_the_window_and_counted(
    server: EmbeddingsServer, session: aiohttp.ClientSession
) -> None:
    embedder = embedder_at(server.url, session, cut=lambda text: (text[:5], len(text) > 5))
    found = await embedder.embed(["short", "longer than that"])
    assert (server.heard[0]["input"], found.truncated, found.cut) == (["short", "longe"], 1, (1,))


async def test_a_key_that_was_replaced_is_read_again_when_it_is_refused(
    server: EmbeddingsServer, session: aiohttp.ClientSession
) -> None:
    embedder = embedder_at(server.url, session, proof=proved("k-old", "k-new"))
    server.script = [Refusal(401), answer]
    assert len((await embedder.embed(["a"])).vectors) == 1
    assert server.keys == ["Bearer k-old", "Bearer k-new"]


def remote(url: str, session: aiohttp.ClientSession, *, window: int, cache: MemoryVectorCache | None) -> Embedder:
    endpoint = EmbeddingEndpoint("openai", url, proved("k-1"), "text-embedding-3-small", timedelta(seconds=5))
    tokenizers = known_tokenizers({})
    return remote_embedder(endpoint, session, window=window, tokenizers=tokenizers, cache=cache, tenant=lambda: "acme")


async def test_a_remote_model_is_cut_by_its_own_tokenizer_and_cached(
    server: EmbeddingsServer, session: aiohttp.ClientSession
) -> None:
    cache = MemoryVectorCache(FakeClock(), size=10_000, ttl=timedelta(hours=1))
    embedder = remote(server.url, session, window=50, cache=cache)
    found = await embedder.embed(["tea " * 200, "short"])
    again = await embedder.embed(["short", "tea " * 200])
    (asked,) = server.heard
    assert asked["input"][0].split() == ["tea"] * 50
    assert (found.truncated, found.cut, again.cut, again.tokens) == (1, (0,), (1,), 0)
    assert again.vectors == found.vectors[::-1]
    plain = remote(server.url, session, window=0, cache=None)
    assert (await plain.embed(["tea " * 200])).truncated == 0


async def test_models_are_found_by_name_and_an_unknown_one_lists_them(embedder: OpenAICompatibleEmbedder) -> None:
    models = EmbeddingModels({"small": embedder, "large": embedder}, default="small")
    found = [(model.name, model.embedder) for model in (models.find(""), models.find("large"))]
    assert found == [("small", embedder), ("large", embedder)]
    with pytest.raises(MeshError) as raised:
        models.find("huge")
    assert (raised.value.reason_name, raised.value.facts["known"]) == ("MODEL_NOT_FOUND", "large, small")


REFUSALS = {
    "wrong key": (Refusal(401), grpc.StatusCode.FAILED_PRECONDITION, "PROVIDER_AUTH_FAILED", False),
    "no access": (Refusal(403), grpc.StatusCode.FAILED_PRECONDITION, "PROVIDER_AUTH_FAILED", False),
    "too many": (Refusal(429), grpc.StatusCode.RESOURCE_EXHAUSTED, "PROVIDER_RATE_LIMITED", True),
    "bad request": (Refusal(400), grpc.StatusCode.INVALID_ARGUMENT, "PROVIDER_REJECTED", False),
    "no such model": (Refusal(404), grpc.StatusCode.INVALID_ARGUMENT, "PROVIDER_REJECTED", False),
    "too long": (
        Refusal(400, "This model's maximum context length is 8192 tokens, however you requested 9000 tokens"),
        grpc.StatusCode.INVALID_ARGUMENT,
        "CONTEXT_TOO_LONG",
        False,
    ),
    "fault": (Refusal(500), grpc.StatusCode.UNAVAILABLE, "PROVIDER_UNAVAILABLE", True),
    "overloaded": (Refusal(503), grpc.StatusCode.UNAVAILABLE, "PROVIDER_OVERLOADED", True),
    "gateway timeout": (Refusal(504), grpc.StatusCode.DEADLINE_EXCEEDED, "PROVIDER_TIMEOUT", True),
}


@pytest.mark.parametrize(("refusal", "code", "reason", "retryable"), REFUSALS.values(), ids=REFUSALS.keys())
async def test_a_refusal_says_whose_fault_it_is_and_never_quotes_the_text(
    server: EmbeddingsServer,
    embedder: OpenAICompatibleEmbedder,
    refusal: Refusal,
    code: grpc.StatusCode,
    reason: str,
    retryable: bool,
) -> None:
    server.script = [refusal]
    error = await failure(embedder)
    assert (error.code, error.reason_name, error.retryable) == (code, reason, retryable)
    assert "secret" not in str(error.status())
    assert len(server.heard) == 1


@pytest.mark.parametrize(("given", "seconds"), [("3", 3), ("0.5", 0.5), ("Wed, 21 Oct 2026", 1), ("inf", 1), ("-4", 0)])
async def test_a_rate_limit_says_when_to_come_back(
    server: EmbeddingsServer, embedder: OpenAICompatibleEmbedder, given: str, seconds: float
) -> None:
    server.script = [Refusal(429, headers={"retry-after": given})]
    assert (await failure(embedder)).retry_after == timedelta(seconds=seconds)


def with_vector(shown: Any) -> Any:
    return lambda asked: answer(asked) | {"data": [{"index": 0, "embedding": shown}]}


MALFORMED = {
    "no list": lambda _: {"data": None},
    "no object": lambda _: [],
    "too few": lambda asked: answer(asked) | {"data": []},
    "too many": lambda asked: answer(asked | {"input": ["a", "b"]}),
    "another index": lambda asked: answer(asked) | {"data": [{"index": 1, "embedding": [1.0]}]},
    "no base64": with_vector("!!"),
    "half a float": with_vector("AAAAAAA="),
    "not a number": with_vector(["x"]),
    "nothing": with_vector([]),
    "no direction": with_vector([0.0, 0.0]),
    "NaN": with_vector(encoded([math.nan, 1.0])),
    "infinite": with_vector(encoded([math.inf, 1.0])),
    "nested": with_vector([[1.0, 2.0]]),
}


@pytest.mark.parametrize("script", MALFORMED.values(), ids=MALFORMED.keys())
async def test_an_answer_that_is_no_list_of_vectors_is_broken(
    server: EmbeddingsServer, embedder: OpenAICompatibleEmbedder, script: Any
) -> None:
    server.script = [script]
    assert (await failure(embedder)).reason_name == "STREAM_BROKEN"


@pytest.mark.parametrize("act", [Act.HANG, Act.STALL])
async def test_a_server_that_stalls_is_given_up_and_left(
    server: EmbeddingsServer, session: aiohttp.ClientSession, act: Act
) -> None:
    server.script = [act]
    error = await failure(embedder_at(server.url, session, timeout=timedelta(milliseconds=80)))
    assert error.reason_name == "PROVIDER_TIMEOUT"
    async with asyncio.timeout(1):
        await server.left.wait()


async def test_a_caller_that_leaves_closes_the_call(
    server: EmbeddingsServer, embedder: OpenAICompatibleEmbedder
) -> None:
    server.script = [Act.HANG]
    call = asyncio.create_task(embedder.embed(["one"]))
    while not server.heard:
        await asyncio.sleep(0.005)
    call.cancel()
    async with asyncio.timeout(1):
        await server.left.wait()


async def test_an_answer_that_breaks_off_is_broken(
    server: EmbeddingsServer, embedder: OpenAICompatibleEmbedder
) -> None:
    server.script = [Act.BREAK]
    assert (await failure(embedder)).reason_name == "STREAM_BROKEN"


async def test_a_connection_closed_under_us_is_tried_once_more(
    server: EmbeddingsServer, embedder: OpenAICompatibleEmbedder
) -> None:
    await embedder.embed(["one"])
    server.script = [Act.CUT]
    assert (await embedder.embed(["two"])).vectors
    server.script = [Act.CUT, Act.CUT, Act.CUT]
    assert (await failure(embedder)).reason_name == "PROVIDER_UNAVAILABLE"
    assert len(server.heard) == 5


async def test_a_server_that_is_not_there_is_unavailable(session: aiohttp.ClientSession) -> None:
    error = await failure(embedder_at(f"http://127.0.0.1:{free_port()}/v1", session))
    assert (error.code, error.reason_name) == (grpc.StatusCode.UNAVAILABLE, "PROVIDER_UNAVAILABLE")


async def test_calls_share_one_connection(server: EmbeddingsServer, embedder: OpenAICompatibleEmbedder) -> None:
    for text in ("one", "two", "three"):
        await embedder.embed([text])
    assert len(server.callers) == 1
