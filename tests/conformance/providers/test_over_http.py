"""Every adapter against a server that speaks its provider's wire format, with refusals, stalls and cuts."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, aclosing
from dataclasses import replace
from datetime import timedelta

import pytest

from services.inference.errors import ProviderAuthFailed, ProviderUnavailable
from services.inference.providers import http
from services.inference.providers.contract import (
    FinishReason,
    ModelCall,
    ProviderResult,
    Role,
    Sampling,
    Timeouts,
    infer,
    said,
)
from services.inference.providers.http import Endpoint, HttpProvider
from services.inference.providers.sse import EventStream
from services.inference.turns import Turns
from shared.errors import MeshError
from tests.conformance.providers.conftest import Spoken
from tests.support.openai_server import Act, Answer, Step
from tests.support.proofs import proved

CALL = ModelCall("m", (said(Role.USER, "Say hello."),), Sampling(), 64)
WORDS = ["Hello", ", ", "wörld", "!"]
SHORT = timedelta(milliseconds=80)
LONG = timedelta(hours=1)
PATIENT = Timeouts(LONG, LONG, LONG, LONG)


async def failure(spoken: Spoken, call: ModelCall = CALL) -> tuple[str, MeshError]:
    """The text before the error, and the error."""
    text = ""
    with pytest.raises(MeshError) as raised:
        async for chunk in spoken.provider.stream(call):
            text += chunk.text
    return text, raised.value


async def test_it_streams_and_infers_the_same(spoken: Spoken) -> None:
    spoken.server.answers = [Answer(spoken.wire.text(WORDS)), Answer(spoken.wire.text(WORDS))]
    text = "".join([chunk.text async for chunk in spoken.provider.stream(CALL)])
    whole: ProviderResult = await infer(spoken.provider, CALL)
    assert text == whole.text == "".join(WORDS)
    assert whole.finish_reason is FinishReason.STOP
    assert whole.usage == spoken.wire.usage


REFUSALS = {
    401: "PROVIDER_AUTH_FAILED",
    403: "PROVIDER_AUTH_FAILED",
    404: "PROVIDER_REJECTED",
    408: "PROVIDER_TIMEOUT",
    422: "PROVIDER_REJECTED",
    429: "PROVIDER_RATE_LIMITED",
    500: "PROVIDER_UNAVAILABLE",
    502: "PROVIDER_UNAVAILABLE",
    503: "PROVIDER_OVERLOADED",
    504: "PROVIDER_TIMEOUT",
    529: "PROVIDER_OVERLOADED",
}


@pytest.mark.parametrize("status", REFUSALS)
async def test_a_refusal_is_one_of_the_taxonomy_and_quotes_nothing(spoken: Spoken, status: int) -> None:
    body = json.dumps({"error": {"message": "secret prompt", "type": "some_error"}}).encode()
    spoken.server.answers = [Answer([body], status, {"retry-after": "2"})]
    text, error = await failure(spoken)
    assert (text, error.reason_name) == ("", REFUSALS[status])
    assert "secret" not in str(error.status())
    if status in (429, 503, 529):
        assert error.retry_after == timedelta(seconds=2)


async def test_a_prompt_that_is_too_long_is_told_apart(spoken: Spoken) -> None:
    status, body = spoken.wire.too_long
    spoken.server.answers = [Answer([json.dumps(body).encode()], status)]
    _, error = await failure(spoken)
    assert (error.reason_name, error.field) == ("CONTEXT_TOO_LONG", "messages")


async def test_cut_after_every_chunk_it_is_one_typed_failure(spoken: Spoken) -> None:
    events = spoken.wire.text(WORDS)
    last = next(place for place, event in enumerate(events) if WORDS[-1].encode() in event)
    for end in range(1, last + 1):
        steps = [step for event in events[:end] for step in (event, timedelta(milliseconds=1))]
        spoken.server.answers = [Answer([*steps, Act.CUT])]
        text, error = await failure(spoken)
        assert error.reason_name == "STREAM_BROKEN"
        assert "".join(WORDS).startswith(text)


async def test_an_error_in_the_middle_comes_after_what_was_said(spoken: Spoken) -> None:
    events = spoken.wire.text(WORDS)
    first = next(place for place, event in enumerate(events) if WORDS[0].encode() in event)
    pause = timedelta(milliseconds=20)
    spoken.server.answers = [Answer([*events[: first + 1], pause, spoken.wire.overloaded])]
    assert [(text, error.reason_name) for text, error in [await failure(spoken)]] == [("Hello", "PROVIDER_OVERLOADED")]


ALIVE: list[Step] = [step for _ in range(500) for step in (b": ping\n\n", timedelta(milliseconds=5))]
"""Signs of life for two and a half seconds."""


def until_the_first_word(spoken: Spoken) -> list[bytes]:
    events = spoken.wire.text(WORDS)
    return events[: 1 + next(place for place, event in enumerate(events) if WORDS[0].encode() in event)]


@pytest.mark.parametrize("steps", [[Act.HANG], ALIVE], ids=["silence", "signs of life"])
async def test_a_stall_before_the_first_token_is_given_up(spoken: Spoken, steps: list[Step]) -> None:
    before = until_the_first_word(spoken)[:-1]
    spoken.server.answers = [Answer([*before, *steps])]
    async with asyncio.timeout(1):
        _, error = await failure(spoken, replace(CALL, timeouts=replace(PATIENT, first_token=SHORT)))
    assert error.reason_name == "PROVIDER_TIMEOUT"


async def test_headers_that_do_not_come_are_a_first_token_that_does_not(spoken: Spoken) -> None:
    spoken.server.answers = [Answer([Act.MUTE])]
    async with asyncio.timeout(1):
        _, error = await failure(spoken, replace(CALL, timeouts=replace(PATIENT, first_token=SHORT)))
    assert error.reason_name == "PROVIDER_TIMEOUT"


async def test_a_stall_in_the_middle_is_given_up_and_closed(spoken: Spoken) -> None:
    spoken.server.answers = [Answer([*until_the_first_word(spoken), Act.HANG])]
    async with asyncio.timeout(1):
        text, error = await failure(spoken, replace(CALL, timeouts=replace(PATIENT, idle=SHORT)))
        await spoken.server.left.wait()
    assert (text, error.reason_name, "stalled" in error.message) == (WORDS[0], "PROVIDER_TIMEOUT", True)


async def test_a_first_token_may_take_longer_than_the_next(spoken: Spoken) -> None:
    *before, first = until_the_first_word(spoken)
    rest = spoken.wire.text(WORDS)[len(before) + 1 :]
    spoken.server.answers = [Answer([*before, timedelta(milliseconds=250), first, *rest])]
    call = replace(CALL, timeouts=replace(PATIENT, idle=timedelta(milliseconds=150)))
    assert (await infer(spoken.provider, call)).text == "".join(WORDS)


@pytest.fixture
def full() -> Iterator[str]:
    """A server whose queue is full: whoever connects now hears nothing."""
    with ExitStack() as open_sockets:
        server = open_sockets.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(2):
            caller = open_sockets.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(server.getsockname())
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that takes the connection and then has nothing to say about TLS."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"https://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("place", ["full", "silent"])
async def test_a_connection_that_is_not_made_is_given_up_by_itself(
    spoken: Spoken, place: str, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue(place)
    provider = spoken.wire.around(HttpProvider(Endpoint("any", url), spoken.wire.dialect, spoken.session))
    call = replace(CALL, timeouts=replace(PATIENT, connect=SHORT))
    async with asyncio.timeout(1):
        with pytest.raises(ProviderUnavailable, match="no connection"):
            await infer(provider, call)


async def test_a_reader_that_leaves_closes_the_call_within_a_second(spoken: Spoken) -> None:
    events = spoken.wire.text(WORDS)
    first = next(place for place, event in enumerate(events) if WORDS[0].encode() in event)
    spoken.server.answers = [Answer([*events[: first + 1], Act.HANG])]
    async with aclosing(spoken.provider.stream(CALL)) as stream:
        assert (await anext(stream)).text == "Hello"
    async with asyncio.timeout(1):
        await spoken.server.left.wait()


@pytest.mark.parametrize("broken", [b"data: {oops\n\n", b"data: 7\n\n", b'data: {"a": []}\n\ndata: [1]\n\n'])
async def test_what_is_no_event_of_the_format_is_a_broken_stream(spoken: Spoken, broken: bytes) -> None:
    spoken.server.answers = [Answer([broken])]
    _, error = await failure(spoken)
    assert error.reason_name == "STREAM_BROKEN"


async def test_the_key_goes_out_and_the_path_is_the_provider_s(spoken: Spoken) -> None:
    spoken.server.answers = [Answer(spoken.wire.text(WORDS))]
    await infer(spoken.provider, CALL)
    assert spoken.server.keys == ["Bearer k-1"]
    assert spoken.server.paths == [spoken.wire.path]


async def test_a_key_that_was_replaced_is_read_again_when_it_is_refused(spoken: Spoken) -> None:
    endpoint = Endpoint("any", spoken.server.root, proof=proved("k-old", "k-new"))
    provider = spoken.wire.around(HttpProvider(endpoint, spoken.wire.dialect, spoken.session))
    spoken.server.answers = [Answer([b"{}"], 401), Answer(spoken.wire.text(WORDS)), Answer(spoken.wire.text(WORDS))]
    assert [(await infer(provider, CALL)).text for _ in range(2)] == ["".join(WORDS)] * 2
    assert spoken.server.keys == ["Bearer k-old", "Bearer k-new", "Bearer k-new"]


async def test_a_key_that_is_refused_and_was_not_replaced_is_one_refusal(spoken: Spoken) -> None:
    endpoint = Endpoint("any", spoken.server.root, proof=proved("k-old"))
    spoken.server.answers = [Answer([b"{}"], 401), Answer([b"{}"], 401)]
    with pytest.raises(ProviderAuthFailed):
        await infer(HttpProvider(endpoint, spoken.wire.dialect, spoken.session), CALL)
    assert len(spoken.server.keys) == 1


class Crowd(Turns):
    """Others are always before; one turn passes."""

    @property
    def crowded(self) -> bool:
        return True

    async def wait(self) -> None:
        await asyncio.sleep(0.002)


async def test_in_a_crowd_nothing_is_lost_and_a_cut_is_the_same_failure(spoken: Spoken) -> None:
    crowded = spoken.among(Crowd())
    events = spoken.wire.text(WORDS)
    last = next(place for place, event in enumerate(events) if WORDS[-1].encode() in event)
    steps = [step for event in events for step in (event, timedelta(milliseconds=1))]
    spoken.server.answers = [Answer(steps), Answer([*steps[: 2 * last], Act.CUT])]
    assert "".join([chunk.text async for chunk in crowded.provider.stream(CALL)]) == "".join(WORDS)
    text, error = await failure(crowded)
    assert (error.reason_name, "".join(WORDS).startswith(text)) == ("STREAM_BROKEN", True)


async def test_in_a_crowd_a_reader_that_leaves_closes_the_call_within_a_second(spoken: Spoken) -> None:
    events = spoken.wire.text(WORDS)
    first = next(place for place, event in enumerate(events) if WORDS[0].encode() in event)
    spoken.server.answers = [Answer([*events[: first + 1], Act.HANG])]
    async with aclosing(spoken.among(Crowd()).provider.stream(CALL)) as stream:
        assert (await anext(stream)).text == "Hello"
    async with asyncio.timeout(1):
        await spoken.server.left.wait()


async def test_a_connection_whose_last_bytes_come_late_serves_the_next_call(spoken: Spoken) -> None:
    late: list[Step] = [*spoken.wire.text(WORDS), timedelta(milliseconds=20)]  # and then the end of the body
    spoken.server.answers = [Answer(late), Answer(late)]
    for _ in range(2):
        assert (await infer(spoken.provider, CALL)).text == "".join(WORDS)
        await asyncio.sleep(0.05)
    first, second = spoken.server.callers
    assert first == second


@pytest.mark.parametrize("end", [Act.CUT, Act.HANG])
async def test_a_whole_answer_stays_whole_however_its_stream_ends(
    spoken: Spoken, end: Act, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "_LINGER_SECONDS", 0.0)
    reader, events, sent = spoken.wire.dialect.reader("any"), EventStream(), list[Step]()
    for event in spoken.wire.text(WORDS):
        sent += [event, timedelta(milliseconds=1)]
        for found in events.feed(event):
            reader.read(found)
        if reader.whole:
            break
    spoken.server.answers = [Answer([*sent, b'data: {"half', end])]
    async with asyncio.timeout(2):
        whole = await infer(spoken.provider, replace(CALL, timeouts=replace(PATIENT, idle=SHORT)))
    assert (whole.text, whole.finish_reason) == ("".join(WORDS), FinishReason.STOP)
    await asyncio.sleep(0.01)
