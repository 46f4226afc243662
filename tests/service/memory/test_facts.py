"""Facts and preferences over gRPC."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from google.protobuf import json_format

from agentnet.memory.v1 import fact_service_pb2 as pb
from tests.service.memory.calls import record, refused


async def listed(served: Any, tenant: str = "acme", **given: Any) -> list[str]:
    request = json_format.ParseDict(given, pb.ListFactsRequest())
    answer = await served.facts.ListFacts(request, metadata=served.caller(tenant))
    return [f"{one.subject} {one.relation} {one.object}" for one in answer.facts]


async def test_a_preference_is_superseded_and_never_overwritten(served: Any) -> None:
    await record(served, ("user:ada", "prefers language", "German"))
    served.clock.advance(timedelta(days=1))
    answer = await record(served, ("user:ada", "prefers language", "Italian"))
    (old,) = answer.superseded
    assert (old.object, old.superseded_by, old.valid_to_time) == (
        "German", answer.facts[0].id, answer.facts[0].valid_from_time,
    )  # fmt: skip
    assert await listed(served, subject="user:ada") == ["user:ada prefers language Italian"]
    assert len(await listed(served, subject="user:ada", history=True)) == 2
    assert await listed(served, subject="user:ada", valid_time="2026-01-01T12:00:00Z") == [
        "user:ada prefers language German"
    ]
    assert await listed(served, as_of="2026-01-01T12:00:00Z") == ["user:ada prefers language German"]
    assert await listed(served, "globex") == []


async def test_several_may_hold_at_once(served: Any) -> None:
    await record(served, ("ada", "knows", "Go"), ("ada", "knows", "Rust"), several=True)
    assert sorted(await listed(served, relation="knows")) == ["ada knows Go", "ada knows Rust"]
    assert await listed(served, object="Rust") == ["ada knows Rust"]


async def test_a_walk_goes_as_far_as_asked(served: Any) -> None:
    await record(served, ("ada", "works_at", "Acme"), ("Acme", "based_in", "Oslo"), ("Oslo", "lies_in", "Norway"))

    async def walked(depth: int) -> list[str]:
        request = pb.ListRelatedFactsRequest(subject="ada", depth=depth)
        return [one.object for one in (await served.facts.ListRelatedFacts(request, metadata=served.caller())).facts]

    assert await walked(0) == ["Acme"]
    assert await walked(2) == ["Acme", "Oslo"]
    assert await walked(4) == ["Acme", "Oslo", "Norway"]


async def test_a_fact_is_ended_and_stays_history(served: Any) -> None:
    (kept,) = (await record(served, ("ada", "likes", "tea"))).facts
    served.clock.advance(timedelta(hours=1))
    ended = await served.facts.EndFact(pb.EndFactRequest(fact_id=kept.id), metadata=served.caller())
    assert ended.fact.valid_to_time.ToJsonString() == "2026-01-01T01:00:00Z"
    assert await listed(served) == []
    assert await listed(served, history=True) == ["ada likes tea"]
    missing = served.facts.EndFact(pb.EndFactRequest(fact_id="fct_none"), metadata=served.caller())
    assert await refused(missing) == ("NOT_FOUND", "FACT_NOT_FOUND", None)


async def test_a_subject_is_forgotten_with_its_history(served: Any) -> None:
    await record(served, ("ada", "likes", "tea"))
    await record(served, ("ada", "likes", "coffee"))
    answer = await served.facts.ForgetFacts(pb.ForgetFactsRequest(subject="ada"), metadata=served.caller())
    assert len(answer.receipts) == 2
    assert await listed(served, history=True) == []


async def test_lists_of_facts_page(served: Any) -> None:
    await record(served, *[("ada", "knows", str(n)) for n in range(3)], several=True)
    request = pb.ListFactsRequest(page_size=2)
    first = await served.facts.ListFacts(request, metadata=served.caller())
    served.clock.advance(timedelta(seconds=5))
    request.page_token = first.next_page_token
    rest = await served.facts.ListFacts(request, metadata=served.caller())
    assert [one.object for one in (*first.facts, *rest.facts)] == ["2", "1", "0"]
    request.page_token = "x"
    assert await refused(served.facts.ListFacts(request, metadata=served.caller())) == (
        "INVALID_ARGUMENT", "PAGE_TOKEN_INVALID", "page_token",
    )  # fmt: skip


BAD = [
    ({}, "FIELD_REQUIRED", "facts"),
    ({"facts": [{}]}, "FIELD_REQUIRED", "facts[0].subject"),
    ({"facts": [{"subject": "a", "relation": "b"}]}, "FIELD_REQUIRED", "facts[0].object"),
    ({"facts": [{"subject": "a" * 257, "relation": "b", "object": "c"}]}, "FIELD_TOO_LONG", "facts[0].subject"),
    ({"facts": [{"subject": "a", "relation": "b", "object": "c", "confidence": 2}]}, "FIELD_INVALID", "facts[0].confidence"),
    (
        {"facts": [{"subject": "a", "relation": "b", "object": "c", "valid_from_time": "2026-01-02T00:00:00Z",
                    "valid_to_time": "2026-01-01T00:00:00Z"}]},
        "FIELD_INVALID", "facts[0].valid_to_time",
    ),
    ({"facts": [{"subject": "a", "relation": "b", "object": "c"}] * 201}, "FIELD_TOO_LONG", "facts"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "reason", "field"), BAD)
async def test_a_bad_fact_names_the_field(served: Any, given: dict[str, Any], reason: str, field: str) -> None:
    request = json_format.ParseDict(given, pb.RecordFactsRequest())
    call = served.facts.RecordFacts(request, metadata=served.caller())
    assert await refused(call) == ("INVALID_ARGUMENT", reason, field)
