"""Which patterns are refused, and which only look as if they should be."""

from __future__ import annotations

import pytest

from shared.monitors import credentials, injection, pii
from shared.monitors.ambiguity import refuse_ambiguous
from shared.monitors.pattern import PatternInvalid, read


@pytest.mark.parametrize(
    "pattern",
    [r"(a+)+b", r"(a*)*b", r"(a|a)*b", r"(a|aa)+b", r"([a-z]+)*\d", r"(\w+\s?)+x", r"(x+x+)+y", r"(.*)*z",
     r"^(([a-z])+.)+[A-Z]([a-z])+$", r"(\d+-?)+x"],
)  # fmt: skip
def test_a_catastrophic_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(PatternInvalid, match="catastrophic"):
        refuse_ambiguous(read(pattern))


@pytest.mark.parametrize(
    "pattern",
    [r"(?:\w+\s)+x", r"(?:ab|ba)+c", r"a.*b.*c", r"(?:\d[ -]?){12,18}\d", r"(?:[a-z0-9]+\.)+com", r"\s*\s*x", r"(?:a?){40}b",
     r"(?:a?b?){30}c", "a?" * 30 + "b"],
)  # fmt: skip
def test_a_pattern_with_one_way_for_each_text_is_not(pattern: str) -> None:
    refuse_ambiguous(read(pattern))


def test_none_of_our_own_patterns_would_be_refused() -> None:
    kinds = [*pii.DETECTORS.values(), *credentials.DETECTORS.values()]
    for pattern in (*(one for kind in kinds for one in kind.patterns), *(one for _, one in injection.ATTACKS)):
        refuse_ambiguous(read(pattern))


@pytest.mark.parametrize(
    ("kind", "valid", "invalid"),
    [
        ("card", "4111 1111 1111 1111", "4111 1111 1111 1112"), ("iban", "DE89 3704 0044 0532 0130 00", "DE88 3704 0044 0532 0130 00"),
        ("ssn", "123-45-6789", "666-45-6789"), ("ip", "192.168.1.1", "192.168.1.256"), ("ip", "2001:db8::1", "2001:db8::1::2"),
        ("phone", "+49 30 1234567", "+49 30"),
    ],
)  # fmt: skip
def test_a_check_tells_a_number_of_a_kind_from_any_other(kind: str, valid: str, invalid: str) -> None:
    check = pii.DETECTORS[kind].check
    assert check is not None
    assert check(valid)
    assert not check(invalid)
