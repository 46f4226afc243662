"""Expressions in CEL: a call of a function that there is not is refused before anything is judged by it."""

from __future__ import annotations

import cel
import pytest

from shared.expressions import FUNCTIONS, compiled

_USES = (
    '{}("a")', '"a".{}("b")', "{}([1])", "{}(1)", '{}("1s")', '{}("2020-01-01T00:00:00Z")', 'duration("1s").{}()',
    'timestamp("2020-01-01T00:00:00Z").{}()', "optional.{}(1)", "optional.{}()", "optional.of(1).{}()", "optional.of(1).{}(2)",
    "optional.of(1).{}(optional.of(2))",
)  # fmt: skip


def _computes(expression: str) -> bool:
    try:
        cel.compile(expression).execute({})
    except (ValueError, TypeError, RuntimeError):
        return False
    return True


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_each_function_that_is_named_as_known_is_there(name: str) -> None:
    assert any(_computes(use.format(name)) for use in _USES)


@pytest.mark.parametrize(
    "expression", ["siz(args.x) > 1", 'args.x.startWith("a")', "args.x.lowerAscii() == 'a' || true"]
)
def test_an_unknown_function_is_refused_with_those_that_there_are(expression: str) -> None:
    with pytest.raises(ValueError, match=r"there is no function (siz|startWith|lowerAscii); there are .*startsWith"):
        compiled(expression)


def test_operators_and_macros_are_no_functions() -> None:
    expression = (
        "has(a.b) ? [1, 2].map(x, -x + 1).exists(x, x in a.b && !(x >= 2) || a['b'][0] != x % 2) : a.c / 2 * 1 == 1"
    )
    assert compiled(expression).execute({"a": {"c": 2}}) is True
