"""Schemas of callers: they reach nothing, and checking them costs a bounded amount."""

from __future__ import annotations

import time
from typing import Any

import pytest

from services.tools import schemas
from shared.errors import InvalidArgument


def doubling(levels: int) -> dict[str, Any]:
    """A schema whose check doubles at each level."""
    parts: dict[str, Any] = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(levels)}
    return {"$defs": {**parts, f"d{levels}": {}}, "$ref": "#/$defs/d0"}


BAD = {
    "a reference to the network": ({"$ref": "http://169.254.169.254/latest"}, "may refer to itself only"),
    "a reference to a file": ({"properties": {"a": {"$ref": "file:///etc/passwd"}}}, "may refer to itself only"),
    "a reference inside a list": ({"allOf": [{"$dynamicRef": "other.json#x"}]}, "may refer to itself only"),
    "a reference to nothing": ({"properties": {"a": {"$ref": "#/nope"}}}, "is not a JSON Schema"),
    "a type that is none": ({"type": "nope"}, "is not a JSON Schema"),
    "a pattern that is none": ({"properties": {"a": {"pattern": "("}}}, "is not a JSON Schema"),
    "a circle": ({"$ref": "#"}, "too much work"),
    "an explosion": (doubling(40), "too much work"),
}


@pytest.mark.parametrize(("schema", "message"), BAD.values(), ids=BAD.keys())
def test_a_bad_schema_is_refused_and_its_field_named(schema: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message) as raised:
        schemas.check(schema, "tool.input_schema")
    assert raised.value.field == "tool.input_schema"


def test_a_schema_may_refer_to_its_own_parts() -> None:
    schema = {
        "$defs": {"tree": {"type": "object", "properties": {"left": {"$ref": "#/$defs/tree"}}}},
        "properties": {"root": {"$ref": "#/$defs/tree"}},
    }
    schemas.check(schema, "tool.input_schema")
    assert schemas.problem(schema, {"root": {"left": {"left": {}}}}) is None
    assert schemas.problem(schema, {"root": {"left": 1}}) == ("root.left", "1 is not of type 'object'")


HARMFUL = {
    "a pattern that backtracks": (
        {"properties": {"a": {"pattern": r"^(\w+\s?)*$"}}},
        {"a": "a" * 400 + "!"},
    ),
    "names that backtrack": ({"patternProperties": {r"^(\w+\s?)*$": {"type": "null"}}}, {"a" * 400 + "!": 1}),
    "a circle in a property": (
        {"$defs": {"x": {"$ref": "#/$defs/x"}}, "properties": {"a": {"$ref": "#/$defs/x"}}},
        {"a": 1},
    ),
    "an explosion": (doubling(40), {}),
    "many unique items": ({"properties": {"a": {"uniqueItems": True}}}, {"a": [{}] * 50_000}),
}


@pytest.mark.parametrize(("schema", "value"), HARMFUL.values(), ids=HARMFUL.keys())
def test_a_check_that_would_take_for_ever_ends_soon(schema: dict[str, Any], value: dict[str, Any]) -> None:
    began = time.monotonic()
    schemas.problem(schema, value)
    assert time.monotonic() - began < 3


def test_what_cannot_be_told_does_not_fit() -> None:
    assert schemas.problem(doubling(40), {}) == ("", "checking this against the schema takes too much work")


def test_the_place_of_a_problem_is_named() -> None:
    schema = {"properties": {"items": {"items": {"type": "integer"}}}}
    assert schemas.problem(schema, {"items": [1, "2"]}) == ("items.1", "'2' is not of type 'integer'")


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"properties": {"a": {"pattern": "^b+$"}}}, {"a": "c"}),
        ({"patternProperties": {"^n_": {"type": "integer"}}}, {"n_a": "1"}),
        ({"properties": {"a": {"uniqueItems": True}}}, {"a": [1, 1]}),
        ({"additionalProperties": False, "properties": {}}, {"extra": 1}),
    ],
)
def test_the_keywords_we_bound_still_mean_what_they_mean(schema: dict[str, Any], value: dict[str, Any]) -> None:
    assert schemas.problem(schema, value) is not None
    assert schemas.problem(schema, {}) is None
