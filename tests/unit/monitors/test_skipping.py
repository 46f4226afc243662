"""Jumping over prose changes nothing but the time it takes."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from shared.monitors.detectors import detectors
from shared.monitors.pattern import read
from shared.monitors.rules import Action, Bundle, Rule, RuleType, Severity, Target
from shared.monitors.skipping import skipper
from shared.monitors.stream import CompiledRules, StreamMonitor, compile_rules

PERSONAL = Rule("pii", RuleType.PII, Severity.SEVERE, action=Action.REDACT)
VALUES = (
    "856-45-6789", "4111 1111 1111 1111", "o'neil@example.com", "+1 202-555-0143", "DE89 3704 0044 0532 0130 00",
    "192.168.1.77", "2001:db8::8a2e:370:7334", "(0221) 9988776", "\uff41@example.com", "856\u201145\u20116789", "x\u200b@y.example",
)  # fmt: skip
WORDS = ("the", "Ärger", "it's", "so-called", "end.", "漢字", "\n", "…", "(see", "below)", "deadbeef", "A", "I", "€9")
NEIGHBOURS = ("a\u200b", "\u00ad", "x_", "7th", "don", "'", ";", "\n#", "<", "co", "pro", "…and", "Über", "fo", "no", "-")  # fmt: skip
# What each pattern matches first, then what it nearly does, wants more for, or hides.
NEARLY = {
    r"\bproject x\b": ("project x", "project", "project xy", "Project x", "pro\u200bject x", "proj\u0435ct x", "a.project x", "_project x"),
    r"(?i)\bconfidential\b": ("confidential", "CONFIDENTIAL", "confident", "con", "co\u00adnfidential", "unconfidential"),
    r"\bno(?= )": ("no ", "no one", "not", "n", "no."),
    r"top.?secret": ("top-secret", "topsecret", "stop secret", "desktopsecret", "top", "to\u200cp secret"),
    r"'\s?or\s?'?1": ("'or'1", "' or 1", "it's or", "'", "' o"),
    r"\n#{1,3} ?system:": ("\n## system:", "\n#", "\n", "\n### systems"),
    r"<script[\s>/]": ("<script>", "<", "<scr", "script>", "<\u200bscript "),
    r"\b[A-Z]{2,3}-\d{2}\b": ("AB-12", "ABC-1", "AB", "XAB-12", "ab-12"),
    r"(?<![\w.])\.env\b": (".env", "x.env", " .en", "..env"),
    r"\bÜber\w{3}\b": ("Überall", "Über", "U\u0308ber", "überall", "Übermut1"),
    r"\ba\b \bb\b|cc": ("a b", "a", "a  b", "cc", "acc", "c\u200bc"),
}  # fmt: skip
PATTERNS = tuple(NEARLY)


def rules(*chosen: Rule) -> CompiledRules:
    return compile_rules([Bundle("b", "1.0.0", chosen)], Target.OUTPUT)


def rule(number: int, pattern: str) -> Rule:
    return Rule(f"r{number}", RuleType.REGEX, Severity.SEVERE, action=Action.REDACT, pattern=pattern)


def text(chance: random.Random, values: Sequence[str], words: Sequence[str]) -> str:
    said = [chance.choice(values if chance.random() < 0.12 else words) for _ in range(chance.randint(5, 120))]
    return "".join(word + chance.choice((" ", " ", " ", "", ", ", ". ")) for word in said)


def compared(chosen: tuple[Rule, ...], texts: Sequence[str], chance: random.Random) -> int:
    """How much was found, the same with jumping and without, whole and cut."""
    jumping, reading = rules(*chosen), rules(*chosen)
    assert jumping.claiming.automaton.skip is not None
    reading.claiming.automaton.skip = None
    found = 0
    for whole in texts:
        cuts = sorted(chance.sample(range(len(whole)), min(chance.randint(0, 5), len(whole))))
        pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
        expected = shown(reading, [whole])
        assert shown(jumping, pieces) == expected
        assert shown(jumping, [whole]) == expected
        found += len(expected[1])
    return found


def shown(compiled: CompiledRules, pieces: list[str]) -> tuple[str, list[tuple[int, int, str]]]:
    monitor = StreamMonitor(compiled, Target.OUTPUT)
    rulings = [monitor.feed(piece) for piece in pieces] + [monitor.finish()]
    found = [(one.start, one.end, one.kind) for ruling in rulings for one in ruling.verdicts]
    return "".join(ruling.text for ruling in rulings), found


def test_jumping_finds_what_reading_finds_however_the_text_is_cut() -> None:
    chance = random.Random(7)

    assert compared((PERSONAL,), [text(chance, VALUES, WORDS) for _ in range(300)], chance) > 1000


def test_jumping_over_prose_that_patterns_take_finds_what_reading_finds() -> None:
    """Sets of rules for words, phrases, signs and data together, on texts made of what they nearly match."""
    chance = random.Random(11)

    found = 0
    for _ in range(60):
        chosen = tuple(rule(number, pattern) for number, pattern in enumerate(chance.sample(PATTERNS, 5)))
        parts = [part for one in chosen for part in NEARLY[one.pattern]]
        texts = [text(chance, parts, (*WORDS, *NEIGHBOURS)) for _ in range(12)]
        found += compared((*chosen, PERSONAL)[chance.random() < 0.5 :], texts, chance)

    assert found > 1000


@pytest.mark.parametrize("pattern", sorted(PATTERNS))
def test_each_pattern_is_found_after_what_may_be_jumped_over(pattern: str) -> None:
    compiled = rules(rule(0, pattern))
    assert compiled.claiming.automaton.skip is not None

    for match in (NEARLY[pattern][0], NEARLY[pattern][0].replace("o", "\u043e")):
        whole = f"They had met on Thursday, and nobody said why; {match} was all there was, so they left again."
        assert len(shown(compiled, [whole])[1]) == 1


def test_what_is_jumped_over_ends_before_the_word_that_may_match() -> None:
    skip = skipper([detector.program for detector in detectors(PERSONAL)])
    assert skip is not None

    jumped = skip.match("Write to the office, jane@example.com")

    assert jumped is not None
    assert jumped.group() == "Write to the office, "


@pytest.mark.parametrize("pattern", [r"\w+ \w+ \d", r"\b\w+ing\b", r"[a-z]{8}", ".{3}@", "[a-z]"])
def test_patterns_that_take_whole_prose_are_read_character_by_character(pattern: str) -> None:
    assert skipper([read(pattern)]) is None


def test_patterns_of_capitals_leave_small_letters_to_be_jumped_over() -> None:
    skip = skipper([read(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"), read(r"\d{3}-\d{2}")])

    assert skip is not None
    assert skip.fullmatch("nothing here, nor there; ") is not None
    assert skip.fullmatch("but AKIA ") is None


def test_words_that_begin_like_a_match_are_read() -> None:
    skip = skipper([read(r"\bproject x\b"), read(r"\bconfidential\b"), read(r"[\w.]+@\w+\.com"), read("top.?secret")])
    assert skip is not None

    for whole, jumped in (
        ("a price, then a project ", "a price, then a "),
        ("an apple.project x", "an "),
        ("the desk and the desktop ", "the desk and the "),
        ("to be settled, co", "to be settled, "),
    ):
        found = skip.match(whole)
        assert found is not None
        assert found.group() == jumped, whole
