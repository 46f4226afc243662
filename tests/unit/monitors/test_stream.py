"""Text under rules, however it is cut."""

# ruff: noqa: RUF001 - look-alikes are what is tested
from __future__ import annotations

import pytest
import regex
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


def test_a_rule_that_stops_is_not_hidden_by_one_that_redacts_the_same_characters() -> None:
    redacts, stops = regex_rule(r"price \d+", action=Action.REDACT), regex_rule("price 500", action=Action.BLOCK)
    assert judge(rules_of(redacts, stops), Target.OUTPUT, "the price 500 holds").blocked
    assert judge(rules_of(redacts, stops), Target.OUTPUT, "the price 50 holds").text == "the [REDACTED:rule] holds"


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


def test_holding_does_not_depend_on_the_cuts() -> None:
    rules = rules_of(regex_rule(r"a[^z]*z"))
    text = "b" * 10 + "a" * (HOLD_LIMIT + 1) + "z"
    whole = judge(rules, Target.OUTPUT, text)
    assert (whole.text, whole.blocked) == ("b" * 10, True)
    assert stream(rules, list(text)) == whole.text
    fits = judge(rules, Target.OUTPUT, "a" * HOLD_LIMIT + "z")
    assert (fits.text, fits.blocked) == ("[REDACTED:rule]", False)


def test_a_warning_never_hides_what_must_be_redacted() -> None:
    warns = Rule("ids", RuleType.REGEX, Severity.MINOR, pattern=r"customer \S+ of \w+")
    ruling = judge(rules_of(warns, NO_PII), Target.OUTPUT, "the customer 123-45-6789 of Bonn")
    assert ruling.text == "the customer [REDACTED:no_pii] of Bonn"
    assert {verdict.rule.name for verdict in ruling.verdicts} == {"ids", "no_pii"}


def test_a_warning_holds_nothing_back() -> None:
    rules = rules_of(Rule("tone", RuleType.KEYWORD, Severity.MINOR, keywords=("darn it",)))
    monitor = StreamMonitor(rules, Target.OUTPUT)
    assert [monitor.feed(piece).text for piece in ("dar", "n i", "t ")] == ["dar", "n i", "t "]
    assert monitor.worst == {"tone": Action.WARN}


def test_an_overridden_rule_lets_its_match_pass_and_says_so() -> None:
    rules = rules_of(NO_PII, regex_rule("secret"))
    monitor = StreamMonitor(rules, Target.OUTPUT, overridden=["no_pii"])
    ruling, last = monitor.feed("secret 123-45-6789 "), monitor.finish()
    assert ruling.text + last.text == "[REDACTED:rule] 123-45-6789 "
    assert [(v.rule.name, v.action) for v in ruling.verdicts] == [("rule", Action.REDACT), ("no_pii", Action.ALLOW)]


def test_look_alikes_and_invisible_characters_are_what_they_look_like() -> None:
    for text in ("123\u201145\u20136789", "１２３-４５-６７８９", "1\u200b23-4\u00ad5-678\u20609", "٣٢١-٤٥-٦٧٨٩"):
        assert stream(rules_of(NO_PII), list(f"id {text} ok")) == "id [REDACTED:no_pii] ok"
    word = Rule("word", RuleType.KEYWORD, Severity.SEVERE, keywords=("Paypal",), case_insensitive=True)
    assert judge(rules_of(word), Target.OUTPUT, "see \u0420\u0430yp\u0430l!").text == "see [REDACTED:word]!"


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [(r"(a)\1", "back-reference"), (r"(?=ab)a", "further than one character"), ("x*", "empty text"),
     ("(?>ab)c", "atomic"), ("(?:a{1000}){1000}", "too large")],
)  # fmt: skip
def test_what_a_stream_cannot_decide_is_refused_with_the_reason(pattern: str, reason: str) -> None:
    with pytest.raises(PatternInvalid, match=reason):
        rules_of(regex_rule(pattern))


PATTERNS = [
    r"\b\d{3}-\d{2}-\d{4}\b", r"ab+c", r"a.{2}b|c", r"(?<=x)ab", r"a(?:b|bc)?", r"ca|ab*c", r"(?<![a-b])c\b", r"^ab|b\Z",
    r"[^a ]1{2,4}", r"(?i:AB)c*", r"a(?!b)", r"\Bb+", r"(?:ab|ba)+",
]  # fmt: skip


def redacted_whole(pattern: str, text: str) -> str:
    """What must come out, by another engine: POSIX matching of the regex package finds the leftmost and longest."""
    return regex.compile(pattern, flags=regex.POSIX).sub("[REDACTED:rule]", text)


@settings(max_examples=400, deadline=None)
@given(
    pattern=st.sampled_from(PATTERNS),
    text=st.text(alphabet="abcx1-3 A", max_size=24),
    cuts=st.lists(st.integers(0, 24), max_size=6),
)
def test_the_output_is_that_of_redacting_the_whole_however_the_text_is_cut(
    pattern: str, text: str, cuts: list[int]
) -> None:
    rules = rules_of(regex_rule(pattern))
    places = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    pieces = [text[a:b] for a, b in zip(places, places[1:], strict=False)]
    assert stream(rules, pieces) == judge(rules, Target.OUTPUT, text).text == redacted_whole(pattern, text)


@pytest.mark.parametrize("scheme", ["https", "x" * 40, "", "postgresql+asyncpg"])
def test_a_password_in_an_address_is_found_whatever_the_address_begins_with(scheme: str) -> None:
    rules = rules_of(Rule("keys", RuleType.SECRET, Severity.SEVERE))

    shown = judge(rules, Target.OUTPUT, f"dsn {scheme}://ada:tr0ub4dor@db.example/main").text

    assert shown == f"dsn {scheme}[REDACTED:keys]db.example/main"


@pytest.mark.parametrize(
    ("number", "is_card"),
    [
        ("4111 1111 1111 1111", True), ("４１１１１１１１１１１１１１１１", True), ("4111 1111 1111 1112", False),
        ("8111 1111 1111 1117", False), ("378282246310005", True), ("3782 822463 10005", True), ("6011000990139424", True),
    ],
)  # fmt: skip
def test_a_card_has_an_issuer_its_length_and_its_check_digit(number: str, is_card: bool) -> None:
    rules = rules_of(Rule("pii", RuleType.PII, Severity.SEVERE, keywords=("card",)))

    assert (number not in judge(rules, Target.OUTPUT, f"pay by {number} now").text) is is_card
