"""Bounds, pruning, pressure and consolidation over gRPC."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from agentnet.memory.v1 import bulk_service_pb2 as pb
from agentnet.memory.v1 import memory_pb2
from agentnet.memory.v1 import memory_service_pb2 as memories
from tests.service.memory.calls import found, receipts, refused, remember, remember_many, say

SEMANTIC = memory_pb2.MEMORY_TYPE_SEMANTIC


async def contents(served: Any) -> list[str]:
    answer = await served.memories.ListMemories(memories.ListMemoriesRequest(), metadata=served.caller())
    return sorted(one.content for one in answer.memories)


async def prune(served: Any, *, dry_run: bool = False) -> tuple[int, int, int]:
    answer = await served.bulk.PruneMemories(pb.PruneMemoriesRequest(dry_run=dry_run), metadata=served.caller())
    return answer.expired, answer.aged, answer.crowded_out


async def retain(served: Any, kind: int = SEMANTIC, **bounds: int) -> Any:
    request = pb.SetRetentionRequest(memory_type=kind, **bounds)
    return await served.bulk.SetRetention(request, metadata=served.caller())


async def usage(served: Any) -> Any:
    return await served.bulk.GetMemoryUsage(pb.GetMemoryUsageRequest(), metadata=served.caller())


async def test_pruning_takes_what_ended_what_is_old_and_what_is_too_many(served: Any) -> None:
    semantic = {"memory_type": "MEMORY_TYPE_SEMANTIC"}
    await remember(served, "ended", expire_time="2026-01-01T01:00:00Z", **semantic)
    await remember(served, "old", create_time="2025-01-01T00:00:00Z", **semantic)
    for importance in range(4):
        await remember(served, f"weight {importance}", importance=importance / 4, **semantic)
    served.clock.advance(timedelta(hours=2))
    await retain(served, max_memories=2, max_days=30)
    assert await prune(served, dry_run=True) == (1, 1, 4)
    assert await prune(served) == (1, 1, 2)
    assert await contents(served) == ["weight 2", "weight 3"]
    assert await prune(served) == (0, 0, 0)


async def test_the_mesh_prunes_by_itself(served: Any) -> None:
    await remember(served, "ended", expire_time="2026-01-01T01:00:00Z")
    served.clock.advance(timedelta(hours=2))
    upkeep = served.chores[0].upkeep
    with pytest.raises(TimeoutError):
        import asyncio

        async with asyncio.timeout(0.2):
            await upkeep.run(timedelta(milliseconds=10))
    assert await prune(served) == (0, 0, 0)


async def test_usage_tells_what_is_kept_and_how_full_it_is(served: Any) -> None:
    await remember_many(served, [{"content": "abc"}, {"content": "defg", "memory_type": "MEMORY_TYPE_LONG_TERM"}])
    await retain(served, memory_pb2.MEMORY_TYPE_EPISODIC, max_days=7)
    answer = await usage(served)
    rows = [(one.memory_type, one.memories, one.characters, one.max_days) for one in answer.types]
    assert rows == [(memory_pb2.MEMORY_TYPE_EPISODIC, 1, 3, 7), (memory_pb2.MEMORY_TYPE_LONG_TERM, 1, 4, 0)]
    assert answer.types[0].oldest_time.ToJsonString() == "2026-01-01T00:00:00Z"
    assert (answer.limit, answer.throttled) == (2_000_000, False)
    assert await refused(retain(served, 0)) == ("INVALID_ARGUMENT", "FIELD_REQUIRED", "memory_type")
    assert await refused(retain(served, max_days=-1)) == ("INVALID_ARGUMENT", "FIELD_INVALID", "max_days")


@pytest.mark.parametrize("settings", [{"tenant_memories": 20}])
async def test_a_full_tenant_is_slowed_down_and_then_refused(served: Any) -> None:
    await remember_many(served, [{"content": str(n)} for n in range(19)])
    assert (await usage(served)).throttled
    assert (await usage(served)).pressure == pytest.approx(0.95)
    await remember(served, "the last one")
    assert await refused(remember(served, "too much")) == ("RESOURCE_EXHAUSTED", "MEMORY_FULL", None)
    await retain(served, memory_pb2.MEMORY_TYPE_EPISODIC, max_memories=5)
    await prune(served)
    assert (await remember(served, "room again")).content == "room again"


@pytest.mark.parametrize("settings", [{"tenant_memories": 20}])
async def test_who_forgets_has_room_at_once(served: Any) -> None:
    await remember_many(served, [{"content": str(n), "tags": ["old"] if n else []} for n in range(18)])
    first = await remember(served, "the last but one")
    await remember(served, "the last one")
    await served.memories.Forget(memories.ForgetRequest(memory_id=first.id), metadata=served.caller())
    assert (await remember(served, "room again")).content == "room again"
    await served.bulk.ForgetMany(pb.ForgetManyRequest(tags=["old"]), metadata=served.caller())
    assert len(await remember_many(served, [{"content": f"new {n}"} for n in range(17)])) == 17


async def test_a_session_becomes_one_lasting_memory(served: Any) -> None:
    for number in range(8):
        await say(served, "s", number, "Athena", f"We decided that module {number} ships in May. " * 4, remember=True)
    request = pb.ConsolidateMemoriesRequest(session_id="s", max_tokens=60)
    first = await served.bulk.ConsolidateMemories(request, metadata=served.caller())
    again = await served.bulk.ConsolidateMemories(request, metadata=served.caller())
    await say(served, "s", 9, "Athena", "Module 9 is dropped.", remember=True)
    later = await served.bulk.ConsolidateMemories(request, metadata=served.caller())
    kept = await served.memories.ListMemories(
        memories.ListMemoriesRequest(memory_type=memory_pb2.MEMORY_TYPE_LONG_TERM), metadata=served.caller()
    )
    assert (first.episodes, first.memory.importance, list(first.memory.tags)) == (8, 0.7, ["consolidated"])
    assert again.memory.id == first.memory.id
    assert [one.id for one in kept.memories] == [later.memory.id]
    assert later.episodes == 9


async def _summary(served: Any, agent: str = "") -> list[str]:
    request = memories.ListMemoriesRequest(memory_type=memory_pb2.MEMORY_TYPE_LONG_TERM, agent=agent)
    answer = await served.memories.ListMemories(request, metadata=served.caller())
    return [line for one in answer.memories for line in one.content.splitlines()]


async def _episodes(served: Any, *said: str) -> dict[str, str]:
    for number, text in enumerate(said):
        await say(served, "s", number, "Athena", text, remember=True)
    await served.bulk.ConsolidateMemories(pb.ConsolidateMemoriesRequest(session_id="s"), metadata=served.caller())
    listed = memories.ListMemoriesRequest(memory_type=memory_pb2.MEMORY_TYPE_EPISODIC)
    answer = await served.memories.ListMemories(listed, metadata=served.caller())
    return {one.content: one.id for one in answer.memories}


async def _forget(served: Any, memory_id: str) -> None:
    await served.memories.Forget(memories.ForgetRequest(memory_id=memory_id), metadata=served.caller())


async def test_what_is_forgotten_goes_from_the_summary_of_its_session_too(served: Any) -> None:
    ids = await _episodes(served, "Ada moved to Turin. She likes tea.", "The launch is in May.", "Bob left.")
    assert len(await _summary(served)) == 3
    await _forget(served, ids["Ada moved to Turin. She likes tea."])
    assert await _summary(served) == ["Athena: The launch is in May.", "Athena: Bob left."]
    assert await found(served, "Turin tea", strategy="SEARCH_STRATEGY_LEXICAL") == []
    await remember(served, "Bob left.", session_id="s")
    await say(served, "s", 9, "Athena", "It rains.", remember=True)
    later = memories.ListMemoriesRequest(memory_type=memory_pb2.MEMORY_TYPE_EPISODIC, page_size=1)
    (newest,) = (await served.memories.ListMemories(later, metadata=served.caller())).memories
    await _forget(served, newest.id)
    assert await _summary(served) == ["Athena: The launch is in May.", "Athena: Bob left."]

    served.embedder.away = True
    await _forget(served, ids["Bob left."])
    assert await _summary(served) == []
    (first, *_) = await receipts(served)
    assert first.requested_by == "ada"


async def test_a_summary_of_nothing_else_goes_with_what_it_was_made_of(served: Any) -> None:
    await _episodes(served, "Ada moved to Turin.", "She likes tea.")
    await served.bulk.ForgetMany(pb.ForgetManyRequest(agent="Athena"), metadata=served.caller())
    assert await _summary(served) == []


async def test_nothing_to_consolidate_is_no_error(served: Any) -> None:
    request = pb.ConsolidateMemoriesRequest(session_id="none")
    answer = await served.bulk.ConsolidateMemories(request, metadata=served.caller())
    assert (answer.HasField("memory"), answer.episodes) == (False, 0)


async def test_a_new_model_of_the_same_width_is_never_compared_with_the_old_one(served: Any) -> None:
    await remember_many(served, [{"content": f"harbour {n}"} for n in range(3)])
    served.embedder.model = "newer"
    dense = {"strategy": "SEARCH_STRATEGY_DENSE", "limit": 10}
    assert await found(served, "harbour", **dense) == []
    assert len(await found(served, "harbour", limit=10)) == 3
    answer = await served.bulk.ReembedMemories(pb.ReembedMemoriesRequest(), metadata=served.caller())
    assert (answer.reembedded, answer.remaining) == (3, 0)
    assert len(await found(served, "harbour", **dense)) == 3


async def test_a_new_model_is_taken_up_while_everything_goes_on(served: Any) -> None:
    await remember_many(served, [{"content": f"harbour {n}"} for n in range(5)])
    await remember(served, "harbour given", embedding=[1.0] * 384)
    served.embedder.model, served.embedder.width = "wide", 1536

    async def reembed(limit: int) -> tuple[int, int]:
        request = pb.ReembedMemoriesRequest(limit=limit)
        answer = await served.bulk.ReembedMemories(request, metadata=served.caller())
        return answer.reembedded, answer.remaining

    assert len(await found(served, "harbour", limit=10)) == 6
    assert await reembed(3) == (3, 2)
    assert len(await found(served, "harbour", limit=10)) == 6
    assert await reembed(0) == (2, 0)
    assert await reembed(0) == (0, 0)
    answer = await served.memories.ListMemories(memories.ListMemoriesRequest(), metadata=served.caller())
    assert sorted(one.embedding_model for one in answer.memories) == ["", *["wide"] * 5]
    assert len(await found(served, "harbour 3", strategy="SEARCH_STRATEGY_DENSE", limit=10)) == 5


async def test_of_a_very_long_session_the_newest_episodes_count(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.memory.consolidate._EPISODES", 3)
    for number in range(5):
        await say(served, "s", number, "Athena", f"Module {number} ships.", remember=True)
        served.clock.advance(timedelta(seconds=1))
    request = pb.ConsolidateMemoriesRequest(session_id="s")
    answer = await served.bulk.ConsolidateMemories(request, metadata=served.caller())
    assert answer.episodes == 3
    assert answer.memory.content.splitlines() == [f"Athena: Module {number} ships." for number in (2, 3, 4)]
