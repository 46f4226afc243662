"""Templates: what they say, what they refuse and where, and that values are never read as templates."""

from __future__ import annotations

import hashlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.inference.prompts.content import Content, Template, Variable, VariableType, check, digest
from services.inference.prompts.errors import PromptInvalid
from services.inference.prompts.filling import MAX_RENDERED, fill
from services.inference.providers.contract import Role
from shared.errors import FieldTooLong, InvalidArgument

KINDS = VariableType
DECLARED = (
    Variable("topic", KINDS.STRING),
    Variable("count", KINDS.INTEGER, default=3),
    Variable("share", KINDS.NUMBER, default=0.5),
    Variable("formal", KINDS.BOOLEAN, default=False),
    Variable("points", KINDS.STRING_LIST, default=[]),
    Variable("facts", KINDS.JSON, default=None),
)
NAMES = {one.name for one in DECLARED}


def content(text: str) -> Content:
    used = tuple(one for one in DECLARED if one.name in text)
    return Content((Template(Role.USER, text),), used)


def said(text: str, **values: object) -> str:
    (message,) = fill(check(content(text)), values)
    return message.text


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        ("About {{topic}}.", {"topic": "tea"}, "About tea."),
        ("{{ topic }}{{topic}}", {"topic": "a"}, "aa"),
        ("{{count}} of {{share}}", {"count": 7, "share": 0.25}, "7 of 0.25"),
        ("{{formal}}", {"formal": True}, "true"),
        ("{{facts}}", {"facts": {"b": [1, None], "a": "ü"}}, '{"a":"ü","b":[1,null]}'),
        ("{{#if formal}}Dear{{else}}Hi{{/if}}!", {"formal": True}, "Dear!"),
        ("{{#if formal}}Dear{{else}}Hi{{/if}}!", {}, "Hi!"),
        ("{{#if count}}some{{/if}}.", {"count": 0}, "."),
        ("{{#if topic}}x{{/if}}.", {"topic": ""}, "."),
        ("{{#if facts}}x{{/if}}.", {"facts": {}}, "."),
        ("{{#each points}}- {{this}}\n{{/each}}", {"points": ["a", "b"]}, "- a\n- b\n"),
        ("{{#each points}}{{#if formal}}{{this}};{{/if}}{{/each}}", {"points": ["a"], "formal": True}, "a;"),
        ("{{#if points}}some{{else}}none{{/if}}", {}, "none"),
        (r"\{{topic}} is {{topic}}", {"topic": "x"}, "{{topic}} is x"),
        ('{"a": {"b": 1}} {{topic}}', {"topic": "x"}, '{"a": {"b": 1}} x'),
        ("no places", {}, "no places"),
    ],
)
def test_a_template_says_what_its_values_say(text: str, values: dict[str, object], expected: str) -> None:
    assert said(text, **values) == expected


@pytest.mark.parametrize(
    ("text", "line", "column", "word"),
    [
        ("one\ntwo {{topic", 2, 5, "not closed"),
        ("{{nobody}}", 1, 1, "not declared"),
        ("a\n\n  {{#if formal}}x", 3, 3, "is not closed"),
        ("{{/if}}", 1, 1, "nothing is open"),
        ("{{#if formal}}{{/each}}", 1, 15, "#if}} is open"),
        ("{{else}}", 1, 1, "without its"),
        ("{{#if formal}}{{else}}{{else}}{{/if}}", 1, 23, "without its"),
        ("{{this}}", 1, 1, "only inside"),
        ("{{#each topic}}{{/each}}", 1, 1, "needs a list"),
        ("x {{points}}", 1, 3, "repeat it with #each"),
        ("{{#each points}}{{#each points}}{{/each}}{{/each}}", 1, 17, "inside another"),
        ("{{#if this}}{{/if}}", 1, 1, "no variable"),
        ("{{topic.name}}", 1, 1, "is no name"),
        ("{{}}", 1, 1, "is no name"),
        ("{{#unless topic}}", 1, 1, "is no name"),
        ("{{#if\nnobody}}\n{{/if}}", 1, 1, "not declared"),
        ("{{#if\nformal}}{{/if}}\n {{bad name}}", 3, 2, "is no name"),
        ("{{#if formal}}" * 9 + "{{/if}}" * 9, 1, 113, "blocks inside each other"),
        ("{{topic}}" * 1001, 1, 9001, "more than 1000 places"),
    ],
)
def test_a_wrong_template_is_refused_with_its_place(text: str, line: int, column: int, word: str) -> None:
    with pytest.raises(PromptInvalid) as raised:
        check(content(text))
    error = raised.value
    assert (error.facts["line"], error.facts["column"]) == (str(line), str(column))
    assert error.field == "content.messages[0].template"
    assert word in error.message


