"""PromptService as its callers meet it: versions, labels, weights, diffs, rendering and ties."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.protobuf import struct_pb2

from agentnet.inference.v1 import message_pb2, prompt_pb2
from agentnet.inference.v1 import prompt_service_pb2 as pb
from shared import fields
from tests.service.inference.calls import Code, refusal, said
from tests.support.identity import Keys
from tests.support.prompts import creates, prompt_service


class Caller:
    """Calls as one tenant's operator."""

    def __init__(self, stub: Any, keys: Keys, tenant: str = "acme") -> None:
        self.stub = stub
        self.metadata = keys.metadata(tenant, subject="ada")

    def __getattr__(self, name: str) -> Any:
        return lambda request: getattr(self.stub, name)(request, metadata=self.metadata)

    async def create(self, template: str, **changes: Any) -> prompt_pb2.PromptVersion:
        return (await self.CreatePrompt(creates(template, **changes))).version

    async def render(self, reference: str, generation_id: str = "", key: str = "", **values: Any) -> pb.RenderResponse:
        return await self.Render(
            pb.RenderRequest(reference=reference, variables=fields.struct(values), key=key, generation_id=generation_id)
        )

    async def label(self, label: str, *targets: tuple[str, int], name: str = "greeting") -> Any:
        pointed = [prompt_pb2.PromptTarget(version=version, weight=weight) for version, weight in targets]
        return await self.LabelPrompt(pb.LabelPromptRequest(name=name, label=label, targets=pointed))


@pytest.fixture
async def served(keys: Keys) -> AsyncIterator[Any]:
    async with prompt_service(keys) as (stub, _):
        yield stub


@pytest.fixture
def caller(served: Any, keys: Keys) -> Caller:
    return Caller(served, keys)


async def test_a_version_is_its_content_and_comes_back_whole(caller: Caller) -> None:
    request = creates("About {{topic}}", comment="first try", labels=["production"])
    request.content.config.update({"model": "small", "temperature": 0.2})
    made = await caller.CreatePrompt(request)
    again = await caller.CreatePrompt(request)
    assert (made.created, again.created) == (True, False)
    version = made.version
    assert again.version == version
    assert (version.number, version.author, version.comment, list(version.labels)) == (
        1,
        "ada",
        "first try",
        ["production"],
    )
    assert version.content == request.content
    assert version.reference == f"greeting@{version.digest}"
    found = await caller.GetPrompt(pb.GetPromptRequest(reference=version.reference))
    assert found.version == version
    assert [(one.label, one.targets[0].version, one.targets[0].weight) for one in found.labels] == [
        ("production", version.digest, 1)
    ]


async def test_every_kind_of_reference_finds_its_version(caller: Caller) -> None:
    one = await caller.create("one")
    assert (await caller.GetPrompt(pb.GetPromptRequest(reference="greeting"))).version.digest == one.digest
    await caller.label("production", ("1", 1))
    two = await caller.create("two", labels=["staging"])
    for version, expected in {
        "": one, "@production": one, "@1": one, f"@{one.digest[:12]}": one, "@staging": two, "@latest": two, "@2": two,
    }.items():  # fmt: skip
        found = await caller.GetPrompt(pb.GetPromptRequest(reference=f"greeting{version}"))
        assert found.version.digest == expected.digest, version


async def test_a_prompt_renders_into_messages_ready_for_a_model(caller: Caller) -> None:
    version = await caller.create("About {{topic}}?")
    rendered = await caller.render("greeting", topic="tea {{topic}}")
    assert [(one.role, one.content[0].text) for one in rendered.messages] == [
        (message_pb2.ROLE_SYSTEM, "Be kind."),
        (message_pb2.ROLE_USER, "About tea {{topic}}?"),
    ]
    assert (rendered.version.digest, rendered.version.HasField("content")) == (version.digest, False)


async def test_moving_a_label_moves_what_is_rendered_and_taking_it_away_ends_it(caller: Caller) -> None:
    await caller.create("one", labels=["production"])
    two = await caller.create("two")
    assert (await caller.render("greeting")).messages[1].content[0].text == "one"
    pointed = (await caller.label("production", ("2", 0))).label
    assert [(one.version, one.weight) for one in pointed.targets] == [(two.digest, 1)]
    assert (await caller.render("greeting")).messages[1].content[0].text == "two"
    assert not (await caller.label("production")).label.targets
    error = await refusal(caller.render("greeting@production"))
    assert (said(error), error.facts["reference"]) == ((Code.NOT_FOUND, "PROMPT_NOT_FOUND"), "greeting@production")


