"""What a tool says, made safe to show."""

from __future__ import annotations

import pytest

from services.tools import sanitise


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("plain\n\ttext\r\n", "plain\n\ttext\r\n"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07x", "x"),
        ("a\x00b\x08c\x7f", "abc"),
        ("größer ✓", "größer ✓"),
    ],
    ids=["plain", "colour", "title", "control", "letters"],
)
def test_printed_text_holds_no_control_sequences(said: str, shown: str) -> None:
    assert sanitise.text(said) == shown


def test_secrets_are_masked_wherever_they_are() -> None:
    found = sanitise.data({"s3cret": ["the s3cret is", {"x": "s3cret"}], "n": 1}, ["s3cret"])
    assert found == {"[secret]": ["the [secret] is", {"x": "[secret]"}], "n": 1}


def test_a_result_is_otherwise_left_as_it_is() -> None:
    assert sanitise.data({"x": "\x1b[31m\x00"}, []) == {"x": "\x1b[31m\x00"}
