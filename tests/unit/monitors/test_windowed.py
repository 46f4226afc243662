"""Sentences of a stream, and the judge who takes longer."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.monitors.pipeline import Finding, Outcome
from shared.monitors.rules import Action, Bundle, Rule, RuleType, Severity, Target, Verdict
from shared.monitors.sentences import LONGEST, Sentences
from shared.monitors.stream import StreamMonitor, compile_rules
from shared.monitors.windowed import WindowedMonitor

NO_PII = Rule("no_pii", RuleType.REGEX, Severity.SEVERE, pattern=r"\b\d{3}-\d{2}-\d{4}\b")


def monitor() -> StreamMonitor:
    return StreamMonitor(compile_rules([Bundle("b", "1.0.0", (NO_PII,))], Target.OUTPUT), Target.OUTPUT)


async def check(sentence: str) -> Outcome:
    if "stop" in sentence:
        return Outcome("", blocked=True)
    return Outcome("[HIDDEN]" if "vault" in sentence else sentence)


async def streamed(pieces: list[str]) -> tuple[str, bool]:
    windowed, shown = WindowedMonitor(monitor(), check), []
    for piece in pieces:
        ruling = await windowed.feed(piece)
        shown.append(ruling.text)
        if ruling.blocked:
            return "".join(shown), True
    last = await windowed.finish()
    return "".join([*shown, last.text]), last.blocked


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
async def test_a_sentence_is_shown_when_it_is_judged_and_not_before(size: int) -> None:
    text = "All is well. The vault opens at nine! His id is 123-45-6789. Bye"
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    assert await streamed(pieces) == ("All is well. [HIDDEN]His id is [REDACTED:no_pii]. Bye", False)


async def test_a_sentence_that_blocks_ends_the_stream_before_it() -> None:
    assert await streamed(["One. Please st", "op here. Two."]) == ("One. ", True)


async def test_what_is_found_in_a_sentence_is_told_by_its_place_in_the_stream() -> None:
    async def found(sentence: str) -> Outcome:
        at = sentence.find("vault")
        verdict = Verdict(NO_PII, "b@1.0.0", Action.REDACT, Target.OUTPUT, at, at + 5)
        return Outcome(sentence, (Finding(verdict, "why"),) if at >= 0 else ())

    windowed = WindowedMonitor(monitor(), found)
    rulings = [await windowed.feed("Good day. The vault op"), await windowed.feed("ens. Bye."), await windowed.finish()]

    assert [(one.start, one.end) for ruling in rulings for one in ruling.verdicts] == [(14, 19)]


@settings(max_examples=200, deadline=None)
@given(text=st.text(alphabet="ab .!\n", max_size=60), cuts=st.lists(st.integers(0, 60), max_size=5))
def test_sentences_are_the_same_however_the_text_is_cut(text: str, cuts: list[int]) -> None:
    places = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    whole, cut = Sentences(), Sentences()
    wanted = [*whole.feed(text), *whole.finish()]
    found = [one for a, b in zip(places, places[1:], strict=False) for one in cut.feed(text[a:b])]
    assert [*found, *cut.finish()] == wanted
    assert "".join(one.text for one in wanted) == text


def test_a_sentence_without_an_end_is_cut() -> None:
    sentences = Sentences()
    found = [*sentences.feed("a" * (2 * LONGEST + 5)), *sentences.finish()]
    assert [len(one.text) for one in found] == [LONGEST, LONGEST, 5]
