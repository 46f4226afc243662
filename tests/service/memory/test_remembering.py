"""Storing, changing and forgetting over gRPC."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any

import pytest
from google.protobuf import json_format

from agentnet.memory.v1 import bulk_service_pb2, change_pb2, memory_pb2
from agentnet.memory.v1 import conversation_service_pb2 as talk
from agentnet.memory.v1 import memory_service_pb2 as pb
from tests.service.memory.calls import found, recall, refused, remember, remember_many, say


async def test_a_memory_comes_back_with_where_it_came_from(served: Any) -> None:
    kept = await remember(
        served, "Routers restart on Sunday.", memory_type="MEMORY_TYPE_LONG_TERM", agent="Athena", session_id="ses_1",
        turn_id="trn_1", policy_version="default@3", tags=["ops"], metadata={"source": "runbook", "page": 4},
        importance=0.9, expire_time="2026-02-01T00:00:00Z",
    )  # fmt: skip
    answer = await served.memories.GetMemory(
        pb.GetMemoryRequest(memory_id=kept.id, include_embedding=True), metadata=served.caller()
    )
    read = answer.memory
    assert (read.session_id, read.turn_id, read.agent, read.policy_version) == ("ses_1", "trn_1", "Athena", "default@3")
    assert (read.memory_type, list(read.tags), read.importance) == (memory_pb2.MEMORY_TYPE_LONG_TERM, ["ops"], 0.9)
    assert json_format.MessageToDict(read.metadata) == {"source": "runbook", "page": 4.0}
    assert read.create_time.ToJsonString() == "2026-01-01T00:00:00Z"
    assert read.expire_time.ToJsonString() == "2026-02-01T00:00:00Z"
    assert (len(read.embedding), read.embedding_model) == (384, "hashing")


async def test_the_types_are_those_of_the_contract_and_short_term_is_appended(served: Any) -> None:
    assert set(memory_pb2.MemoryType.keys()) >= {
        "MEMORY_TYPE_SHORT_TERM", "MEMORY_TYPE_EPISODIC", "MEMORY_TYPE_SEMANTIC", "MEMORY_TYPE_LONG_TERM",
    }  # fmt: skip
    call = remember(served, "now", memory_type="MEMORY_TYPE_SHORT_TERM")
    assert await refused(call) == ("INVALID_ARGUMENT", "FIELD_INVALID", "memory_type")
    assert (await remember(served, "untyped")).memory_type == memory_pb2.MEMORY_TYPE_EPISODIC


async def test_the_same_content_is_stored_once(served: Any) -> None:
    first, again, other = await remember_many(
        served, [{"content": "one"}, {"content": "one"}, {"content": "one", "agent": "Athena"}]
    )
    assert (first.created, again.created, other.created) == (True, False, True)
    assert again.memory.id == first.memory.id


async def test_an_update_changes_what_its_mask_names_and_nothing_else(served: Any) -> None:
    kept = await remember(served, "The door code is 1234", tags=["door"], importance=0.2)
    request = change_pb2.UpdateMemoryRequest(
        memory_id=kept.id, memory=memory_pb2.Memory(content="The door code is 9876", importance=1.0)
    )
    request.update_mask.paths[:] = ["content"]
    served.clock.advance(timedelta(hours=1))
    changed = (await served.memories.UpdateMemory(request, metadata=served.caller())).memory
    assert (changed.id, changed.content, list(changed.tags)) == (kept.id, "The door code is 9876", ["door"])
    assert changed.importance == 0.2
    assert changed.update_time.ToJsonString() == "2026-01-01T01:00:00Z"
    assert await found(served, "door code 9876", strategy="SEARCH_STRATEGY_LEXICAL") == ["The door code is 9876"]
    assert await found(served, "1234", strategy="SEARCH_STRATEGY_LEXICAL") == []


async def test_an_update_without_new_content_asks_for_no_embedding(served: Any) -> None:
    kept = await remember(served, "Steady", expire_time="2026-02-01T00:00:00Z")
    asked = len(served.embedder.calls)
    request = change_pb2.UpdateMemoryRequest(
        memory_id=kept.id, memory=memory_pb2.Memory(tags=["t"], importance=0.7), update_mask={"paths": ["tags"]}
    )
    request.update_mask.paths.extend(["importance", "expire_time", "metadata"])
    changed = (await served.memories.UpdateMemory(request, metadata=served.caller())).memory
    assert (list(changed.tags), changed.importance, changed.HasField("expire_time")) == (["t"], 0.7, False)
    assert len(served.embedder.calls) == asked


async def _change(served: Any, memory_id: str, **values: Any) -> Any:
    request = change_pb2.UpdateMemoryRequest(
        memory_id=memory_id, memory=memory_pb2.Memory(**values), update_mask={"paths": values}
    )
    return (await served.memories.UpdateMemory(request, metadata=served.caller())).memory


async def test_changes_of_one_memory_at_once_are_all_kept(served: Any) -> None:
    kept = await remember(served, "Copper", tags=["metal"])
    served.embedder.meanwhile = lambda: _change(served, kept.id, tags=["metal", "shiny"], importance=0.9)
    changed = await _change(served, kept.id, content="Silver")
    assert (changed.content, list(changed.tags), changed.importance) == ("Silver", ["metal", "shiny"], 0.9)
    assert await found(served, "Silver", strategy="SEARCH_STRATEGY_LEXICAL") == ["Silver"]


async def test_a_change_to_what_is_forgotten_meanwhile_brings_nothing_back(served: Any) -> None:
    kept = await remember(served, "Copper")
    request = pb.ForgetRequest(memory_id=kept.id)
    served.embedder.meanwhile = lambda: served.memories.Forget(request, metadata=served.caller())
    assert await refused(_change(served, kept.id, content="Silver")) == ("NOT_FOUND", "MEMORY_NOT_FOUND", None)
    assert await found(served, "Copper Silver") == []


async def test_a_tag_that_is_given_twice_is_kept_once(served: Any) -> None:
    assert list((await remember(served, "Tagged", tags=["b", "a", "b"])).tags) == ["b", "a"]


async def test_a_list_of_an_agent_that_cannot_be_is_refused(served: Any) -> None:
    request = pb.ListMemoriesRequest(agent="a" * 65)
    call = served.memories.ListMemories(request, metadata=served.caller())
    assert await refused(call) == ("INVALID_ARGUMENT", "FIELD_TOO_LONG", "agent")


async def test_an_update_may_not_end_a_memory_before_it_began(served: Any) -> None:
    kept = await remember(served, "Mortal")
    call = _change(served, kept.id, expire_time=kept.create_time)
    assert await refused(call) == ("INVALID_ARGUMENT", "FIELD_INVALID", "memory.expire_time")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"update_mask": ""}, ("INVALID_ARGUMENT", "FIELD_REQUIRED", "update_mask")),
        ({"update_mask": "agent"}, ("INVALID_ARGUMENT", "FIELD_INVALID", "update_mask")),
        ({"update_mask": "content"}, ("INVALID_ARGUMENT", "FIELD_REQUIRED", "memory.content")),
        ({"update_mask": "tags", "memory_id": "mem_none"}, ("NOT_FOUND", "MEMORY_NOT_FOUND", None)),
        ({"update_mask": "content", "memory": {"content": "taken"}}, ("ALREADY_EXISTS", "MEMORY_EXISTS", None)),
    ],
)
async def test_a_bad_update_says_what_is_wrong(served: Any, change: dict[str, Any], said: Any) -> None:
    await remember(served, "taken")
    kept = await remember(served, "mine")
    request = json_format.ParseDict({"memory_id": kept.id} | change, change_pb2.UpdateMemoryRequest())
    assert await refused(served.memories.UpdateMemory(request, metadata=served.caller())) == said


async def test_a_deletion_is_final_and_proven(served: Any) -> None:
    kept = await remember(served, "Ada's phone number is 555-0100")
    answer = await served.memories.Forget(pb.ForgetRequest(memory_id=kept.id), metadata=served.caller())
    assert answer.receipt.subject_id == kept.id
    assert answer.receipt.content_sha256 == hashlib.sha256(kept.content.encode()).hexdigest()
    assert answer.receipt.requested_by == "ada"
    assert answer.delete_time == answer.receipt.delete_time
    again = served.memories.Forget(pb.ForgetRequest(memory_id=kept.id), metadata=served.caller())
    assert await refused(again) == ("NOT_FOUND", "MEMORY_NOT_FOUND", None)
    assert await found(served, "Ada's phone number") == []


async def test_many_are_forgotten_by_session_agent_or_tag(served: Any) -> None:
    await remember_many(
        served,
        [{"content": f"m{n}", "agent": "Athena" if n % 2 else "", "session_id": "s" if n < 4 else ""} for n in range(6)],
    )  # fmt: skip
    request = bulk_service_pb2.ForgetManyRequest(session_id="s", agent="Athena")
    answer = await served.bulk.ForgetMany(request, metadata=served.caller())
    left = await served.memories.ListMemories(pb.ListMemoriesRequest(), metadata=served.caller())
    assert (len(answer.receipts), answer.more) == (2, False)
    assert sorted(one.content for one in left.memories) == ["m0", "m2", "m4", "m5"]
    nobody = served.bulk.ForgetMany(bulk_service_pb2.ForgetManyRequest(), metadata=served.caller())
    assert await refused(nobody) == ("INVALID_ARGUMENT", "FIELD_REQUIRED", "session_id")


async def test_what_ends_before_it_begins_is_refused(served: Any) -> None:
    ended = remember(served, "late", expire_time="2026-01-01T00:00:00Z")
    assert await refused(ended) == ("INVALID_ARGUMENT", "FIELD_INVALID", "expire_time")
    times = {"create_time": "2025-01-01T00:00:00Z", "expire_time": "2025-02-01T00:00:00Z"}
    assert (await remember(served, "of old", **times)).expire_time.ToJsonString() == times["expire_time"]
    assert await found(served, "of old", as_of="2025-01-15T00:00:00Z") == ["of old"]


async def test_what_has_a_time_to_live_ends_by_itself(served: Any) -> None:
    kept = await remember(served, "The Wi-Fi password is swordfish", expire_time="2026-01-01T01:00:00Z")
    assert await found(served, "Wi-Fi password") == [kept.content]
    served.clock.advance(timedelta(hours=1))
    assert await found(served, "Wi-Fi password") == []
    then = await found(served, "Wi-Fi password", as_of="2026-01-01T00:30:00Z")
    assert then == [kept.content]


BAD = [
    ({"content": ""}, "FIELD_REQUIRED", "content"),
    ({"content": "x" * 1_048_576}, "FIELD_TOO_LONG", "content"),
    ({"content": "a\0b"}, "FIELD_INVALID", "content"),
    ({"content": "c", "tags": ["t"] * 33}, "FIELD_TOO_LONG", "tags"),
    ({"content": "c", "tags": [""]}, "FIELD_REQUIRED", "tags[0]"),
    ({"content": "c", "metadata": {"blob": "x" * 20_000}}, "FIELD_TOO_LONG", "metadata"),
    ({"content": "c", "metadata": {"n": "a\0"}}, "FIELD_INVALID", "metadata"),
    ({"content": "c", "importance": 1.5}, "FIELD_INVALID", "importance"),
    ({"content": "c", "importance": "NaN"}, "FIELD_INVALID", "importance"),
    ({"content": "c", "embedding": [1.0, 0.0, 0.0]}, "EMBEDDING_WIDTH_INVALID", "embedding"),
    ({"content": "c", "embedding": [0.0] * 384}, "FIELD_INVALID", "embedding"),
    ({"content": "c", "embedding": ["NaN"] * 384}, "FIELD_INVALID", "embedding"),
    ({"content": "c", "create_time": "2027-01-01T00:00:00Z"}, "FIELD_INVALID", "create_time"),
]


@pytest.mark.parametrize(("given", "reason", "field"), BAD)
async def test_bad_input_names_the_field_alone_and_in_a_batch(
    served: Any, given: dict[str, Any], reason: str, field: str
) -> None:
    alone = remember(served, given["content"], **{key: value for key, value in given.items() if key != "content"})
    batch = remember_many(served, [{"content": "fine"}, given])
    assert await refused(alone) == ("INVALID_ARGUMENT", reason, field)
    assert await refused(batch) == ("INVALID_ARGUMENT", reason, f"memories[1].{field}")
    listed = await served.memories.ListMemories(pb.ListMemoriesRequest(), metadata=served.caller())
    assert list(listed.memories) == []


async def test_a_batch_is_embedded_in_one_go_and_given_vectors_are_taken(served: Any) -> None:
    await remember_many(served, [{"content": f"m{n}"} for n in range(100)])
    assert len(served.embedder.calls) == 100
    await remember_many(served, [{"content": "given", "embedding": [1.0] * 384}])
    assert len(served.embedder.calls) == 100
    mixed = remember_many(served, [{"content": "a", "embedding": [1.0] * 384}, {"content": "b"}])
    assert await refused(mixed) == ("INVALID_ARGUMENT", "FIELD_INVALID", "memories[1].embedding")
    assert await refused(remember_many(served, [])) == ("INVALID_ARGUMENT", "FIELD_REQUIRED", "memories")
    many = remember_many(served, [{"content": "x"}] * 1001)
    assert await refused(many) == ("INVALID_ARGUMENT", "FIELD_TOO_LONG", "memories")


async def test_without_embeddings_nothing_is_stored_and_the_caller_may_retry(served: Any) -> None:
    served.embedder.away = True
    assert await refused(remember(served, "later")) == ("UNAVAILABLE", "DEPENDENCY_UNAVAILABLE", None)
    served.embedder.away = False
    assert (await remember(served, "later")).content == "later"


async def test_an_unknown_memory_is_not_found(served: Any) -> None:
    call = served.memories.GetMemory(pb.GetMemoryRequest(memory_id="mem_none"), metadata=served.caller())
    assert await refused(call) == ("NOT_FOUND", "MEMORY_NOT_FOUND", None)
    mine = await remember(served, "mine")
    other = served.memories.GetMemory(pb.GetMemoryRequest(memory_id=mine.id), metadata=served.caller("globex"))
    assert await refused(other) == ("NOT_FOUND", "MEMORY_NOT_FOUND", None)
    assert (await recall(served, "mine", "globex")).matches == []


async def test_lists_page_and_filter(served: Any) -> None:
    await remember_many(served, [{"content": f"m{n}", "tags": ["even"] if n % 2 == 0 else []} for n in range(5)])
    request = pb.ListMemoriesRequest(page_size=2, tags=["even"], order_by="create_time")
    first = await served.memories.ListMemories(request, metadata=served.caller())
    request.page_token = first.next_page_token
    rest = await served.memories.ListMemories(request, metadata=served.caller())
    assert sorted(one.content for one in (*first.memories, *rest.memories)) == ["m0", "m2", "m4"]
    assert not rest.next_page_token
    bad = served.memories.ListMemories(pb.ListMemoriesRequest(order_by="size"), metadata=served.caller())
    assert await refused(bad) == ("INVALID_ARGUMENT", "FIELD_INVALID", "order_by")


async def test_what_has_ended_is_remembered_anew(served: Any) -> None:
    first = await remember(served, "The code is 4711", expire_time="2026-01-01T01:00:00Z")
    served.clock.advance(timedelta(hours=2))
    request = pb.RememberRequest(content="The code is 4711")
    again = await served.memories.Remember(request, metadata=served.caller())
    assert (again.created, again.memory.id != first.id) == (True, True)
    assert await found(served, "code 4711") == ["The code is 4711"]


async def test_what_has_ended_is_forgotten_too(served: Any) -> None:
    one = await remember(served, "The code is 4711", expire_time="2026-01-01T01:00:00Z", session_id="s")
    await remember(served, "The code was 4710", expire_time="2026-01-01T01:00:00Z", session_id="s")
    served.clock.advance(timedelta(hours=2))
    gone = await served.memories.Forget(pb.ForgetRequest(memory_id=one.id), metadata=served.caller())
    request = bulk_service_pb2.ForgetManyRequest(session_id="s")
    rest = await served.bulk.ForgetMany(request, metadata=served.caller())
    assert (gone.receipt.subject_id, len(rest.receipts)) == (one.id, 1)
    assert await found(served, "code", as_of="2026-01-01T00:30:00Z") == []


async def test_a_forgotten_session_is_forgotten_with_all_that_was_said(served: Any) -> None:
    for number in range(52):
        await say(served, "s", number, "Athena", f"Turn {number}.", remember=number == 51)
    by_agent = bulk_service_pb2.ForgetManyRequest(session_id="s", agent="Apollo")
    assert not (await served.bulk.ForgetMany(by_agent, metadata=served.caller())).receipts
    request = bulk_service_pb2.ForgetManyRequest(session_id="s")
    receipts = (await served.bulk.ForgetMany(request, metadata=served.caller())).receipts
    hashes = {one.subject_id: one.content_sha256 for one in receipts}
    assert len(receipts) == len(hashes) == 1 + 50 + 1
    assert hashes["s-51"] == hashlib.sha256(b"Turn 51.").hexdigest()
    assert "s" in hashes
    request = talk.GetConversationRequest(session_id="s")
    left = await served.conversations.GetConversation(request, metadata=served.caller())
    assert (list(left.turns), left.conversation.summary) == ([], "")
    again = await served.bulk.ForgetMany(bulk_service_pb2.ForgetManyRequest(session_id="s"), metadata=served.caller())
    assert list(again.receipts) == []


async def test_an_importance_that_is_asked_for_and_absent_is_the_usual_one(served: Any) -> None:
    kept = await remember(served, "Steady", importance=0.9)
    request = change_pb2.UpdateMemoryRequest(memory_id=kept.id, update_mask={"paths": ["importance"]})
    changed = (await served.memories.UpdateMemory(request, metadata=served.caller())).memory
    assert changed.importance == 0.5
