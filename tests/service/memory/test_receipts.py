"""The proofs of deletions, over gRPC, by the client and at the command line."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any

from agentnet.memory.v1 import bulk_service_pb2 as pb
from agentnet.memory.v1 import change_pb2, fact_service_pb2, memory_pb2
from agentnet.memory.v1 import memory_service_pb2 as memories
from tests.service.memory.calls import receipts, record, refused, remember, say

DAY = timedelta(days=1)


async def prune(served: Any) -> None:
    await served.bulk.PruneMemories(pb.PruneMemoriesRequest(), metadata=served.caller())


async def test_what_is_pruned_leaves_receipts(served: Any) -> None:
    semantic = {"memory_type": "MEMORY_TYPE_SEMANTIC"}
    ended = await remember(served, "ended", expire_time="2026-01-01T01:00:00Z")
    old = await remember(served, "old", create_time="2025-01-01T00:00:00Z", **semantic)
    least = await remember(served, "least", importance=0.1, **semantic)
    await remember(served, "most", importance=0.9, **semantic)
    kind = memory_pb2.MEMORY_TYPE_SEMANTIC
    bounds = pb.SetRetentionRequest(memory_type=kind, max_memories=1, max_days=30)
    await served.bulk.SetRetention(bounds, metadata=served.caller())
    served.clock.advance(DAY)
    await prune(served)
    found = {one.subject_id: one for one in await receipts(served)}
    assert set(found) == {ended.id, old.id, least.id}
    assert {one.requested_by for one in found.values()} == {"retention"}
    assert found[old.id].content_sha256 == hashlib.sha256(b"old").hexdigest()
    assert found[old.id].delete_time.ToJsonString() == "2026-01-02T00:00:00Z"


async def test_every_deletion_is_listed_and_read_by_its_id(served: Any) -> None:
    kept = await remember(served, "a memory")
    await record(served, ("ada", "likes", "tea"))
    await say(served, "s", 1, "ada", "Once.")
    for call, request in (
        (served.memories.Forget, memories.ForgetRequest(memory_id=kept.id)),
        (served.facts.ForgetFacts, fact_service_pb2.ForgetFactsRequest(subject="ada")),
        (served.bulk.ForgetMany, pb.ForgetManyRequest(session_id="s")),
    ):
        await call(request, metadata=served.caller())
        served.clock.advance(DAY)
    listed = await receipts(served)
    assert [one.subject_id.partition("_")[0] for one in listed] == ["s-1", "fct", "mem"]
    assert {one.requested_by for one in listed} == {"ada"}
    request = change_pb2.GetReceiptRequest(receipt_id=listed[0].id)
    assert (await served.bulk.GetReceipt(request, metadata=served.caller())).receipt == listed[0]
    foreign = served.bulk.GetReceipt(request, metadata=served.caller("globex"))
    assert await refused(foreign) == ("NOT_FOUND", "RECEIPT_NOT_FOUND", None)
    assert not await receipts(served, "globex")


async def test_lists_of_receipts_page_and_are_narrowed(served: Any) -> None:
    for number in range(3):
        kept = await remember(served, f"number {number}")
        await served.memories.Forget(memories.ForgetRequest(memory_id=kept.id), metadata=served.caller())
    request = change_pb2.ListReceiptsRequest(page_size=2)
    first = await served.bulk.ListReceipts(request, metadata=served.caller())
    request.page_token = first.next_page_token
    rest = await served.bulk.ListReceipts(request, metadata=served.caller())
    every = [one.subject_id for one in (*first.receipts, *rest.receipts)]
    assert (len(first.receipts), len(set(every)), rest.next_page_token) == (2, 3, "")
    assert [one.subject_id for one in await receipts(served, subject_id=every[1])] == every[1:2]
    assert not await receipts(served, requested_by="retention")
    request.requested_by = "ada"
    assert await refused(served.bulk.ListReceipts(request, metadata=served.caller())) == (
        "INVALID_ARGUMENT", "PAGE_TOKEN_INVALID", "page_token",
    )  # fmt: skip


async def test_a_bad_request_for_receipts_names_the_field(served: Any) -> None:
    read = served.bulk.GetReceipt(change_pb2.GetReceiptRequest(), metadata=served.caller())
    assert await refused(read) == ("INVALID_ARGUMENT", "FIELD_REQUIRED", "receipt_id")
    for given, reason, field in (
        ({"page_size": -1}, "FIELD_INVALID", "page_size"),
        ({"subject_id": "x" * 65}, "FIELD_TOO_LONG", "subject_id"),
        ({"requested_by": "x" * 257}, "FIELD_TOO_LONG", "requested_by"),
    ):
        assert await refused(receipts(served, **given)) == ("INVALID_ARGUMENT", reason, field)
