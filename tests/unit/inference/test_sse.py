"""Data lines come out whole, whatever way the bytes were cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.inference.providers.sse import DataLines


@given(
    texts=st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs", "Z", "C"]), min_size=1)),
    ending=st.sampled_from(["\n", "\r\n"]),
    data=st.data(),
)
def test_any_cut_gives_the_same_lines(texts: list[str], ending: str, data: st.DataObject) -> None:
    stream = "".join(f"data: {text}{ending}{ending}" for text in texts).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    places = [0, *cuts, len(stream)]
    lines = DataLines()
    found = [line for start, end in zip(places, places[1:], strict=False) for line in lines.feed(stream[start:end])]
    assert [line.decode() for line in found] == texts


def test_comments_and_other_fields_are_passed_over() -> None:
    assert DataLines().feed(b": ping\nevent: x\nid: 7\ndata:{}\nretry: 3\n") == [b"{}"]


def test_a_line_that_has_not_ended_waits() -> None:
    lines = DataLines()
    assert lines.feed(b"data: ha") == []
    assert lines.feed(b"lf\n") == [b"half"]