def test_a_variable_no_template_uses_is_refused() -> None:
    with pytest.raises(PromptInvalid, match="no template uses topic"):
        check(Content((Template(Role.USER, "plain"),), (Variable("topic", KINDS.STRING),)))


@pytest.mark.parametrize(
    ("text", "values", "field"),
    [
        ("{{topic}}", {}, "variables.topic"),
        ("{{topic}}", {"topic": 7}, "variables.topic"),
        ("{{topic}}", {"topic": "x", "other": 1}, "variables.other"),
        ("{{count}}", {"count": 1.5}, "variables.count"),
        ("{{count}}", {"count": True}, "variables.count"),
        ("{{count}}", {"count": 2**53 + 1}, "variables.count"),
        ("{{share}}", {"share": "0.5"}, "variables.share"),
        ("{{formal}}", {"formal": "yes"}, "variables.formal"),
        ("{{#each points}}x{{/each}}", {"points": ["a", 1]}, "variables.points"),
        ("{{#each points}}x{{/each}}", {"points": ["a"] * 1001}, "variables.points"),
    ],
)
def test_a_value_of_another_type_names_its_variable(text: str, values: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        said(text, **values)
    assert raised.value.field == field


@given(st.text())
def test_a_value_is_never_read_as_a_template(value: str) -> None:
    assert said("<{{topic}}>", topic=value) == f"<{value}>"
    assert said("<{{#each points}}{{this}}{{/each}}>", points=[value]) == f"<{value}>"


@given(st.text(alphabet="{}#/\\ \nabeifthsopc", max_size=60))
def test_any_text_is_a_template_or_a_named_fault(text: str) -> None:
    fault: PromptInvalid | None = None
    try:
        prompt = check(content(text))
        fill(prompt, {one.name: "x" for one in prompt.content.variables if one.type is KINDS.STRING})
    except PromptInvalid as error:
        fault = error
    if fault and "line" in fault.facts:
        lines = text.split("\n")
        assert int(fault.facts["column"]) <= len(lines[int(fault.facts["line"]) - 1])


def test_a_short_prompt_cannot_grow_without_end() -> None:
    text = "{{#each points}}" + "x" * 200_000 + "{{/each}}"
    began = time.perf_counter()
    with pytest.raises(FieldTooLong) as raised:
        said(text, points=[""] * 1000)
    assert raised.value.facts["limit"] == str(MAX_RENDERED)
    assert time.perf_counter() - began < 1


def test_a_digest_is_of_what_is_said_and_not_of_its_order() -> None:
    one, other = Variable("a", KINDS.STRING), Variable("b", KINDS.STRING)
    first = Content((Template(Role.USER, "{{a}}{{b}}"),), (one, other), {"x": 1, "y": 2})
    again = Content((Template(Role.USER, "{{a}}{{b}}"),), (other, one), {"y": 2, "x": 1})
    another = Content((Template(Role.USER, "{{a}}{{b}} "),), (one, other), {"x": 1, "y": 2})
    assert digest(first) == digest(again) != digest(another)
    written = b'{"config":{},"messages":[{"name":"","role":"user","template":"Hi"}],"variables":[]}'
    assert digest(Content((Template(Role.USER, "Hi"),))) == hashlib.sha256(written).hexdigest()
