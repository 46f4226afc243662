"""Events come out whole, whatever way the bytes were cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.inference.providers.sse import EventStream, EventTooLong, ServerEvent


@given(
    texts=st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs", "Z", "C"]), min_size=1)),
    ending=st.sampled_from(["\n", "\r\n"]),
    data=st.data(),
)
def test_any_cut_gives_the_same_lines(texts: list[str], ending: str, data: st.DataObject) -> None:
    stream = "".join(f"data: {text}{ending}{ending}" for text in texts).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    places = [0, *cuts, len(stream)]
    lines = EventStream()
    found = [event for start, end in zip(places, places[1:], strict=False) for event in lines.feed(stream[start:end])]
    assert [event.data.decode() for event in found] == texts


def test_comments_and_other_fields_are_passed_over() -> None:
    assert EventStream().feed(b": ping\nevent: x\nid: 7\ndata:{}\nretry: 3\n\n") == [ServerEvent("x", b"{}")]


def test_an_event_that_has_not_ended_waits() -> None:
    stream = EventStream()
    assert stream.feed(b"data: ha") == []
    assert stream.feed(b"lf\n") == []
    assert stream.feed(b"\n") == [ServerEvent("", b"half")]


def test_the_data_lines_of_one_event_are_joined() -> None:
    assert EventStream().feed(b"data: a\ndata: b\n\n") == [ServerEvent("", b"a\nb")]


def test_a_name_without_data_is_no_event() -> None:
    assert EventStream().feed(b"event: ping\n\ndata: 1\n\n") == [ServerEvent("", b"1")]


def test_an_endless_line_is_not_kept() -> None:
    stream = EventStream()
    with pytest.raises(EventTooLong):
        for _ in range(10):
            stream.feed(b"x" * 1_000_000)


def test_an_endless_event_is_not_kept() -> None:
    stream = EventStream()
    with pytest.raises(EventTooLong):
        for _ in range(10):
            stream.feed(b"data: " + b"x" * 1_000_000 + b"\n")
