"""Providers, against a server that speaks the real wire format."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from services.inference.errors import (
    ContextTooLong,
    ProviderAuthFailed,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
    StreamBroken,
)
from services.inference.providers.contract import FinishReason, Message, ModelCall, Role, Sampling, Usage, infer
from services.inference.providers.openai_compatible import Endpoint, OpenAICompatibleProvider
from services.inference.providers.sse import DataLines
from services.inference.providers.synthetic import SyntheticProvider

Answer = Callable[[web.Request], Any]


def call(text: str = "hi", *, tokens: int = 8) -> ModelCall:
    return ModelCall("m", (Message(Role.USER, text),), Sampling(temperature=0.5), tokens)


def event(data: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def words(*pieces: str) -> bytes:
    deltas = b"".join(event({"choices": [{"delta": {"content": piece}}]}) for piece in pieces)
    end = event({"choices": [{"delta": {}, "finish_reason": "length"}]})
    usage = event({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": len(pieces)}})
    return deltas + end + usage + b"data: [DONE]\n\n"


@pytest.fixture
async def served() -> AsyncIterator[Callable[[Answer], Any]]:
    runners: list[web.AppRunner] = []
    session = aiohttp.ClientSession()

    async def serve(answer: Answer, *, limit: float = 2) -> OpenAICompatibleProvider:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        runners.append(runner)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]
        span = timedelta(seconds=limit)
        return OpenAICompatibleProvider(Endpoint("openai", f"http://127.0.0.1:{port}/v1", "k", span, span), session)

    yield serve
    await session.close()
    for runner in runners:
        await runner.cleanup()


def streaming(*parts: bytes, pause: float = 0.01, cut: bool = False) -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for part in parts:
            await response.write(part)
            await asyncio.sleep(pause)
        if cut and request.transport:
            request.transport.abort()
        return response

    return answer


@pytest.mark.parametrize("size", [1, 7, 50, 10_000])
async def test_an_openai_compatible_stream_is_read_whatever_the_cuts(served: Any, size: int) -> None:
    whole = words("Hel", "lo ", "wörld")
    pieces = [whole[start : start + size] for start in range(0, len(whole), size)]
    provider = await served(streaming(*pieces, pause=0))
    result = await infer(provider, call())
    assert result.text == "Hello wörld"
    assert (result.finish_reason, result.usage) == (FinishReason.LENGTH, Usage(7, 3))


async def test_usage_that_is_not_reported_is_counted_and_marked(served: Any) -> None:
    body = event({"choices": [{"delta": {"content": "a"}}]}) + b"data: [DONE]\n\n"
    result = await infer(await served(streaming(body)), call())
    assert result.usage.estimated
    assert result.usage.output_tokens == 1


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (401, "", ProviderAuthFailed),
        (429, "", ProviderRateLimited),
        (400, '{"error": {"code": "context_length_exceeded"}}', ContextTooLong),
        (422, "", ProviderRejected),
        (503, "", ProviderUnavailable),
        (504, "", ProviderTimeout),
    ],
)
async def test_a_providers_refusal_has_our_reason(served: Any, status: int, body: str, error: type[Exception]) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, text=body, headers={"retry-after": "7"})

    with pytest.raises(error) as raised:
        await infer(await served(answer), call())
    if status == 429:
        assert raised.value.retry_after == timedelta(seconds=7)  # type: ignore[attr-defined]


async def test_a_cut_stream_is_broken_and_not_finished(served: Any) -> None:
    with pytest.raises(StreamBroken):
        await infer(await served(streaming(words("a", "b")[:60], cut=True)), call())


async def test_a_stalled_stream_times_out(served: Any) -> None:
    provider = await served(streaming(words("a")[:20], b"", pause=1), limit=0.2)
    with pytest.raises(ProviderTimeout):
        await infer(provider, call())


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    async with aiohttp.ClientSession() as session:
        span = timedelta(seconds=1)
        provider = OpenAICompatibleProvider(Endpoint("openai", "http://127.0.0.1:9/v1", "", span, span), session)
        with pytest.raises(ProviderUnavailable):
            await infer(provider, call())


async def test_the_synthetic_model_says_the_same_again() -> None:
    provider = SyntheticProvider(timedelta())
    first, second = await infer(provider, call("x")), await infer(provider, call("x"))
    assert first == second
    assert len(first.text.split()) == first.usage.output_tokens == 8
    assert (await infer(provider, call("y"))).text != first.text
    assert (await infer(provider, call("say: just this", tokens=50))).text == "just this"


async def test_a_provider_streams_and_infers_the_same() -> None:
    provider = SyntheticProvider(timedelta())
    chunks = [chunk async for chunk in provider.stream(call("z"))]
    result = await infer(provider, call("z"))
    assert "".join(chunk.text for chunk in chunks) == result.text
    assert chunks[-1].usage == result.usage
    assert chunks[-1].finish_reason is result.finish_reason


def test_data_lines_come_out_whole() -> None:
    lines = DataLines()
    assert lines.feed(b"data: a\nda") == [b"a"]
    assert lines.feed(b"ta: b\r\n: comment\n\n") == [b"b"]
