"""Text under rules, however it is cut."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.monitors.rules import Action, Bundle, Rule, RuleType, Severity, Target
from shared.monitors.stream import HOLD_LIMIT, PatternInvalid, StreamMonitor, compile_rules, judge, statuses

NO_PII = Rule("no_pii", RuleType.REGEX, Severity.SEVERE, pattern=r"(\b\d{3}-\d{2}-\d{4}\b)")


def rules_of(*rules: Rule, target: Target = Target.OUTPUT):
    return compile_rules([Bundle("test", "1.0.0", rules)], target)


def regex_rule(pattern: str, **more) -> Rule:
    return Rule("rule", RuleType.REGEX, Severity.SEVERE, pattern=pattern, **more)


def stream(rules, pieces: list[str]) -> str:
    monitor = StreamMonitor(rules, Target.OUTPUT)
    shown = []
    for piece in pieces:
        ruling = monitor.feed(piece)
        shown.append(ruling.text)
        if ruling.blocked:
            return "".join(shown)
    return "".join(shown) + monitor.finish().text


def test_a_number_cut_into_single_characters_never_shows() -> None:
    assert stream(rules_of(NO_PII), list("SSN 123-45-6789 ok")) == "SSN [REDACTED:no_pii] ok"


def test_text_that_cannot_match_is_released_at_once() -> None:
    monitor = StreamMonitor(rules_of(NO_PII), Target.OUTPUT)
    assert monitor.feed("hello world ").text == "hello world "


def test_only_what_may_still_match_is_held() -> None:
    monitor = StreamMonitor(rules_of(NO_PII), Target.OUTPUT)
    assert monitor.feed("call 123-4").text == "call "
    assert monitor.feed("x").text == "123-4x"


def test_a_match_that_may_grow_is_held_until_it_cannot() -> None:
    rules = rules_of(regex_rule(r"ab(?:.{0,3}c)?"))
    assert stream(rules, ["ab", "x", "xc", "!"]) == stream(rules, ["abxxc!"]) == "[REDACTED:rule]!"


def test_a_later_sure_match_waits_for_an_earlier_possible_one() -> None:
    rules = rules_of(regex_rule(r"a.{4}b|c"))
    assert stream(rules, ["axc", "xxb"]) == judge(rules, Target.OUTPUT, "axcxxb").text == "[REDACTED:rule]"


def test_a_blocking_rule_ends_the_stream_before_the_match() -> None:
    rules = rules_of(regex_rule("secret", action=Action.BLOCK))
    ruling = judge(rules, Target.OUTPUT, "this is secret text")
    assert (ruling.text, ruling.blocked) == ("this is ", True)


def test_a_verdict_names_rule_bundle_and_place() -> None:
    (verdict,) = judge(rules_of(NO_PII), Target.OUTPUT, "id 123-45-6789.").verdicts
    assert (verdict.rule.name, verdict.bundle, verdict.action) == ("no_pii", "test@1.0.0", Action.REDACT)
    assert (verdict.start, verdict.end) == (3, 14)


def test_a_warning_lets_the_text_pass() -> None:
    rules = rules_of(Rule("tone", RuleType.KEYWORD, Severity.MINOR, keywords=("darn",), case_insensitive=True))
    ruling = judge(rules, Target.OUTPUT, "Darn it")
    assert ruling.text == "Darn it"
    assert [verdict.action for verdict in ruling.verdicts] == [Action.WARN]


def test_a_severe_rule_blocks_a_prompt() -> None:
    ruling = judge(rules_of(NO_PII, target=Target.PROMPT), Target.PROMPT, "mine is 123-45-6789")
    assert ruling.blocked


def test_holding_is_bounded_and_fails_closed() -> None:
    monitor = StreamMonitor(rules_of(regex_rule(r"a[^z]*z")), Target.OUTPUT)
    ruling = monitor.feed("a" * (HOLD_LIMIT + 1))
    assert (ruling.text, ruling.blocked) == ("", True)


def test_a_broken_pattern_is_refused() -> None:
    with pytest.raises(PatternInvalid):
        rules_of(regex_rule("(unclosed"))


def test_every_rule_tells_its_outcome_and_its_time() -> None:
    monitor = StreamMonitor(rules_of(NO_PII), Target.OUTPUT)
    monitor.feed("123-45-6789 ")
    ((name, status, seconds),) = statuses(monitor)
    assert (name, status) == ("no_pii", "redact")
    assert seconds > 0


PATTERNS = [r"\b\d{3}-\d{2}-\d{4}\b", r"ab+c", r"a.{2}b|c", r"(?<=x)ab", r"a(?:b|bc)?", r"ca|ab*c"]


@settings(max_examples=300, deadline=None)
@given(
    chosen=st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=3),
    text=st.text(alphabet="abcx1-3 ", max_size=24),
    cuts=st.lists(st.integers(0, 24), max_size=6),
)
def test_the_output_is_the_same_however_the_text_is_cut(chosen: list[str], text: str, cuts: list[int]) -> None:
    numbered = [Rule(f"r{n}", RuleType.REGEX, Severity.SEVERE, pattern=p) for n, p in enumerate(chosen)]
    rules = rules_of(*numbered)
    places = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    pieces = [text[a:b] for a, b in zip(places, places[1:], strict=False)]
    one_shot = StreamMonitor(rules, Target.OUTPUT)
    one_shot._held = text
    assert stream(rules, pieces) == one_shot.finish().text