async def test_versions_compete_by_weight_and_a_key_stays_with_its_own(caller: Caller) -> None:
    await caller.create("one")
    await caller.create("two")
    await caller.label("production", ("1", 3), ("2", 1))
    met = [(await caller.render("greeting", key=f"user-{number}")).version.number for number in range(200)]
    again = [(await caller.render("greeting", key=f"user-{number}")).version.number for number in range(200)]
    assert met == again
    assert 25 <= Counter(met)[2] <= 75
    assert {(await caller.render("greeting")).version.number for _ in range(5)} == {1}


async def test_a_generation_is_tied_to_its_version_for_good(caller: Caller) -> None:
    one = await caller.create("one", labels=["production"])
    await caller.render("greeting", generation_id="gen_1")
    two = await caller.create("two", labels=["production"])
    await caller.render("greeting", generation_id="gen_2")
    assert (await caller.render("greeting", generation_id="gen_1")).version.digest == one.digest
    listed = await caller.ListPromptGenerations(pb.ListPromptGenerationsRequest(name="greeting"))
    assert {(tied.generation_id, tied.digest, tied.label) for tied in listed.generations} == {
        ("gen_1", one.digest, "production"),
        ("gen_2", two.digest, "production"),
    }
    mine = pb.ListPromptGenerationsRequest(name="greeting", version=two.digest[:12])
    assert [tied.generation_id for tied in (await caller.ListPromptGenerations(mine)).generations] == ["gen_2"]
    await caller.create("other", name="other")
    error = await refusal(caller.render("other", generation_id="gen_1"))
    assert (said(error), error.field) == ((Code.INVALID_ARGUMENT, "FIELD_INVALID"), "generation_id")


async def test_a_diff_tells_what_changed_twice(caller: Caller) -> None:
    await caller.create("About {{topic}}?")
    await caller.create("About {{topic}}!")
    found = await caller.Diff(pb.DiffRequest(before="greeting@1", after="greeting@2"))
    (change,) = found.changes
    assert (change.path, change.kind) == ("messages[1].template", prompt_pb2.PROMPT_CHANGE_KIND_CHANGED)
    assert (change.before, change.after) == ('"About {{topic}}?"', '"About {{topic}}!"')
    assert "-About {{topic}}?\n+About {{topic}}!\n" in found.unified
    same = await caller.Diff(pb.DiffRequest(before="greeting@1", after=f"greeting@{found.before_digest}"))
    assert (list(same.changes), same.unified) == ([], "")


async def test_lists_page_without_losing_or_repeating_any(caller: Caller) -> None:
    for name in ("b", "a", "c"):
        await caller.create("one", name=name)
    for text in ("two", "three"):
        await caller.create(text, name="a")
    first = await caller.ListPrompts(pb.ListPromptsRequest(page_size=2))
    rest = await caller.ListPrompts(pb.ListPromptsRequest(page_size=2, page_token=first.next_page_token))
    assert [(one.name, one.number) for one in (*first.prompts, *rest.prompts)] == [("a", 3), ("b", 1), ("c", 1)]
    newer = await caller.ListVersions(pb.ListVersionsRequest(name="a", page_size=2))
    older = await caller.ListVersions(pb.ListVersionsRequest(name="a", page_size=2, page_token=newer.next_page_token))
    assert [one.number for one in (*newer.versions, *older.versions)] == [3, 2, 1]
    assert (rest.next_page_token, older.next_page_token) == ("", "")


async def test_generations_page_too(caller: Caller) -> None:
    await caller.create("one")
    for number in range(3):
        await caller.render("greeting", generation_id=f"gen_{number}")
    first = await caller.ListPromptGenerations(pb.ListPromptGenerationsRequest(name="greeting", page_size=2))
    rest = await caller.ListPromptGenerations(
        pb.ListPromptGenerationsRequest(name="greeting", page_size=2, page_token=first.next_page_token)
    )
    assert [one.generation_id for one in (*first.generations, *rest.generations)] == ["gen_2", "gen_1", "gen_0"]


