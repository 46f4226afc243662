"""A model that can only be held to a schema calls tools, and nobody behind can tell the difference."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, replace

import jsonschema
import pytest

from services.inference.catalog import Ability
from services.inference.errors import ModelUnable
from services.inference.providers.contract import (
    Chunk,
    FinishReason,
    Message,
    ModelCall,
    ProviderResult,
    ResponseFormat,
    Role,
    Sampling,
    ToolCall,
    ToolChoice,
    ToolDefinition,
    ToolMode,
    ToolResult,
    Usage,
    infer,
    said,
)
from services.inference.providers.tool_form import ToolForm
from services.inference.route import Model, Router

ADD = ToolDefinition("add", "Adds.", {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]})
NOW = ToolDefinition("now", "Tells the time.", {})
ASKED = ModelCall("m", (said(Role.SYSTEM, "Be brief."), said(Role.USER, "1+1?")), Sampling(), 64, tools=(ADD, NOW))


@dataclass(slots=True)
class Scripted:
    """Says a text, so many characters at a time; keeps what it was asked."""

    text: str
    step: int = 1
    finish: FinishReason = FinishReason.STOP
    asked: list[ModelCall] = field(default_factory=list)
    name: str = "scripted"

    async def stream(self, call: ModelCall) -> AsyncGenerator[Chunk, None]:
        self.asked.append(call)
        for at in range(0, len(self.text), self.step):
            yield Chunk(self.text[at : at + self.step], 1)
        yield Chunk(finish_reason=self.finish, usage=Usage(9, 3))


async def answered(text: str, call: ModelCall = ASKED, *, step: int = 1) -> ProviderResult:
    return await infer(ToolForm(Scripted(text, step)), call)


@pytest.mark.parametrize("step", [1, 3, 7, 1000])
@pytest.mark.parametrize("spaced", [True, False])
async def test_an_answer_comes_as_its_text_however_it_is_cut(step: int, spaced: bool) -> None:
    said = 'He said "two\\three"\nétoile 😀 \x00'
    form = json.dumps({"answer": said}, indent=2 if spaced else None)
    found = await answered(form, step=step)
    assert (found.text, found.finish_reason, found.tool_calls) == (said, FinishReason.STOP, ())
    assert found.usage == Usage(9, 3)


async def test_an_answer_is_shown_as_it_comes() -> None:
    shown: list[str] = []
    async with aclosing(ToolForm(Scripted('{"answer": "one two"}')).stream(ASKED)) as chunks:
        async for chunk in chunks:
            shown.append(chunk.text)
    assert "".join(shown) == "one two"
    assert max(map(len, shown)) == 1


@pytest.mark.parametrize("step", [1, 5, 1000])
async def test_a_call_comes_whole_and_says_nothing(step: int) -> None:
    found = await answered('{ "tool": "add", "arguments": {"a": 1} }', step=step)
    (call,) = found.tool_calls
    assert (found.text, found.finish_reason) == ("", FinishReason.TOOL_CALLS)
    assert (call.name, json.loads(call.arguments)) == ("add", {"a": 1})
    assert call.id.startswith("call_")


async def test_a_call_that_was_cut_is_no_json() -> None:
    found = await answered('{"tool": "add", "arguments": {"a": ')
    assert [(call.name, call.arguments) for call in found.tool_calls] == [("add", '{"a": ')]


async def test_a_model_that_keeps_to_no_form_is_heard_as_it_speaks() -> None:
    assert (await answered("Two.", step=2)).text == "Two."
    assert (await answered('{"sum": 2}', step=2)).text == '{"sum": 2}'


async def test_the_model_is_told_of_its_tools_and_held_to_them() -> None:
    model = Scripted('{"answer": "2"}')
    await infer(ToolForm(model), ASKED)
    (asked,) = model.asked
    assert asked.tools == ()
    assert asked.messages[0].text.startswith("Be brief.\n\nYou have tools.")
    assert '- add: Adds. Arguments: {"type":"object"' in asked.messages[0].text
    assert asked.response_format is not None
    schema = asked.response_format.json_schema
    for fits in ({"tool": "add", "arguments": {"a": 1}}, {"tool": "now", "arguments": {}}, {"answer": "2"}):
        jsonschema.validate(fits, schema)
    for other in ({"tool": "rm", "arguments": {}}, {"tool": "add", "arguments": {}}, {"answer": 2}, "2"):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(other, schema)


@pytest.mark.parametrize(
    ("choice", "tools", "may_answer"),
    [
        (ToolChoice(ToolMode.REQUIRED), ["add", "now"], False),
        (ToolChoice(ToolMode.REQUIRED, "now"), ["now"], False),
        (ToolChoice(), ["add", "now"], True),
    ],
)
async def test_the_choice_of_tools_is_kept(choice: ToolChoice, tools: list[str], may_answer: bool) -> None:
    model = Scripted('{"answer": "2"}')
    await infer(ToolForm(model), replace(ASKED, tool_choice=choice))
    assert model.asked[0].response_format is not None
    schema = model.asked[0].response_format.json_schema
    forms = [one["properties"] for one in schema.get("anyOf", [schema])]
    assert [form["tool"]["const"] for form in forms if "tool" in form] == tools
    assert any("answer" in form for form in forms) == may_answer


async def test_a_form_asked_for_is_the_form_of_the_answer() -> None:
    own = ResponseFormat("vote", {"type": "object", "required": ["yes"]})
    found = await answered('{"answer": {"yes": true} }', replace(ASKED, response_format=own), step=4)
    assert json.loads(found.text) == {"yes": True}


@pytest.mark.parametrize("step", [1, 2, 3, 5, 8, 1000])
@pytest.mark.parametrize(
    "after", ["}", " }", "\n}\n", "", "} and more"], ids=["tight", "spaced", "lines", "cut", "goes on"]
)
async def test_an_answer_of_a_form_is_shown_as_it_comes_and_nothing_around_it(step: int, after: str) -> None:
    own = ResponseFormat("own", {"type": "object"})
    value, shown = '{"a": {"b": [1, "}"]}, "c": {}}', list[str]()
    model = ToolForm(Scripted(f'{{"answer": {value}{after}', step))
    async with aclosing(model.stream(replace(ASKED, response_format=own))) as chunks:
        async for chunk in chunks:
            shown.append(chunk.text)
    assert "".join(shown).startswith(value)
    assert after == "} and more" or "".join(shown) == value
    assert step > 8 or len([text for text in shown if text]) > 2


async def test_what_was_said_with_tools_is_told_in_words_and_no_tool_means_no_form() -> None:
    said_before = (
        Message(Role.ASSISTANT, (ToolCall("c1", "add", '{"a": 1}'),)),
        Message(Role.TOOL, (ToolResult("c1", "2"), ToolResult("c2", "broken", is_error=True))),
    )
    model = Scripted("Two.")
    call = replace(ASKED, messages=(*ASKED.messages, *said_before), tool_choice=ToolChoice(ToolMode.NONE))
    assert (await infer(ToolForm(model), call)).text == "Two."
    (asked,) = model.asked
    assert asked.response_format is None
    assert [(message.role, message.text) for message in asked.messages[2:]] == [
        (Role.ASSISTANT, '{"tool": "add", "arguments": {"a": 1}}'),
        (Role.USER, "The tool answered: 2\nThe tool failed: broken"),
    ]


async def test_only_models_with_a_form_and_no_tools_of_their_own_are_asked_so() -> None:
    models = [
        Model("form", "p", abilities=frozenset({Ability.JSON_SCHEMA})),
        Model("own", "p", abilities=frozenset({Ability.JSON_SCHEMA, Ability.TOOLS})),
        Model("none", "p"),
    ]
    plain = Scripted("")
    router = Router(models, {"p": plain}, default="form")

    def provider(name: str, call: ModelCall) -> object:
        return router.chain(router.resolve(name), call, fallback=None)[0].provider

    assert isinstance(provider("form", ASKED), ToolForm)
    assert provider("own", ASKED) is plain
    assert provider("form", replace(ASKED, tools=())) is plain
    with pytest.raises(ModelUnable, match="none cannot do: tools"):
        provider("none", ASKED)
