"""Jumping over prose changes nothing but the time it takes."""

from __future__ import annotations

import random
import string

import pytest

from shared.monitors.detectors import detectors
from shared.monitors.pattern import read
from shared.monitors.rules import Action, Bundle, Rule, RuleType, Severity, Target
from shared.monitors.skipping import skipper
from shared.monitors.stream import CompiledRules, StreamMonitor, compile_rules

PERSONAL = Rule("pii", RuleType.PII, Severity.SEVERE, action=Action.REDACT)
NEVER = Rule("never", RuleType.KEYWORD, Severity.SEVERE, action=Action.REDACT, keywords=("zzzqqqzzz",))
VALUES = (
    "856-45-6789", "4111 1111 1111 1111", "o'neil@example.com", "+1 202-555-0143", "DE89 3704 0044 0532 0130 00",
    "192.168.1.77", "2001:db8::8a2e:370:7334", "(0221) 9988776", "\uff41@example.com", "856\u201145\u20116789", "x\u200b@y.example",
)  # fmt: skip
WORDS = ("the", "Ärger", "it's", "so-called", "end.", "漢字", "\n", "…", "(see", "below)", "deadbeef", "A", "I", "€9")


def rules(*chosen: Rule) -> CompiledRules:
    return compile_rules([Bundle("b", "1.0.0", chosen)], Target.OUTPUT)


def text(chance: random.Random) -> str:
    words = [chance.choice(VALUES if chance.random() < 0.12 else WORDS) for _ in range(chance.randint(5, 120))]
    return "".join(word + chance.choice((" ", " ", " ", "", ", ", ". ")) for word in words)


def shown(compiled: CompiledRules, whole: str, pieces: list[str]) -> tuple[str, list[tuple[int, int, str]]]:
    monitor = StreamMonitor(compiled, Target.OUTPUT)
    rulings = [monitor.feed(piece) for piece in pieces] + [monitor.finish()]
    found = [(one.start, one.end, one.kind) for ruling in rulings for one in ruling.verdicts]
    return "".join(ruling.text for ruling in rulings), found


def test_jumping_finds_what_reading_finds_however_the_text_is_cut() -> None:
    jumping, reading = rules(PERSONAL), rules(PERSONAL, NEVER)
    assert jumping.claiming.automaton.skip is not None
    assert reading.claiming.automaton.skip is None

    chance = random.Random(7)
    found = 0
    for _ in range(300):
        whole = text(chance)
        cuts = sorted(chance.sample(range(len(whole)), min(chance.randint(0, 5), len(whole))))
        pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
        expected = shown(reading, whole, [whole])
        assert shown(jumping, whole, pieces) == expected
        assert shown(jumping, whole, [whole]) == expected
        found += len(expected[1])

    assert found > 1000


def test_what_is_jumped_over_ends_before_the_word_that_may_match() -> None:
    skip = skipper([detector.program for detector in detectors(PERSONAL)])
    assert skip is not None

    jumped = skip.match("Write to the office, jane@example.com")

    assert jumped is not None
    assert jumped.group() == "Write to the office, "


@pytest.mark.parametrize("pattern", ["plain", r"\w+ \w+ \d", string.ascii_lowercase, ".{3}@"])
def test_patterns_that_take_whole_prose_are_read_character_by_character(pattern: str) -> None:
    assert skipper([read(pattern)]) is None


def test_patterns_of_capitals_leave_small_letters_to_be_jumped_over() -> None:
    skip = skipper([read(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"), read(r"\d{3}-\d{2}")])

    assert skip is not None
    assert skip.fullmatch("nothing here, nor there; ") is not None
    assert skip.fullmatch("but AKIA ") is None
