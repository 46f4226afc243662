"""Prompts with other texts keep all else, and what a rule takes out of the middle of JSON leaves JSON."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from services.inference.enforcement import blocked
from services.inference.providers.contract import Message, Role, Text, ToolCall, ToolResult
from services.inference.redacting import texts_of, with_texts
from shared.monitors.rules import Action, Rule, RuleType, Severity, Target, Verdict
from shared.monitors.stream import Ruling

TEXTS = st.text(max_size=5)
PARTS = st.one_of(
    TEXTS.map(Text),
    st.builds(ToolResult, tool_call_id=st.just("c"), content=TEXTS),
    TEXTS.map(lambda text: ToolCall("c", "send", json.dumps({"to": text}))),
)
PROMPTS = st.lists(st.lists(PARTS, max_size=5).map(lambda parts: Message(Role.USER, tuple(parts))), max_size=4)


@given(PROMPTS)
def test_the_same_texts_leave_a_prompt_as_it_is(prompt: list[Message]) -> None:
    assert with_texts(prompt, texts_of(prompt)) == tuple(prompt)


@given(PROMPTS)
def test_each_text_takes_the_place_of_its_own(prompt: list[Message]) -> None:
    others = [f'"{place}"' for place, _ in enumerate(texts_of(prompt))]
    assert texts_of(with_texts(prompt, others)) == others


def test_a_text_in_several_parts_is_put_into_the_first() -> None:
    result = ToolResult("c", "said")
    before = Message(Role.USER, (Text("my se"), result, Text("cret")))
    assert with_texts([before], ["my [x]", "said"]) == (Message(Role.USER, (Text("my [x]"), result)),)
    assert with_texts([before], ["", "said"]) == (Message(Role.USER, (result,)),)


def test_arguments_stay_json() -> None:
    call = ToolCall("c", "send", '{"to": "eve"}')
    (kept,) = with_texts([Message(Role.ASSISTANT, (call,))], ['{"to": "[x]"}'])
    assert kept.tool_calls[0].arguments == '{"to": "[x]"}'
    (broken,) = with_texts([Message(Role.ASSISTANT, (call,))], ['{"to[x]'])
    assert json.loads(broken.tool_calls[0].arguments) == {"redacted": '{"to[x]'}


def test_the_rule_that_stops_a_text_is_named_also_when_others_were_found_after_it() -> None:
    stops, warns = (
        Verdict(Rule(name, RuleType.KEYWORD, Severity.SEVERE), "words@1.0.0", action, Target.OUTPUT, 0, 3)
        for name, action in (("fruit", Action.BLOCK), ("mood", Action.WARN))
    )
    assert blocked(Ruling("", (stops, warns), blocked=True), "the output").facts["rule"] == "fruit"
