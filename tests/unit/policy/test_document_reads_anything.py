"""Whatever is uploaded, a bundle comes of it or a fault with a line: never another error."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.policy.document import Document, read
from services.policy.errors import BundleInvalid

PLACES = (
    "{value}",
    "rules:\n  - name: a\n    type: regex\n    severity: minor\n    pattern: {value}\n",
    "rules:\n  - {{name: a, type: keyword, severity: minor, keywords: [{value}]}}\nmode: {value}\n",
    "rules:\n  - {{name: a, type: custom, severity: minor, params: {{plugin: names, k: {value}}}}}\n",
    "rules:\n  - {{name: a, type: resource, severity: minor, params: {{resource: tokens, limit: {value}}}}}\n",
)
FAULTY = {
    "no such day": "2024-99-99", "no such hour": "2001-02-30 25:61:61", "digits missing": "0b_", "far too long": "9" * 5000,
    "number named": "!!int x", "sign alone": "!!int '-'", "float named": "!!float y", "bool named": "!!bool z",
    "date named": "!!timestamp x", "set": "!!set {a}", "bytes": "!!binary '*'", "pairs": "!!pairs [a]", "foreign tag": "!foo x",
    "list as key": "{[a]: 1}", "merge": "{<<: 1}", "equals": "=", "two kinds of keys": "{1: 2, a: 3}", "infinite": ".inf",
    "not a number": ".nan", "too large": "1e400", "alias": "*a", "anchor": "&a b",
}  # fmt: skip


def outcome(text: str) -> Document | BundleInvalid:
    """What is said of it; a document must have its digest, and what is at fault its line."""
    try:
        document = read(text)
    except BundleInvalid as error:
        return error
    assert document.digest
    return document


def assert_told(said: Document | BundleInvalid) -> None:
    assert isinstance(said, Document) or int(said.facts["line"]) >= 1


@pytest.mark.parametrize("value", FAULTY.values(), ids=FAULTY)
@pytest.mark.parametrize("place", PLACES)
def test_a_value_that_yaml_knows_and_json_does_not_is_read_as_text_or_refused_by_line(place: str, value: str) -> None:
    assert_told(outcome(place.format(value=value)))


@settings(max_examples=150, deadline=None)
@given(
    place=st.sampled_from(PLACES), value=st.text("!&*?{}[]:,-#|>@`%'\"\\ \n\t019axe_.<=~", max_size=30) | st.text(max_size=40)
)  # fmt: skip
@example(place="rules:\n  - name: a\n    type: regex\n    severity: minor\n    pattern: {value}\n", value="0[[]")
def test_any_text_in_any_place_is_a_bundle_or_a_fault(place: str, value: str) -> None:
    assert_told(outcome(place.format(value=value)))


def test_what_looks_like_a_date_is_a_text() -> None:
    document = outcome("rules:\n  - {name: a, type: keyword, severity: minor, keywords: [2024-02-30, =, <<]}\n")
    assert isinstance(document, Document)
    assert document.rules[0].keywords == ("2024-02-30", "=", "<<")


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (".inf", "a number is finite"), ("!!int x", "tags are not allowed"), ("0b_", "this is no number"),
        ("9" * 5000, "this is no number"), (str(2**53 + 1), "at most 2^53"), ("{[a]: 1}", "a key is a text"),
    ],
    ids=["infinite", "tag", "no digits", "too many digits", "too large", "key"],
)  # fmt: skip
def test_the_fault_is_told_with_its_line(value: str, problem: str) -> None:
    error = outcome(f"rules:\n  - name: a\n    type: custom\n    severity: minor\n    params:\n      limit: {value}\n")
    assert isinstance(error, BundleInvalid)
    assert problem in str(error)
    assert error.facts["line"] == "6"


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53) | st.booleans() | st.none())
def test_numbers_of_json_stay_what_they_are(value: float | bool | None) -> None:
    rule = {"name": "a", "type": "custom", "severity": "minor", "params": {"plugin": "names", "k": value}}
    document = outcome(json.dumps({"rules": [rule]}))
    assert isinstance(document, Document)
    assert document.rules[0].params["k"] == value
