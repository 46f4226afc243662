"""The OpenAI-compatible provider against a real HTTP server: what comes in, whatever way it is cut, and how it fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from typing import Any

import aiohttp
import grpc
import pytest

from services.inference.providers.contract import (
    Chunk,
    FinishReason,
    ModelCall,
    Role,
    Sampling,
    Timeouts,
    Usage,
    infer,
    said,
)
from services.inference.providers.http import Endpoint, HttpProvider, pooled
from services.inference.providers.openai_chat import ChatDialect
from shared.errors import MeshError
from tests.support.openai_server import (
    DONE,
    Act,
    Answer,
    OpenAIServer,
    delta,
    event,
    finish,
    openai_server,
    refuses,
    says,
    usage,
)
from tests.support.valkey import free_port

PAUSE = timedelta(milliseconds=20)
CALL = ModelCall("small", (said(Role.USER, "Say hello."),), Sampling(), 64)


@pytest.fixture
async def server() -> AsyncIterator[OpenAIServer]:
    async with openai_server() as running:
        yield running


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with pooled(timedelta(seconds=1)) as opened:
        yield opened


@pytest.fixture
def provider(server: OpenAIServer, session: aiohttp.ClientSession) -> HttpProvider:
    return provider_at(server.url, session)


def provider_at(url: str, session: aiohttp.ClientSession) -> HttpProvider:
    return HttpProvider(Endpoint("any", url, {"authorization": "Bearer k-1"}), ChatDialect(), session)


async def chunks(provider: HttpProvider) -> list[Chunk]:
    return [chunk async for chunk in provider.stream(CALL)]


async def failure(provider: HttpProvider, **timeouts: timedelta) -> tuple[str, MeshError]:
    """The text that came before the error, and the error."""
    text = ""
    with pytest.raises(MeshError) as raised:
        async for chunk in provider.stream(replace(CALL, timeouts=Timeouts(**timeouts))):
            text += chunk.text
    return text, raised.value


async def test_a_stream_is_its_text_its_reason_and_its_usage(server: OpenAIServer, provider: HttpProvider) -> None:
    server.answers = [says("Hello", ", ", "world")]
    whole = await infer(provider, CALL)
    assert (whole.text, whole.finish_reason) == ("Hello, world", FinishReason.STOP)
    assert whole.usage == Usage(7, 3)


async def test_what_is_asked_goes_out_in_openai_s_words(server: OpenAIServer, provider: HttpProvider) -> None:
    server.answers = [says("yes")]
    prompt = (said(Role.SYSTEM, "Be short."), said(Role.USER, "Go?", name="Athena"))
    sampling = Sampling(temperature=0.0, top_p=0.5, seed=7, stop=("END",))
    await infer(provider, ModelCall("small", prompt, sampling, 9))
    assert server.keys == ["Bearer k-1"]
    assert server.heard == [
        {
            "model": "small",
            "messages": [
                {"role": "system", "content": "Be short."},
                {"role": "user", "content": "Go?", "name": "Athena"},
            ],
            "max_tokens": 9,
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": 0.0,
            "top_p": 0.5,
            "seed": 7,
            "stop": ["END"],
        }
    ]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
async def test_the_cuts_of_the_network_do_not_show(server: OpenAIServer, provider: HttpProvider, size: int) -> None:
    stream = (
        b": comment\r\n\r\n" + delta("Grüße ") + delta("💡") + delta("\n\n") + finish("length") + usage(1, 3) + DONE
    )
    pieces: list[Any] = []
    for start in range(0, len(stream), size):
        pieces += [stream[start : start + size], timedelta()]
    server.answers = [Answer(pieces)]
    whole = await infer(provider, CALL)
    assert (whole.text, whole.finish_reason, whole.usage) == ("Grüße 💡\n\n", FinishReason.LENGTH, Usage(1, 3))


async def test_all_tokens_of_one_read_are_one_chunk(server: OpenAIServer, provider: HttpProvider) -> None:
    server.answers = [Answer([delta("a") + delta("b") + delta("c"), PAUSE, delta("d") + finish() + DONE])]
    found = await chunks(provider)
    assert [(chunk.text, chunk.token_count) for chunk in found] == [("abc", 3), ("d", 1)]


async def test_usage_that_is_not_reported_is_counted_and_marked(server: OpenAIServer, provider: HttpProvider) -> None:
    server.answers = [Answer([delta("a"), delta("b"), finish(), DONE])]
    assert (await infer(provider, CALL)).usage == Usage(7, 2, estimated=True)


async def test_cached_tokens_are_told_apart(server: OpenAIServer, provider: HttpProvider) -> None:
    server.answers = [Answer([delta("a"), finish(), usage(10, 1, cached=8), DONE])]
    assert (await infer(provider, CALL)).usage == Usage(10, 1, cached_input_tokens=8)


async def test_a_server_without_the_last_marker_is_understood_when_it_gave_a_reason(
    server: OpenAIServer, provider: HttpProvider
) -> None:
    server.answers = [Answer([delta("a"), finish()])]
    assert (await infer(provider, CALL)).text == "a"


REFUSALS = {
    "wrong key": (refuses(401), grpc.StatusCode.FAILED_PRECONDITION, "PROVIDER_AUTH_FAILED", False),
    "no access": (refuses(403), grpc.StatusCode.FAILED_PRECONDITION, "PROVIDER_AUTH_FAILED", False),
    "too many": (refuses(429), grpc.StatusCode.RESOURCE_EXHAUSTED, "PROVIDER_RATE_LIMITED", True),
    "bad request": (refuses(400), grpc.StatusCode.INVALID_ARGUMENT, "PROVIDER_REJECTED", False),
    "too long": (refuses(400, "context_length_exceeded"), grpc.StatusCode.INVALID_ARGUMENT, "CONTEXT_TOO_LONG", False),
    "fault": (refuses(500), grpc.StatusCode.UNAVAILABLE, "PROVIDER_UNAVAILABLE", True),
    "overloaded": (refuses(503), grpc.StatusCode.UNAVAILABLE, "PROVIDER_OVERLOADED", True),
    "gateway timeout": (refuses(504), grpc.StatusCode.DEADLINE_EXCEEDED, "PROVIDER_TIMEOUT", True),
}


@pytest.mark.parametrize(("answer", "code", "reason", "retryable"), REFUSALS.values(), ids=REFUSALS.keys())
async def test_a_refusal_says_whose_fault_it_is_and_never_quotes_the_prompt(
    server: OpenAIServer,
    provider: HttpProvider,
    answer: Answer,
    code: grpc.StatusCode,
    reason: str,
    retryable: bool,
) -> None:
    server.answers = [answer]
    text, error = await failure(provider)
    assert (text, error.code, error.reason_name, error.retryable) == ("", code, reason, retryable)
    assert "secret" not in str(error.status())
    assert len(server.heard) == 1


@pytest.mark.parametrize(("given", "seconds"), [("3", 3), ("0.5", 0.5), ("Wed, 21 Oct 2026", 1), ("inf", 1), ("-4", 0)])
async def test_a_rate_limit_says_when_to_come_back(
    server: OpenAIServer, provider: HttpProvider, given: str, seconds: float
) -> None:
    server.answers = [refuses(429, retry_after=given)]
    _, error = await failure(provider)
    assert error.retry_after == timedelta(seconds=seconds)


BROKEN = {
    "cut": Act.CUT,
    "ended": b"",
    "not JSON": b"data: {oops\n\n",
    "not an object": b"data: 7\n\n",
    "an error": event({"error": {"message": "the prompt was: my secret"}}),
    "an error as text": event({"error": "my secret"}),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
async def test_a_stream_that_breaks_gives_what_came_and_then_a_failure(
    server: OpenAIServer, provider: HttpProvider, broken: Any
) -> None:
    server.answers = [Answer([delta("half"), PAUSE, broken])]
    text, error = await failure(provider)
    assert (text, error.reason_name, error.retryable) == ("half", "STREAM_BROKEN", True)
    assert "secret" not in error.message


async def test_a_server_that_never_begins_is_given_up(server: OpenAIServer, session: aiohttp.ClientSession) -> None:
    server.answers = [Answer([Act.HANG])]
    _, error = await failure(provider_at(server.url, session), first_token=timedelta(milliseconds=60))
    assert error.reason_name == "PROVIDER_TIMEOUT"


async def test_a_stream_that_stalls_is_given_up_and_closed(
    server: OpenAIServer, session: aiohttp.ClientSession
) -> None:
    server.answers = [Answer([delta("half"), Act.HANG])]
    text, error = await failure(provider_at(server.url, session), idle=timedelta(milliseconds=60))
    assert (text, error.reason_name) == ("half", "PROVIDER_TIMEOUT")
    async with asyncio.timeout(1):
        await server.left.wait()


async def test_a_refusal_that_stalls_is_given_up(server: OpenAIServer, session: aiohttp.ClientSession) -> None:
    server.answers = [Answer([b'{"error":', Act.HANG], status=400)]
    _, error = await failure(provider_at(server.url, session), idle=timedelta(milliseconds=60))
    assert error.reason_name == "PROVIDER_TIMEOUT"


async def test_a_reader_that_leaves_closes_the_call_at_the_provider(
    server: OpenAIServer, provider: HttpProvider
) -> None:
    server.answers = [Answer([delta("half"), Act.HANG])]
    async with aclosing(provider.stream(CALL)) as stream:
        assert (await anext(stream)).text == "half"
    async with asyncio.timeout(1):
        await server.left.wait()


async def test_a_server_that_is_not_there_is_unavailable(session: aiohttp.ClientSession) -> None:
    _, error = await failure(provider_at(f"http://127.0.0.1:{free_port()}/v1", session))
    assert (error.code, error.reason_name) == (grpc.StatusCode.UNAVAILABLE, "PROVIDER_UNAVAILABLE")


async def test_calls_share_one_connection(server: OpenAIServer, provider: HttpProvider) -> None:
    server.answers = [says("one"), says("two")]
    texts = [(await infer(provider, CALL)).text for _ in range(2)]
    assert texts == ["one", "two"]
    assert len(set(server.callers)) == 1


async def test_what_a_provider_sets_for_one_call_does_not_go_out_with_the_next(
    server: OpenAIServer, session: aiohttp.ClientSession
) -> None:
    named = provider_at(server.url.replace("127.0.0.1", "localhost"), session)  # addresses have no cookies
    server.answers = [replace(says("One."), headers={"set-cookie": "who=acme; Path=/"}), says("Two.")]
    for _ in range(2):
        await chunks(named)
    assert [headers.get("cookie") for headers in server.headers] == [None, None]


async def test_a_connection_closed_under_us_is_tried_once_more(server: OpenAIServer, provider: HttpProvider) -> None:
    server.answers = [says("one"), Answer([Act.CUT]), says("two")]
    texts = [(await infer(provider, CALL)).text for _ in range(2)]
    assert texts == ["one", "two"]


async def test_a_server_that_always_hangs_up_is_unavailable(server: OpenAIServer, provider: HttpProvider) -> None:
    server.answers = [Answer([Act.CUT]), Answer([Act.CUT]), Answer([Act.CUT])]
    _, error = await failure(provider)
    assert error.reason_name == "PROVIDER_UNAVAILABLE"
    assert len(server.heard) == 2
