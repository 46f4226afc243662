"""Every dialect reads its provider's real wire format, whatever way the network cuts it. No I/O here."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.inference.providers.contract import Chunk, FinishReason, ToolCalls, Usage
from services.inference.providers.http import Endpoint, HttpProvider, joined
from services.inference.providers.sse import EventStream
from shared.errors import MeshError
from tests.support.wire import WIRES, Wire, sse

WORDS = ["Grüße", " an", " alle", " 💡", " … ", "\n\n", "naïve"]
EVERY = pytest.mark.parametrize("wire", WIRES.values(), ids=WIRES.keys())


def read(wire: Wire, pieces: list[bytes]) -> tuple[Chunk, bool]:
    """All that the pieces say, read as its adapter reads them, as one chunk; and whether it is a whole answer."""
    reader, stream = wire.dialect.reader("any"), EventStream()
    adapter = HttpProvider(Endpoint("any", "http://nowhere"), wire.dialect, None)  # type: ignore[arg-type] # no I/O
    found = [adapter._understood(reader, stream, piece) for piece in pieces]
    whole = joined([Chunk(), *(chunk for chunk in found if chunk)])
    assert whole is not None
    return whole, reader.whole or reader.ended


@EVERY
def test_split_at_every_byte_the_answer_is_the_same(wire: Wire) -> None:
    stream = b"".join(wire.text(WORDS))
    expected = read(wire, [stream])
    assert expected[0].text == "".join(WORDS)
    assert expected[0].finish_reason is FinishReason.STOP
    assert expected[1]
    for place in range(len(stream) + 1):
        assert read(wire, [stream[:place], stream[place:]]) == expected


@EVERY
def test_byte_by_byte_the_answer_is_the_same(wire: Wire) -> None:
    stream = b"".join(wire.text(WORDS))
    assert read(wire, [stream[place : place + 1] for place in range(len(stream))]) == read(wire, [stream])


@EVERY
@given(words=st.lists(st.text(min_size=1).filter(str.isprintable), max_size=8), data=st.data())
@settings(max_examples=50, deadline=None)
def test_any_words_in_any_cuts_come_out(wire: Wire, words: list[str], data: st.DataObject) -> None:
    stream = b"".join(wire.text(words))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    places = [0, *cuts, len(stream)]
    pieces = [stream[start:end] for start, end in zip(places, places[1:], strict=False)]
    assert read(wire, pieces)[0].text == "".join(words)


@EVERY
def test_usage_is_what_the_provider_says(wire: Wire) -> None:
    assert read(wire, wire.text(WORDS))[0].usage == wire.usage


@pytest.mark.parametrize(
    ("reported", "timings", "usage"),
    [
        ({"prompt_tokens": 12, "completion_tokens": 5, "prompt_cache_hit_tokens": 8}, None, Usage(12, 5, 8)),
        ({"prompt_tokens": 12, "completion_tokens": 5}, {"cache_n": 11, "prompt_n": 1}, Usage(12, 5, 11)),
        (
            {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 47,
             "completion_tokens_details": {"reasoning_tokens": 30}},
            None, Usage(12, 35, reasoning_tokens=30),
        ),
        ({"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": None}, None, Usage(12, 5)),
    ],
    ids=["DeepSeek", "llama.cpp", "xAI", "no total"],
)  # fmt: skip
def test_usage_by_other_names_is_the_same_usage(reported: dict[str, Any], timings: object, usage: Usage) -> None:
    event = sse({"choices": [], "usage": reported, "timings": timings})
    assert read(WIRES["compatible"], [event])[0].usage == usage


def test_what_is_asked_is_known_before_the_answer_is_and_is_no_first_token() -> None:
    found, _ = read(WIRES["anthropic"], WIRES["anthropic"].text(["One."])[:2])
    assert (found.usage, found.says, found.token_count) == (Usage(12, 0, 4, estimated=True), False, 0)


@EVERY
def test_usage_that_is_missing_is_missing(wire: Wire) -> None:
    if wire.no_usage is None:
        pytest.skip("this format always has it, or never")
    found, whole = read(wire, wire.no_usage(WORDS))
    assert (found.text, found.usage, whole) == ("".join(WORDS), None, True)


@EVERY
def test_lines_may_end_in_two_ways(wire: Wire) -> None:
    stream = b"".join(wire.text(WORDS))
    assert read(wire, [stream.replace(b"\n", b"\r\n")]) == read(wire, [stream])


@EVERY
def test_a_chunk_of_a_megabyte_comes_out(wire: Wire) -> None:
    word = "x" * 1_000_000
    stream = b"".join(wire.text([word]))
    found, _ = read(wire, [stream[start : start + 65536] for start in range(0, len(stream), 65536)])
    assert found.text == word


@EVERY
def test_a_tool_call_in_pieces_is_put_together_at_every_split(wire: Wire) -> None:
    if wire.tools is None:
        pytest.skip("this format has no tools")
    stream = b"".join(wire.tools(['{"ci', 'ty": "Zü', 'rich"}']))
    for place in range(len(stream) + 1):
        found, whole = read(wire, [stream[:place], stream[place:]])
        calls = ToolCalls()
        calls.feed(found.tools)
        (call,) = calls.whole()
        assert (call.id, call.name, call.arguments) == ("call_1", "look_up", '{"city": "Zürich"}')
        assert (found.finish_reason, whole) == (FinishReason.TOOL_CALLS, True)


def test_calls_that_all_have_the_index_nought_stay_apart() -> None:
    asked = [{"index": 0, "id": f"call_{place}", "function": {"name": "look_up", "arguments": "{"}} for place in (1, 2)]
    rest = {"index": 0, "function": {"arguments": "}"}}
    events = [sse({"choices": [{"delta": {"tool_calls": [call]}}]}) for one in asked for call in (one, rest)]
    found, _ = read(WIRES["compatible"], events)
    calls = ToolCalls()
    calls.feed(found.tools)
    assert [(call.id, call.arguments) for call in calls.whole()] == [("call_1", "{}"), ("call_2", "{}")]


@EVERY
def test_thoughts_are_no_part_of_the_answer(wire: Wire) -> None:
    if wire.reasoning is None:
        pytest.skip("this format has no thoughts")
    found, whole = read(wire, wire.reasoning("Let me see."))
    assert (found.reasoning, found.text, whole) == ("Let me see.", "So.", True)


@EVERY
def test_a_filter_of_the_provider_is_a_reason_to_stop(wire: Wire) -> None:
    if not wire.filtered:
        pytest.skip("this format has no filter")
    found, whole = read(wire, wire.filtered)
    assert (found.text, found.finish_reason, whole) == ("Half", FinishReason.CONTENT_FILTER, True)


@EVERY
def test_an_error_in_the_middle_is_typed_and_quotes_nothing(wire: Wire) -> None:
    for event, reason in ((wire.error, "STREAM_BROKEN"), (wire.overloaded, "PROVIDER_OVERLOADED")):
        with pytest.raises(MeshError) as raised:
            read(wire, [event])
        assert raised.value.reason_name == reason
        assert "secret" not in str(raised.value.status())


@EVERY
def test_an_answer_cut_before_its_end_is_not_whole(wire: Wire) -> None:
    events = wire.text(WORDS)
    said = next(place for place, event in enumerate(events) if WORDS[-1].encode() in event)
    for end in range(said + 1):
        assert not read(wire, events[:end])[1]
