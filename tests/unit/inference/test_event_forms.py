"""Events of one form are read at once: what they say is what reading each of them says."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.inference.providers.contract import Chunk
from services.inference.providers.http import Endpoint, HttpProvider, joined
from services.inference.providers.openai_chat import ChatDialect, ChatReader, Form
from services.inference.providers.sse import EventStream, ServerEvent

FINISH = {"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


def written(text: str, *, spaced: bool, ascii_only: bool, **more: Any) -> bytes:
    data = {"id": "c", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}], **more}
    separators = None if spaced else (",", ":")
    return b"data: " + json.dumps(data, separators=separators, ensure_ascii=ascii_only).encode() + b"\n\n"


def one_by_one(stream: bytes) -> Chunk | None:
    reader = ChatReader("p")
    return joined([chunk for event in EventStream().feed(stream) if (chunk := reader.read(event))])


def together(pieces: list[bytes]) -> Chunk | None:
    """As the provider reads them: what is alike at once, the rest one by one."""
    provider = HttpProvider(Endpoint("p", "http://nowhere"), ChatDialect(), None)  # type: ignore[arg-type] # reads nothing
    reader, events = ChatReader("p"), EventStream()
    return joined([chunk for piece in pieces if (chunk := provider._understood(reader, events, piece))])


@given(
    texts=st.lists(st.text(max_size=6), min_size=1, max_size=12),
    spaced=st.booleans(),
    ascii_only=st.booleans(),
    data=st.data(),
)
def test_any_cut_of_any_texts_says_the_same(
    texts: list[str], *, spaced: bool, ascii_only: bool, data: st.DataObject
) -> None:
    texts = [text.encode(errors="replace").decode() for text in texts]
    stream = b"".join(written(text, spaced=spaced, ascii_only=ascii_only) for text in texts)
    stream += b"data: " + json.dumps(FINISH).encode() + b"\n\ndata: [DONE]\n\n"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    places = [0, *cuts, len(stream)]
    pieces = [stream[start:end] for start, end in zip(places, places[1:], strict=False)]
    assert together(pieces) == one_by_one(stream)


FIRST = written("a", spaced=False, ascii_only=False)
FORM = Form.of(ServerEvent("", FIRST[6:-2]), Chunk("a", 1))


def test_a_form_reads_many_and_counts_those_that_say_something() -> None:
    many = b"".join(written(text, spaced=False, ascii_only=False) for text in ("The ", "", 'ä "ü"\n'))
    assert FORM.read(many, 0) == (Chunk('The ä "ü"\n', 2), len(many))


@pytest.mark.parametrize(
    "other",
    [
        written("a", spaced=False, ascii_only=False, usage={"prompt_tokens": 3}),
        written("ends in \\", spaced=False, ascii_only=False),
        written("a", spaced=True, ascii_only=False),
        FIRST.replace(b'"a"', b'"a","role":"assistant"'),
        b"data: [DONE]\n\n",
        b": ping\n\n",
    ],
)
def test_what_is_of_another_form_is_left_to_be_read_by_itself(other: bytes) -> None:
    assert FORM.read(other, 0) == (None, 0)
    assert FORM.read(FIRST + FIRST + other + FIRST, 0) == (Chunk("aa", 2), 2 * len(FIRST))


def test_an_event_that_says_more_than_text_has_no_form() -> None:
    assert not Form.of(ServerEvent("", FIRST[6:-2]), Chunk("a", 1, reasoning="b")).before
    assert not Form.of(ServerEvent("", FIRST[6:-2] * 2), Chunk("a", 1)).before