async def test_another_tenant_has_other_prompts(served: Any, keys: Keys, caller: Caller) -> None:
    await caller.create("one")
    stranger = Caller(served, keys, "other")
    assert said(await refusal(stranger.render("greeting"))) == (Code.NOT_FOUND, "PROMPT_NOT_FOUND")
    assert not (await stranger.ListPrompts(pb.ListPromptsRequest())).prompts


async def test_a_wrong_template_is_refused_with_its_place(caller: Caller) -> None:
    error = await refusal(caller.CreatePrompt(creates("Hello\n  {{nobody}}")))
    assert said(error) == (Code.INVALID_ARGUMENT, "PROMPT_INVALID")
    assert (error.field, error.facts) == ("content.messages[1].template", {"line": "2", "column": "3"})


def with_variable(**changes: Any) -> pb.CreatePromptRequest:
    request = creates("{{topic}}")
    request.content.ClearField("variables")
    request.content.variables.add(**({"name": "topic", "type": "PROMPT_VARIABLE_TYPE_STRING"} | changes))
    return request


def without(*parts: str) -> pb.CreatePromptRequest:
    request = creates("x")
    for part in parts:
        request.content.ClearField(part)  # type: ignore[arg-type]
    return request


LONG = creates("x")
LONG.content.messages[0].template = "\n" * 9_999 + "x"
TWICE = creates("{{topic}}")
TWICE.content.variables.add(name="topic", type="PROMPT_VARIABLE_TYPE_JSON")
REFUSED = {
    "no name": (creates("x", name=""), "FIELD_REQUIRED", "name"),
    "a bad name": (creates("x", name="a b"), "FIELD_INVALID", "name"),
    "no messages": (without("messages"), "FIELD_REQUIRED", "content.messages"),
    "no template": (creates(" "), "FIELD_REQUIRED", "content.messages[1].template"),
    "too many lines": (LONG, "FIELD_TOO_LONG", "content.messages"),
    "an untyped variable": (with_variable(type=0), "FIELD_INVALID", "content.variables[0].type"),
    "a taken word": (with_variable(name="this"), "FIELD_INVALID", "content.variables[0].name"),
    "a variable twice": (TWICE, "FIELD_INVALID", "content.variables"),
    "a default of another type": (
        with_variable(default_value=struct_pb2.Value(number_value=1)),
        "FIELD_INVALID",
        "content.variables[0].default_value",
    ),
    "a label like a digest": (creates("x", labels=["abcdef012345"]), "FIELD_INVALID", "labels"),
    "the label latest": (creates("x", labels=["latest"]), "FIELD_INVALID", "labels"),
    "a long comment": (creates("x", comment="x" * 501), "FIELD_TOO_LONG", "comment"),
}


@pytest.mark.parametrize(("request_", "reason", "field"), REFUSED.values(), ids=REFUSED.keys())
async def test_a_wrong_prompt_names_the_field(
    caller: Caller, request_: pb.CreatePromptRequest, reason: str, field: str
) -> None:
    error = await refusal(caller.CreatePrompt(request_))
    assert (*said(error), error.field) == (Code.INVALID_ARGUMENT, reason, field)


async def test_wrong_values_labels_and_references_name_the_field(caller: Caller) -> None:
    await caller.create("{{topic}}")
    for call, field in (
        (caller.render("greeting"), "variables.topic"),
        (caller.render("greeting", topic=7), "variables.topic"),
        (caller.render("greeting@Bad"), "reference"),
        (caller.label("production", ("staging", 1)), "targets[0].version"),
        (caller.label("production", ("1", 1_000_001)), "targets[0].weight"),
        (caller.label("production", ("1", 1), ("1", 2)), "targets"),
        (caller.label("Production", ("1", 1)), "label"),
        (caller.ListVersions(pb.ListVersionsRequest(name="greeting", page_token="x")), "page_token"),
    ):
        error = await refusal(call)
        assert (error.code, error.field) == (Code.INVALID_ARGUMENT, field)
    for call in (
        caller.render("greeting@9"),
        caller.label("production", ("9", 1)),
        caller.label("production", name="nobody"),
        caller.ListVersions(pb.ListVersionsRequest(name="nobody")),
    ):
        assert said(await refusal(call)) == (Code.NOT_FOUND, "PROMPT_NOT_FOUND")
