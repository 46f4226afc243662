"""What is stored and what is recalled passes the policy in force."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from google.protobuf import json_format

from agentnet.memory.v1 import change_pb2, fact_service_pb2
from agentnet.memory.v1 import conversation_service_pb2 as talk
from agentnet.memory.v1 import memory_service_pb2 as pb
from services.memory.errors import PolicyBlocked
from services.memory.policy import Held, MemoryPolicy
from shared.errors import from_status
from shared.monitors.rules import Target
from tests.service.memory.calls import context, recall, record, refused, remember, remember_many, say, say_many
from tests.service.memory.conftest import Served, serve
from tests.service.memory.test_sets import add, compare
from tests.support.identity import make_keys
from tests.support.published import unheard

SSN = {"name": "no_ssn", "type": "regex", "severity": "SEVERITY_SEVERE", "pattern": r"\d{3}-\d{2}-\d{4}"}
SECRET = {
    "name": "no_codename",
    "type": "keyword",
    "severity": "SEVERITY_SEVERE",
    "action": "RULE_ACTION_BLOCK",
    "target": "RULE_TARGET_OUTPUT",
    "keywords": ["bluebird"],
}
RECALLED = {
    "name": "not_in_prompts",
    "type": "keyword",
    "severity": "SEVERITY_SEVERE",
    "target": "RULE_TARGET_PROMPT",
    "keywords": ["salary"],
}
BLOCKED = ("FAILED_PRECONDITION", "POLICY_BLOCKED")


@pytest.fixture
async def governed(tmp_path: Path) -> AsyncIterator[Served]:
    redacting = {**SSN, "target": "RULE_TARGET_OUTPUT"}
    async with serve(make_keys(tmp_path), {}, redacting, SECRET, RECALLED) as served:
        yield served


async def test_what_a_rule_redacts_is_never_stored(governed: Served) -> None:
    kept = await remember(governed, "Ada's number is 123-45-6789.")
    assert "123-45-6789" not in kept.content
    assert kept.content.startswith("Ada's number is ")
    assert (await recall(governed, "Ada's number")).matches[0].memory.content == kept.content
    assert "123-45" not in "".join(governed.embedder.calls)
    assert kept.policy_version == "default@1.0.0"


async def test_a_turn_that_a_rule_blocks_is_no_harm_to_the_others(governed: Served) -> None:
    said = (("s", 1, "ada", "Project bluebird begins."), ("s", 2, "ada", "The sky is grey."))
    answer = await say_many(governed, *said)
    assert [(one.turn_id, from_status(one.status).reason_name) for one in answer.refused] == [("s-1", "POLICY_BLOCKED")]
    found = await recall(governed, "the sky and project bluebird")
    assert [match.memory.content for match in found.matches] == ["The sky is grey."]


async def test_a_piece_of_a_turn_that_a_rule_blocks_is_no_harm_to_the_others(
    governed: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def whole_alone(self: MemoryPolicy, tenant: str, agent: str, text: str, *, field: str) -> tuple[str, str]:
        if len(text) == 32_768:
            raise PolicyBlocked("not this piece", field=field)
        return text, ""

    monkeypatch.setattr(MemoryPolicy, "kept", whole_alone)
    long = "word " * 10_000
    answer = await say_many(governed, ("s", 1, "ada", long), ("s", 2, "ada", "The sky is grey."))
    assert [one.turn_id for one in answer.refused] == ["s-1"]
    found = await recall(governed, "the sky is grey")
    assert [match.memory.content for match in found.matches] == ["The sky is grey."]


async def test_a_tag_that_many_of_a_batch_have_is_judged_once_for_an_agent(governed: Served) -> None:
    many = [{"content": f"number {n}", "agent": "Ada" if n else "Zeus", "tags": ["a 123-45-6789"]} for n in range(4)]
    kept = await remember_many(governed, many)
    assert len({tuple(one.memory.tags) for one in kept}) == 1
    assert "123-45-6789" not in kept[0].memory.tags[0]
    assert len(governed.decided) == 4 + 2


async def test_what_a_rule_blocks_is_refused_and_nothing_of_its_batch_is_stored(governed: Served) -> None:
    assert await refused(remember(governed, "Project bluebird begins.")) == (*BLOCKED, "content")
    both = remember_many(governed, [{"content": "The sky is blue."}, {"content": "The bluebird flies."}])
    assert await refused(both) == (*BLOCKED, "content")
    assert list((await recall(governed, "the blue sky and the bird")).matches) == []


async def test_a_change_is_judged_like_something_new(governed: Served) -> None:
    kept = await remember(governed, "The sky is blue.")
    request = change_pb2.UpdateMemoryRequest(
        memory_id=kept.id, memory={"content": "bluebird"}, update_mask={"paths": ["content"]}
    )
    call = governed.memories.UpdateMemory(request, metadata=governed.caller())
    assert await refused(call) == (*BLOCKED, "content")
    assert (await recall(governed, "blue sky")).matches[0].memory.content == "The sky is blue."


async def test_facts_are_judged_too(governed: Served) -> None:
    assert await refused(record(governed, ("ada", "works on", "bluebird"))) == (*BLOCKED, "facts.object")
    answer = await record(governed, ("ada", "has number", "123-45-6789"))
    assert "123-45" not in answer.facts[0].object


async def test_what_may_be_stored_and_not_be_part_of_a_prompt_is_withheld(governed: Served) -> None:
    await remember(governed, "Ada's salary is high.")
    await remember(governed, "Ada likes tea.")
    answer = await recall(governed, "What about Ada's tea and salary?")
    assert [match.memory.content for match in answer.matches] == ["Ada likes tea."]
    assert answer.coverage.withheld == 1


async def test_the_corpus_that_policy_compares_with_is_kept_as_it_is(governed: Served) -> None:
    assert await add(governed, "restricted", "project bluebird") == 1
    assert (await compare(governed, "restricted", "project bluebird")).score > 0.99


async def test_a_strict_mesh_without_any_policy_stores_and_recalls_nothing(tmp_path: Path) -> None:
    async with serve(make_keys(tmp_path), {}, enforced=unheard(Held.of)) as served:
        unavailable = ("UNAVAILABLE", "POLICY_UNAVAILABLE", None)
        assert await refused(remember(served, "anything")) == unavailable
        assert await refused(recall(served, "anything")) == unavailable


async def test_what_is_decided_of_memories_is_told(governed: Served) -> None:
    await remember(governed, "Ada's number is 123-45-6789.")
    await remember(governed, "Her salary is high.")
    await refused(remember(governed, "Project bluebird begins."))
    told = [(one.target, one.text, one.allowed, one.unchanged, one.rules) for one in governed.decided]
    assert told == [
        (Target.OUTPUT, "Ada's number is 123-45-6789.", True, False, ("no_ssn",)),
        (Target.OUTPUT, "Her salary is high.", True, True, ()),
        (Target.OUTPUT, "Project bluebird begins.", False, False, ("no_codename",)),
    ]
    governed.decided.clear()
    await recall(governed, "Her salary")
    withheld = [(one.target, one.allowed, one.rules) for one in governed.decided if not one.allowed]
    assert withheld == [(Target.PROMPT, False, ("not_in_prompts",))]
    assert {one.bundles for one in governed.decided} == {("default@1.0.0",)}


async def test_tags_notes_and_every_part_of_a_fact_are_judged_too(governed: Served) -> None:
    kept = await remember(
        governed, "Ada called.", tags=["123-45-6789", "call"],
        metadata={"number": "123-45-6789", "123-45-6789": 1, "deep": {"all": ["123-45-6789", 7], "987-65-4321": 2}},
    )  # fmt: skip
    assert "123-45" not in str(kept)
    assert "987-65" not in str(kept)
    assert (kept.tags[1], kept.metadata["deep"]["all"][1]) == ("call", 7)
    assert await refused(remember(governed, "x", metadata={"deep": ["bluebird"]})) == (*BLOCKED, "metadata")
    assert await refused(remember(governed, "x", metadata={"bluebird": 1})) == (*BLOCKED, "metadata")
    assert await refused(remember(governed, "x", tags=["bluebird"])) == (*BLOCKED, "tags")
    assert await refused(record(governed, ("bluebird", "is", "a name"))) == (*BLOCKED, "facts.subject")
    assert await refused(record(governed, ("ada", "bluebird", "yes"))) == (*BLOCKED, "facts.relation")
    request = change_pb2.UpdateMemoryRequest(memory_id=kept.id, update_mask={"paths": ["tags", "metadata"]})
    request.memory.tags.append("bluebird")
    call = governed.memories.UpdateMemory(request, metadata=governed.caller())
    assert await refused(call) == (*BLOCKED, "tags")


async def test_a_changed_content_names_the_bundles_that_judged_it(governed: Served) -> None:
    kept = await remember(governed, "The sky is blue.", policy_version="old@1")
    request = change_pb2.UpdateMemoryRequest(
        memory_id=kept.id, memory={"content": "The sky is grey.", "tags": ["sky"]}, update_mask={"paths": ["tags"]}
    )
    tagged = (await governed.memories.UpdateMemory(request, metadata=governed.caller())).memory
    request.update_mask.paths.append("content")
    changed = (await governed.memories.UpdateMemory(request, metadata=governed.caller())).memory
    assert (tagged.policy_version, changed.policy_version) == ("old@1", "default@1.0.0")


async def test_what_may_not_be_part_of_a_prompt_is_withheld_however_it_is_read(governed: Served) -> None:
    kept = await remember(governed, "Ada's salary is high.", tags=["pay"])
    await remember(governed, "Ada likes tea.", tags=["pay"])
    await record(governed, ("ada", "earns", "a salary"), ("ada", "likes", "tea"), several=True)
    await say(governed, "s", 1, "Athena", "The salary was paid.")
    await say(governed, "s", 2, "Athena", "Tea was served.")
    caller = governed.caller()
    read = (await governed.memories.GetMemory(pb.GetMemoryRequest(memory_id=kept.id), metadata=caller)).memory
    listed = (await governed.memories.ListMemories(pb.ListMemoriesRequest(), metadata=caller)).memories
    facts = (await governed.facts.ListFacts(fact_service_pb2.ListFactsRequest(subject="ada"), metadata=caller)).facts
    request = fact_service_pb2.ListRelatedFactsRequest(subject="ada")
    near = (await governed.facts.ListRelatedFacts(request, metadata=caller)).facts
    assert (read.id, read.content) == (kept.id, "")
    assert sorted(one.content for one in listed) == ["", "Ada likes tea."]
    assert sorted(one.object for one in facts) == sorted(one.object for one in near) == ["", "tea"]
    known = await context(governed, "s", query="Ada", options={"tags": ["pay"], "subjects": ["ada"]})
    assert [turn.content for turn in known.short_term] == ["Tea was served."]
    assert "salary" not in known.assembled.text
    assert "ada likes: tea" in known.assembled.text
    assert "Ada likes tea." in known.assembled.text
    asked = talk.GetConversationRequest(session_id="s")
    said = await governed.conversations.GetConversation(asked, metadata=caller)
    assert [turn.content for turn in said.turns] == ["Tea was served."]


async def test_tags_notes_and_the_ends_of_a_fact_are_withheld_as_contents_are(governed: Served) -> None:
    noted = {"why": "her salary", "salary": [1, "tea"], "salary too": [1, "tea"]}
    kept = await remember(governed, "Ada called.", session_id="s", tags=["salary", "call"], metadata=noted)
    await remember(governed, "Bob called.", session_id="s")
    await record(governed, ("the salary", "is", "high"), ("ada", "asks for salary", "often"), ("ada", "drinks", "tea"))
    caller = governed.caller()
    answer = await recall(governed, "Who called?", neighbours=1)
    found = {match.memory.content: match for match in answer.matches}
    request = pb.GetMemoryRequest(memory_id=kept.id)
    read = (await governed.memories.GetMemory(request, metadata=caller)).memory
    for one in (read, found["Ada called."].memory, found["Bob called."].neighbours[0]):
        assert list(one.tags) == ["call"]
        assert json_format.MessageToDict(one.metadata) == {"why": "", "": [1, "tea"], "'": [1, "tea"]}
    known = await context(governed, "s", options={"subjects": ["the salary", "ada"]})
    assert [fact.object for fact in known.assembled.facts] == ["tea"]
    listing = fact_service_pb2.ListFactsRequest()
    facts = (await governed.facts.ListFacts(listing, metadata=caller)).facts
    assert {(fact.subject, fact.object) for fact in facts} == {("the salary", ""), ("ada", ""), ("ada", "tea")}


async def test_a_turn_is_judged_before_it_is_kept(governed: Served) -> None:
    await say(governed, "s", 1, "Athena", "My number is 123-45-6789.", remember=True)
    assert await refused(say(governed, "s", 2, "Athena", "bluebird")) == (*BLOCKED, "content")
    known = await context(governed, "s", options={})
    assert "My number is" in known.assembled.text
    assert "123-45" not in known.assembled.text
    assert "bluebird" not in known.assembled.text
