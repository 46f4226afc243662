"""Conversations and facts within their bounds, over gRPC."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import timedelta
from typing import Any

import pytest

from agentnet.memory.v1 import bulk_service_pb2 as pb
from agentnet.memory.v1 import conversation_service_pb2 as talk
from agentnet.memory.v1 import fact_service_pb2, memory_pb2
from services.memory.store import Said, ShortTermTurn
from tests.service.memory.calls import receipts, record, refused, say

CONVERSATION, FACT, ENDED = pb.RETAINED_KIND_CONVERSATION, pb.RETAINED_KIND_FACT, pb.RETAINED_KIND_ENDED_FACT
DAY = timedelta(days=1)


async def retain(served: Any, kind: Any, **bounds: Any) -> Any:
    request = pb.SetRetentionRequest(kind=kind, **bounds)
    return await served.bulk.SetRetention(request, metadata=served.caller())


async def prune(served: Any, tenant: str = "acme", *, dry_run: bool = False) -> tuple[int, int]:
    request = pb.PruneMemoriesRequest(dry_run=dry_run)
    answer = await served.bulk.PruneMemories(request, metadata=served.caller(tenant))
    return answer.conversations, answer.facts


async def turns(served: Any, session: str) -> list[str]:
    request = talk.GetConversationRequest(session_id=session)
    answer = await served.conversations.GetConversation(request, metadata=served.caller())
    return [turn.content for turn in answer.turns] + [answer.conversation.summary] * bool(answer.conversation.summary)


async def known(served: Any) -> list[str]:
    request = fact_service_pb2.ListFactsRequest(history=True)
    return [one.object for one in (await served.facts.ListFacts(request, metadata=served.caller())).facts]


async def usage(served: Any) -> list[tuple[int, int, int, int]]:
    answer = await served.bulk.GetMemoryUsage(pb.GetMemoryUsageRequest(), metadata=served.caller())
    return [(one.kind, one.count, one.max_count, one.max_days) for one in answer.kinds]


async def test_a_conversation_goes_so_many_days_after_its_last_turn_with_receipts(served: Any) -> None:
    await say(served, "old", 1, "ada", "Once.")
    await say(served, "goes-on", 1, "ada", "Early.")
    served.clock.advance(3 * DAY)
    await say(served, "goes-on", 2, "ada", "Late.")
    await retain(served, CONVERSATION, max_days=2)
    assert await prune(served, dry_run=True) == (1, 0)
    assert await turns(served, "old") == ["Once."]
    assert await prune(served) == (1, 0)
    assert await prune(served) == (0, 0)
    assert await turns(served, "old") == []
    assert await turns(served, "goes-on") == ["Early.", "Late."]
    (receipt,) = await receipts(served)
    assert (receipt.subject_id, receipt.requested_by) == ("old-1", "retention")
    assert receipt.content_sha256 == hashlib.sha256(b"Once.").hexdigest()


async def test_the_summary_of_a_conversation_goes_with_it(served: Any) -> None:
    for number in range(4):
        await say(served, "s", number, "ada", f"We ship module {number} in May.")
    request = talk.CompactConversationRequest(session_id="s", keep_turns=1)
    await served.conversations.CompactConversation(request, metadata=served.caller())
    assert len(await turns(served, "s")) == 2
    await retain(served, CONVERSATION, max_days=1)
    served.clock.advance(2 * DAY)
    assert await prune(served) == (1, 0)
    assert await turns(served, "s") == []
    assert [one.subject_id for one in await receipts(served)] == ["s", "s-3"]


async def test_the_longest_silent_conversations_make_room(served: Any) -> None:
    for session in ("one", "two", "three"):
        await say(served, session, 1, "ada", session)
        served.clock.advance(DAY)
    await retain(served, CONVERSATION, max_memories=1)
    assert await usage(served) == [(CONVERSATION, 3, 1, 0)]
    assert await prune(served) == (2, 0)
    assert await turns(served, "three") == ["three"]


async def test_an_ended_fact_goes_and_one_that_holds_stays(served: Any) -> None:
    await record(served, ("ada", "lives_in", "Turin"))
    served.clock.advance(10 * DAY)
    await record(served, ("ada", "lives_in", "Milan"))
    await retain(served, ENDED, max_days=5)
    served.clock.advance(4 * DAY)
    assert await prune(served) == (0, 0)
    assert await usage(served) == [(FACT, 2, 0, 0), (ENDED, 1, 0, 5)]
    served.clock.advance(2 * DAY)
    assert await prune(served, dry_run=True) == (0, 1)
    assert await prune(served) == (0, 1)
    assert await known(served) == ["Milan"]
    (receipt,) = await receipts(served)
    assert receipt.requested_by == "retention"
    assert receipt.content_sha256 == hashlib.sha256(b"ada\nlives_in\nTurin").hexdigest()


async def test_facts_beyond_their_age_or_their_number_go(served: Any) -> None:
    await record(served, ("ada", "knows", "Go"), ("ada", "knows", "Rust"), ("bob", "knows", "C"), several=True)
    await retain(served, FACT, max_memories=2)
    assert await prune(served, dry_run=True) == (0, 1)
    assert await prune(served) == (0, 1)
    assert sorted(await known(served)) == ["C", "Rust"]
    await retain(served, FACT, max_days=1)
    served.clock.advance(2 * DAY)
    assert await prune(served, tenant="other") == (0, 0)
    assert await prune(served) == (0, 2)
    assert await usage(served) == [(FACT, 0, 0, 1)]


@pytest.mark.parametrize("settings", [{"conversation_days": 2, "ended_fact_days": 3}])
async def test_the_meshs_bounds_hold_until_a_tenant_sets_its_own(served: Any) -> None:
    await say(served, "s", 1, "ada", "Once.")
    assert await usage(served) == [(CONVERSATION, 1, 0, 2), (ENDED, 0, 0, 3)]
    served.clock.advance(3 * DAY)
    await retain(served, CONVERSATION, max_days=30)
    assert await prune(served) == (0, 0)
    await retain(served, CONVERSATION, max_days=1)
    assert await prune(served) == (1, 0)


async def test_the_mesh_keeps_bounds_by_itself(served: Any) -> None:
    await say(served, "s", 1, "ada", "Once.")
    await retain(served, CONVERSATION, max_days=1)
    served.clock.advance(2 * DAY)

    async def tenants() -> list[str]:
        return ["acme", "empty"]

    running = asyncio.create_task(served.chores[0].retention.run(tenants, timedelta(milliseconds=5)))
    async with asyncio.timeout(30):
        while await turns(served, "s"):
            await asyncio.sleep(0.01)
    running.cancel()
    assert [one.requested_by for one in await receipts(served)] == ["retention"]


async def test_who_speaks_while_it_is_forgotten_is_kept(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    await say(served, "s", 1, "ada", "Once.")
    await retain(served, CONVERSATION, max_days=1)
    served.clock.advance(2 * DAY)
    store = served.stores.conversations
    forget = store.forget

    async def late(tenant: str, session: str, *args: Any, **more: Any) -> bool:
        said = Said(session, ShortTermTurn("s-2", "ada", "Wait."))
        await store.append_turns(tenant, [said], now=served.clock.now())
        return bool(await forget(tenant, session, *args, **more))

    monkeypatch.setattr(store, "forget", late)
    assert await prune(served) == (0, 0)
    assert await turns(served, "s") == ["Once.", "Wait."]
    assert not await receipts(served)


async def test_a_kind_or_a_type_is_named_and_not_both(served: Any) -> None:
    both = pb.SetRetentionRequest(kind=FACT, memory_type=memory_pb2.MEMORY_TYPE_EPISODIC)
    call = served.bulk.SetRetention(both, metadata=served.caller())
    assert await refused(call) == ("INVALID_ARGUMENT", "FIELD_INVALID", "kind")
    assert await refused(retain(served, 9)) == ("INVALID_ARGUMENT", "FIELD_INVALID", "kind")
    assert await refused(retain(served, 0)) == ("INVALID_ARGUMENT", "FIELD_REQUIRED", "memory_type")
    assert await refused(retain(served, FACT, max_days=-1)) == ("INVALID_ARGUMENT", "FIELD_INVALID", "max_days")
