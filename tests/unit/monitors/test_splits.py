"""What must not get out does not, wherever the text is cut. The million cases are `make bench-policy-splits`."""

from __future__ import annotations

from tests.support.forbidden import AROUND, cases, compiled, corpus, shown

EVERY = 19


def test_the_corpus_has_500_entries_each_caught_whole() -> None:
    rules = compiled()
    entries = corpus()
    assert len(entries) == 500
    leaked = [one for one in entries if shown(rules, [f"It is {one.text}, yes"]) != f"It is [REDACTED:{one.rule}], yes"]
    assert leaked == []


def test_no_forbidden_character_gets_out_at_any_cut() -> None:
    rules = compiled()
    count = 0
    for pieces, wanted in cases(corpus()[::EVERY], AROUND[:2]):
        assert shown(rules, pieces) == wanted
        count += 1
    assert count > 4_000


def test_a_number_before_a_card_does_not_hide_it() -> None:
    rules = compiled()
    for text in ("a 12 b 34 2221 8325 4144 5537 c 56", "order 7 3682 5073 0229 39 x"):
        assert "[REDACTED:pii]" in shown(rules, list(text)) == shown(rules, [text])
