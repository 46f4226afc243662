"""Rules whose matches overlap: one that stops wins, what two redact goes whole, however the text is cut."""

from __future__ import annotations

import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shared.monitors.rules import Action, Bundle, Rule, RuleType, Severity, Target, Verdict
from shared.monitors.stream import HOLD_LIMIT, CompiledRules, Ruling, StreamMonitor, compile_rules, judge

PATTERNS = (
    r"ab+c", r"a.{2}b", r"b{1,4}", r"c.{0,3}a", r"(?<=b)ca", r"a(?:b|bc)?", r"\bab\b", r"[^a ]1{2,4}", r"1+ ?1", r"a(?!b)", r"x",
    r"a.{2}b|c", r"(?<=x)ab", r"ca|ab*c", r"(?<![a-b])c\b", r"^ab|b\Z", r"(?i:AB)c*", r"\Bb+", r"(?:ab|ba)+",
)  # fmt: skip
FREE = st.text(alphabet="abcx1 ", max_size=24)


def compiled(redacting: list[str], stopping: list[str]) -> CompiledRules:
    rules = [
        Rule(f"{action.value}{n}", RuleType.REGEX, Severity.SEVERE, action=action, pattern=pattern)
        for action, patterns in ((Action.REDACT, redacting), (Action.BLOCK, stopping))
        for n, pattern in enumerate(patterns)
    ]
    return compile_rules([Bundle("test", "1.0.0", tuple(rules))], Target.OUTPUT)


def streamed(rules: CompiledRules, pieces: list[str]) -> Ruling:
    monitor, shown = StreamMonitor(rules, Target.OUTPUT), ""
    verdicts: tuple[Verdict, ...] = ()
    for piece in pieces:
        ruling = monitor.feed(piece)
        shown, verdicts = shown + ruling.text, verdicts + ruling.verdicts
        if ruling.blocked:
            return Ruling(shown, verdicts, True)
    last = monitor.finish()
    return Ruling(shown + last.text, verdicts + last.verdicts, last.blocked)


def longest(pattern: str, text: str, at: int) -> int | None:
    """Where the pattern's longest match that begins here ends, by another engine."""
    found = regex.compile(pattern, flags=regex.POSIX).match(text, at)
    return found.end() if found else None


def judged_whole(redacting: list[str], stopping: list[str], text: str) -> tuple[str, bool]:
    """What must come out: the leftmost and longest match has its text, and that of others which begin within it; where
    one that stops begins there, the text ends before.
    """
    shown, at = "", 0
    while at < len(text):
        ends = [(-(longest(one, text, at) or 0), n) for n, one in enumerate(redacting)]
        end, rule = min(ends)
        reach = range(at, -end if end else at + 1)
        for start in range(at, len(text)):
            if start not in reach:
                break
            if any(longest(one, text, start) for one in stopping):
                return shown, True
            if end:
                others = (longest(one, text, start) or 0 for n, one in enumerate(redacting) if n != rule)
                reach = range(at, max(reach.stop, *others, 0))
        shown += f"[REDACTED:redact{rule}]" if end else text[at]
        at = reach.stop
    return shown, False


@settings(max_examples=600, deadline=None)
@example(redacting=["ab+c"], stopping=["c.{0,3}a"], text="x abbcx1a", cuts=[])
@example(redacting=["a.{2}b"], stopping=["1+ ?1"], text="a11b 1 1", cuts=[2, 4, 5])
@given(
    redacting=st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=3),
    stopping=st.lists(st.sampled_from(PATTERNS), max_size=2),
    text=FREE,
    cuts=st.lists(st.integers(0, 24), max_size=8),
)
def test_a_rule_that_stops_wins_and_redactions_add_up_whatever_overlaps_and_however_it_is_cut(
    redacting: list[str], stopping: list[str], text: str, cuts: list[int]
) -> None:
    rules = compiled(redacting, stopping)
    places = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    pieces = [text[a:b] for a, b in zip(places, places[1:], strict=False)]

    whole, cut = judge(rules, Target.OUTPUT, text), streamed(rules, pieces)

    assert (whole.text, whole.blocked) == judged_whole(redacting, stopping, text)
    assert cut == whole
    assert streamed(rules, list(text)) == whole


@pytest.mark.parametrize("size", [1, 3, 100])
@pytest.mark.parametrize(
    ("redacting", "stopping", "text", "shown"),
    [
        (r"customer \w+ \w+", r"project x", "the customer ada project x is", "the "),
        (r"price \d+", r"price 500", "the price 500 holds", "the "),
        (r"price \d+", r"ice 5", "the price 500 holds", "the "),
        (r"key=\w+", r"\w+ of spades", "my key=ace of spades", "my "),
    ],
)
def test_a_redaction_that_begins_earlier_does_not_hide_what_stops(
    size: int, redacting: str, stopping: str, text: str, shown: str
) -> None:
    pieces = [text[at : at + size] for at in range(0, len(text), size)]

    ruling = streamed(compiled([redacting], [stopping]), pieces)

    assert (ruling.text, ruling.blocked) == (shown, True)
    assert [one.rule.name for one in ruling.verdicts] == ["block0"]


@pytest.mark.parametrize("size", [1, 3, 100])
def test_what_two_rules_redact_in_part_together_goes_whole(size: int) -> None:
    text = "the customer ada 123-45-6789 of Bonn"
    rules = compiled([r"customer \w+ \w+", r"\d{3}-\d{2}-\d{4}"], [])

    ruling = streamed(rules, [text[at : at + size] for at in range(0, len(text), size)])

    assert ruling.text == "the [REDACTED:redact0] of Bonn"
    assert [(one.rule.name, one.start, one.end) for one in ruling.verdicts] == [("redact0", 4, 20), ("redact1", 17, 28)]


def test_a_redaction_waits_for_what_may_still_stop_and_no_longer() -> None:
    monitor = StreamMonitor(compiled([r"key=\w+"], ["ace of spades"]), Target.OUTPUT)

    assert [monitor.feed(piece).text for piece in ("my key=ace", " of", " clubs")] == [
        "my ",
        "",
        "[REDACTED:redact0] of clubs",
    ]
    assert monitor.held == 0


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_waiting_for_what_may_stop_is_bounded_too(size: int) -> None:
    rules = compiled(["key"], ["y[^z]*z"])
    text = "a key" + "b" * (HOLD_LIMIT + 1) + "z"
    pieces = [text[at : at + size] for at in range(0, len(text), size)]

    assert (streamed(rules, pieces).text, streamed(rules, pieces).blocked) == ("a ", True)
    fits = "a key" + "b" * (HOLD_LIMIT - 10) + "."
    assert streamed(rules, [fits]).text == fits.replace("key", "[REDACTED:redact0]")


def test_an_excused_rule_that_would_stop_lets_the_redaction_stand() -> None:
    monitor = StreamMonitor(compiled([r"price \d+"], ["ice 5"]), Target.OUTPUT, overridden=["block0"])

    ruling = monitor.finish("the price 500 holds")

    assert (ruling.text, ruling.blocked) == ("the [REDACTED:redact0] holds", False)
    assert {(one.rule.name, one.action) for one in ruling.verdicts} == {
        ("redact0", Action.REDACT),
        ("block0", Action.ALLOW),
    }
