"""Tools, schemas, thoughts and parts that are not text: what goes in is judged by field, what comes out by policy."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf import json_format, struct_pb2

from agentnet.inference.v1 import generation_pb2, message_pb2
from agentnet.inference.v1 import inference_service_pb2 as pb
from services.inference.providers.contract import (
    Chunk,
    FinishReason,
    Media,
    MediaKind,
    ReasoningEffort,
    Role,
    ToolChoice,
    ToolDelta,
    ToolMode,
    ToolResult,
)
from shared.errors import Reason
from shared.monitors.enforced import Snapshot
from shared.monitors.rules import Action, Bundle, Rule, RuleType, Severity, Target
from tests.service.inference.calls import Code, generated, refusal, said, until
from tests.support.identity import Keys
from tests.support.inference import Replica, kinds, request, text_of


def struct(value: dict[str, Any]) -> struct_pb2.Struct:
    return json_format.ParseDict(value, struct_pb2.Struct())


LOOK = message_pb2.ToolDefinition(
    name="look_up",
    description="Looks a city up.",
    input_schema=struct({"type": "object", "properties": {"city": {"type": "string", "maxLength": 9}}}),
)
CALLS = [
    Chunk(tools=(ToolDelta(0, "call_1", "look_up", '{"city": '),), token_count=1),
    Chunk(tools=(ToolDelta(0, arguments='"Bern"}'), ToolDelta(1, "call_2", "look_up", "")), token_count=2),
    Chunk(finish_reason=FinishReason.TOOL_CALLS),
]
FORM = message_pb2.ResponseFormat(
    name="city",
    json_schema=struct({"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}),
)


async def test_tool_calls_come_whole_and_by_index(served: Replica, keys: Keys) -> None:
    served.model.scripts = [[*CALLS]]
    events = await generated(served, keys, request(tools=[LOOK]))
    assert kinds(events) == ["started", "tool_call", "tool_call", "finished"]
    asked = [(event.tool_call.index, event.tool_call.tool_call) for event in events[1:3]]
    assert [(index, call.id, call.name, call.arguments) for index, call in asked] == [
        (0, "call_1", "look_up", '{"city": "Bern"}'),
        (1, "call_2", "look_up", "{}"),
    ]
    assert events[-1].finished.finish_reason == generation_pb2.FINISH_REASON_TOOL_CALLS


async def test_tools_and_what_they_answered_go_to_the_model(served: Replica, keys: Keys) -> None:
    served.model.steps = ["It is Bern."]
    asked = request(
        tools=[LOOK], tool_choice=message_pb2.ToolChoice(mode="TOOL_MODE_REQUIRED", name="look_up"),
        reasoning_effort="REASONING_EFFORT_LOW",
    )  # fmt: skip
    call = asked.messages.add(role="ROLE_ASSISTANT")
    call.content.add(tool_call=message_pb2.ToolCall(id="call_1", name="look_up", arguments='{"city": "Bern"}'))
    answer = asked.messages.add(role="ROLE_TOOL")
    answer.content.add(tool_result=message_pb2.ToolResult(tool_call_id="call_1", content="a city", is_error=True))
    await generated(served, keys, asked)
    (heard,) = served.model.calls
    assert heard.tools[0].input_schema["properties"]["city"]["maxLength"] == 9
    assert heard.tool_choice == ToolChoice(ToolMode.REQUIRED, "look_up")
    assert heard.reasoning_effort is ReasoningEffort.LOW
    assert heard.messages[1].tool_calls[0].arguments == '{"city": "Bern"}'
    assert (heard.messages[2].role, heard.messages[2].tool_results) == (
        Role.TOOL,
        (ToolResult("call_1", "a city", is_error=True),),
    )


async def test_arguments_of_tools_are_under_policy_before_anyone_sees_them(served: Replica, keys: Keys) -> None:
    rule = Rule("paths", RuleType.REGEX, Severity.SEVERE, Action.BLOCK, target=Target.TOOL_ARGUMENTS, pattern="/etc/")
    mail = Rule(
        "mail",
        RuleType.REGEX,
        Severity.MAJOR,
        Action.REDACT,
        target=Target.TOOL_ARGUMENTS,
        pattern=r"[a-z]+@[a-z]+\.org",
    )
    served.policy.snapshots.put_nowait(Snapshot(2, {"*": (Bundle("tools", "1.0.0", (rule, mail)),)}))
    await until(lambda: served.engine.enforcement.revision == 2)
    served.model.scripts = [
        [Chunk(tools=(ToolDelta(0, "c", "look_up", '{"to": "ada@ex.org"}'),)), Chunk(finish_reason=FinishReason.STOP)],
        [Chunk(tools=(ToolDelta(0, "c", "look_up", '{"p": "/etc/shadow"}'),)), Chunk(finish_reason=FinishReason.STOP)],
    ]
    redacted = await generated(served, keys, request(tools=[LOOK]))
    blocked = await generated(served, keys, request(tools=[LOOK], generation_id="gen_2"))
    shown = next(event.tool_call.tool_call.arguments for event in redacted if event.HasField("tool_call"))
    assert json.loads(shown) == {"to": "[REDACTED:mail]"}
    assert kinds(blocked) == ["started", "verdict", "failed"]
    assert blocked[1].verdict.target == "tool_arguments"
    assert "shadow" not in str(blocked)


async def test_arguments_that_wait_for_leave_say_how_to_get_it_and_pass_with_it(served: Replica, keys: Keys) -> None:
    rule = Rule(
        "abroad", RuleType.KEYWORD, Severity.SEVERE, Action.REQUIRE_APPROVAL, target=Target.TOOL_ARGUMENTS,
        keywords=("Zurich",),
    )  # fmt: skip
    served.policy.snapshots.put_nowait(Snapshot(2, {"*": (Bundle("tools", "1.0.0", (rule,)),)}))
    served.policy.overrides = {"leave": frozenset({"abroad"}), "other": frozenset({"mail"})}
    await until(lambda: served.engine.enforcement.revision == 2)
    asks = [Chunk(tools=(ToolDelta(0, "c", "look_up", '{"to": "Zurich"}'),)), Chunk(finish_reason=FinishReason.STOP)]
    served.model.scripts = [asks, asks, asks]

    for generation, token in (("gen_1", ""), ("gen_2", "other")):
        waits = await generated(served, keys, request(tools=[LOOK], generation_id=generation, override_token=token))
        failure = waits[-1].failed.failure
        assert failure.reason == Reason.ERROR_REASON_CALL_APPROVAL_REQUIRED
        assert (
            "calling look_up with these arguments waits for approval, by rule abroad of tools@1.0.0" in failure.message
        )
        assert "CreateOverride" in failure.message
        assert "tool_call" not in kinds(waits)
    passed = await generated(served, keys, request(tools=[LOOK], generation_id="gen_3", override_token="leave"))

    shown = next(event.tool_call.tool_call.arguments for event in passed if event.HasField("tool_call"))
    assert json.loads(shown) == {"to": "Zurich"}


async def test_what_a_tool_answered_is_judged_as_the_prompt_is(served: Replica, keys: Keys) -> None:
    asked = request()
    asked.messages.add(role="ROLE_TOOL").content.add(
        tool_result=message_pb2.ToolResult(tool_call_id="c", content="a bomb")
    )
    error = await refusal(served.stub.Generate(asked, metadata=keys.metadata()).read())
    assert said(error) == (Code.FAILED_PRECONDITION, "POLICY_BLOCKED")


async def test_thoughts_are_shown_apart_and_under_policy(served: Replica, keys: Keys) -> None:
    served.model.scripts = [[Chunk(reasoning="Mail ada@example.org? ", token_count=4), "No."]]
    events = await generated(served, keys, request())
    thoughts = "".join(event.reasoning.text for event in events if event.HasField("reasoning"))
    assert thoughts == "Mail [REDACTED:mail]? "
    assert text_of(events) == "No."


async def test_output_that_fits_the_schema_is_left_alone(served: Replica, keys: Keys) -> None:
    served.model.steps = ['{"name": ', '"Bern"}']
    events = await generated(served, keys, request(response_format=FORM))
    assert kinds(events)[-1] == "finished"
    assert json.loads(text_of(events)) == {"name": "Bern"}
    assert len(served.model.calls) == 1


WRONG_FORMS = {"Bern.": "is not JSON", '{"name": 7}': "7 is not of type", '{"city": "Bern"}': "'name' is a required"}


@pytest.mark.parametrize(("wrong", "why"), WRONG_FORMS.items())
async def test_output_that_does_not_fit_is_asked_for_once_more(
    served: Replica, keys: Keys, wrong: str, why: str
) -> None:
    served.model.scripts = [[wrong], ['{"name": "Bern"}']]
    events = await generated(served, keys, request(response_format=FORM))
    place = next(place for place, event in enumerate(events) if event.HasField("failover"))
    failover = events[place].failover
    assert (failover.from_model, failover.to_model, failover.restarted) == ("scripted", "scripted", True)
    assert failover.failure.reason == Reason.ERROR_REASON_OUTPUT_INVALID
    assert text_of(events[place:]) == '{"name": "Bern"}'
    again = served.model.calls[1].messages
    assert [message.role for message in again] == [Role.USER, Role.ASSISTANT, Role.USER]
    assert again[1].text == wrong
    assert why in again[2].text
    assert why not in failover.failure.message or why == "is not JSON"


async def test_output_that_never_fits_is_a_typed_error_with_its_path(served: Replica, keys: Keys) -> None:
    served.model.steps = ['{"name": 7}']
    events = await generated(served, keys, request(response_format=FORM, model="safe"))
    assert kinds(events)[-1] == "failed"
    failure = events[-1].failed.failure
    assert (failure.reason, failure.metadata["path"]) == (Reason.ERROR_REASON_OUTPUT_INVALID, "$.name")
    assert len(served.model.calls) == 2
    assert [name for name, _ in served.cost.settled] == ["gen_1", "gen_1-try2"]


async def test_pictures_and_sounds_go_to_the_model_as_they_are(served: Replica, keys: Keys) -> None:
    served.model.steps = ["A cat."]
    asked = request("What is it?")
    asked.messages[0].content.add(image=message_pb2.Media(media_type="image/png", data=b"png", name="cat.png"))
    asked.messages[0].content.add(image=message_pb2.Media(media_type="image/webp", url="https://example.org/c"))
    await generated(served, keys, asked)
    assert served.model.calls[0].messages[0].media == (
        Media(MediaKind.IMAGE, "image/png", b"png", name="cat.png"),
        Media(MediaKind.IMAGE, "image/webp", url="https://example.org/c"),
    )


async def test_a_document_becomes_its_text(served: Replica, keys: Keys) -> None:
    served.model.steps = ["Short."]
    asked = request("Sum it up: ")
    asked.messages[0].content.add(
        document=message_pb2.Media(media_type="text/markdown", data="# Grüße".encode(), name="a.md")
    )
    await generated(served, keys, asked)
    assert served.model.calls[0].messages[0].text == "Sum it up: [a.md]\n# Grüße\n"


async def test_a_model_that_cannot_see_says_so(served: Replica, keys: Keys) -> None:
    asked = request(model="synthetic")
    asked.messages[0].content.add(image=message_pb2.Media(media_type="image/png", data=b"png"))
    error = await refusal(served.stub.Generate(asked, metadata=keys.metadata()).read())
    assert said(error) == (Code.FAILED_PRECONDITION, "MODEL_UNABLE")
    assert error.facts == {"model": "synthetic", "missing": "image"}


def with_part(role: str, **part: Any) -> pb.GenerateRequest:
    asked = request()
    asked.messages.add(role=role).content.add(**part)
    return asked


PNG = message_pb2.Media(media_type="image/png", data=b"png")
WRONG: dict[str, tuple[pb.GenerateRequest, str]] = {
    "an image of the model": (with_part("ROLE_ASSISTANT", image=PNG), "messages[1].content[0].image"),
    "an image that is none": (
        with_part("ROLE_USER", image=message_pb2.Media(media_type="image/bmp", data=b"x")),
        "messages[1].content[0].image.media_type",
    ),
    "an image from anywhere": (
        with_part("ROLE_USER", image=message_pb2.Media(media_type="image/png", url="http://10.0.0.1/x")),
        "messages[1].content[0].image.url",
    ),
    "an image without bytes": (
        with_part("ROLE_USER", image=message_pb2.Media(media_type="image/png")),
        "messages[1].content[0].image.data",
    ),
    "an image too large": (
        with_part("ROLE_USER", image=message_pb2.Media(media_type="image/png", data=bytes(3 * 1024 * 1024 + 1))),
        "messages[1].content[0].image.data",
    ),
    "a document of another kind": (
        with_part("ROLE_USER", document=message_pb2.Media(media_type="application/zip", data=b"PK")),
        "messages[1].content[0].document.media_type",
    ),
    "a document that is not UTF-8": (
        with_part("ROLE_USER", document=message_pb2.Media(media_type="text/plain", data=b"\xff")),
        "messages[1].content[0].document.data",
    ),
    "arguments that are no object": (
        with_part("ROLE_ASSISTANT", tool_call=message_pb2.ToolCall(id="c", name="t", arguments="[1]")),
        "messages[1].content[0].tool_call.arguments",
    ),
    "a result of nothing": (
        with_part("ROLE_TOOL", tool_result=message_pb2.ToolResult(content="x")),
        "messages[1].content[0].tool_result.tool_call_id",
    ),
    "text of a tool": (with_part("ROLE_TOOL", text="x"), "messages[1].content"),
    "a tool given twice": (request(tools=[LOOK, LOOK]), "tools[0].name"),
    "a tool with a bad name": (request(tools=[message_pb2.ToolDefinition(name="a b")]), "tools[0].name"),
    "a tool with a bad schema": (
        request(tools=[message_pb2.ToolDefinition(name="t", input_schema=struct({"type": "cat"}))]),
        "tools[0].input_schema",
    ),
    "a choice of no tool": (
        request(tool_choice=message_pb2.ToolChoice(mode="TOOL_MODE_REQUIRED")),
        "tool_choice.mode",
    ),
    "a choice of another tool": (
        request(tools=[LOOK], tool_choice=message_pb2.ToolChoice(mode="TOOL_MODE_REQUIRED", name="x")),
        "tool_choice.name",
    ),
    "a form without a schema": (
        request(response_format=message_pb2.ResponseFormat(name="x")),
        "response_format.json_schema",
    ),
    "a form with a bad schema": (
        request(response_format=message_pb2.ResponseFormat(json_schema=struct({"type": "cat"}))),
        "response_format.json_schema",
    ),
}


@pytest.mark.parametrize(("asked", "field"), WRONG.values(), ids=WRONG.keys())
async def test_what_is_wrong_is_named_by_field(
    served: Replica, keys: Keys, asked: pb.GenerateRequest, field: str
) -> None:
    error = await refusal(served.stub.Generate(asked, metadata=keys.metadata()).read())
    assert (error.code, error.field) == (Code.INVALID_ARGUMENT, field)
    assert served.model.calls == []


async def test_a_reader_that_lags_gets_events_packed_and_none_is_lost(served: Replica, keys: Keys) -> None:
    served.model.steps = [f"{number} " for number in range(200)]
    plain = await generated(served, keys, request(detach_grace={"seconds": 5}))
    call = served.stub.Attach(pb.AttachRequest(generation_id="gen_1", packing=True), metadata=keys.metadata())
    answers = [answer async for answer in call]
    assert len(answers) == 1
    packed = [event for answer in answers for event in (answer.event, *answer.more)]
    assert packed == plain


async def test_for_whom_nobody_waits_behind_events_come_together(served: Replica, keys: Keys) -> None:
    served.model.steps = [f"{number} " for number in range(200)]
    call = served.stub.Generate(request(gather={"seconds": 5}), metadata=keys.metadata())
    answers = [answer async for answer in call]
    events = [event for answer in answers for event in (answer.event, *answer.more)]
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert "".join(event.text.text for event in events) == "".join(served.model.steps)
    assert (len(answers), answers[0].event.WhichOneof("event"), len(answers[0].more)) == (2, "started", 0)


async def test_tokens_are_counted_without_a_call(served: Replica, keys: Keys) -> None:
    asked = pb.CountTokensRequest(messages=request("x" * 40).messages)
    count = await served.stub.CountTokens(asked, metadata=keys.metadata())
    assert (count.model, count.estimated) == ("scripted", True)
    assert 5 <= count.input_tokens <= 20
    assert served.model.calls == []
