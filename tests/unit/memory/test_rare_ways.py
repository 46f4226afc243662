"""What happens seldom: too many tenants to count, a page of another list, engines that refuse."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.memory import upkeep
from services.memory.backends.weaviate_engine import WeaviateEngine
from services.memory.errors import MemoryFull, PolicyBlocked
from services.memory.policy import Held, MemoryPolicy
from services.memory.remember import Change, NewMemory, Remembering
from services.memory.store import Memory, MemoryType
from services.memory.store_memory import InMemoryStore
from services.memory.upkeep import Limits, Upkeep
from shared.clock import FakeClock
from shared.ids import SequentialIds
from tests.support.memory import NOW, HashingEmbedder, entry, vector
from tests.support.memory_engines import ENGINES, installed
from tests.support.published import enforcing


async def test_of_too_many_tenants_the_counts_are_taken_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "_TENANTS", 1)
    limits = Limits(InMemoryStore(), FakeClock(), memories=10)
    await limits.admit("a", 10)
    with pytest.raises(MemoryFull):
        await limits.admit("a", 1)
    await limits.admit("a", 10)
    await limits.admit("b", 1)
    await limits.admit("a", 10)


class EmptiedStore(InMemoryStore):
    """Somebody else has deleted what was counted."""

    async def least(self, tenant: str, memory_type: MemoryType, *, limit: int) -> Sequence[Memory]:
        return []


async def test_who_finds_nothing_to_crowd_out_stops() -> None:
    store, clock = EmptiedStore(), FakeClock(NOW)
    await store.add("t", [entry("one"), entry("two", 0, 1)])
    chores = Upkeep(store, Limits(store, clock, memories=10), clock, SequentialIds())
    await chores.set_retention("t", MemoryType.SEMANTIC, max_memories=1, max_days=0)
    assert (await chores.prune("t", dry_run=True)).crowded_out == 1
    assert (await chores.prune("t", dry_run=False)).crowded_out == 0


def test_what_weaviate_refuses_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(engine: WeaviateEngine, method: str, path: str, body: Any = None) -> Any:
        return {"errors": [{"message": "no"}]} if path == "/v1/graphql" else [{"result": {"errors": {"error": "no"}}}]

    monkeypatch.setattr(WeaviateEngine, "_ask", answer)
    monkeypatch.setattr(WeaviateEngine, "_known", lambda engine, name: True)
    engine = WeaviateEngine("http://127.0.0.1:1")
    with pytest.raises(httpx.HTTPError, match="did not store"):
        engine.put("t", [(1, vector(1))])
    with pytest.raises(httpx.HTTPError, match="refused the query"):
        engine.nearest("t", vector(1), [1], limit=1)
    engine.remove("t", [], 384)
    engine.close()


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_that_holds_nothing_of_a_tenant_has_nothing_to_remove(name: str, tmp_path: Path) -> None:
    if not installed(name):
        pytest.skip(f"{name} is not installed: make coverage-memory")
    engine = ENGINES[name][1](tmp_path)
    engine.remove("t", [1], 384)
    engine.put("t", [(2, vector(1))])
    assert [place for place, _ in engine.nearest("t", vector(1), [1, 2], limit=1)] == [2]


def test_faiss_finds_nothing_where_nothing_was_put() -> None:
    pytest.importorskip("faiss")
    from services.memory.backends.faiss_engine import FaissEngine

    assert FaissEngine().nearest("t", vector(1), [1], limit=1) == []


async def test_a_text_of_an_embedding_set_is_kept_read_and_changed_as_it_is() -> None:
    rule = {
        "name": "no", "type": "keyword", "severity": "SEVERITY_SEVERE", "action": "RULE_ACTION_BLOCK",
        "target": "RULE_TARGET_OUTPUT", "keywords": ["bluebird"],
    }  # fmt: skip
    policy, store, clock = MemoryPolicy(await enforcing(Held.of, rule), strict=True), InMemoryStore(), FakeClock(NOW)
    limits = Limits(store, clock, memories=9)
    remembering = Remembering(store, HashingEmbedder(), limits, policy=policy, clock=clock, ids=SequentialIds())
    new = NewMemory("the bluebird", MemoryType.SEMANTIC, embedding_set="restricted")
    kept, _ = await remembering.remember("default", new)
    await remembering.update("default", kept.id, Change(content="a bluebird", tags=("bluebird",)))
    read = await remembering.read("default", kept.id)
    assert (read.content, read.tags) == ("a bluebird", ("bluebird",))
    with pytest.raises(PolicyBlocked):
        await remembering.remember("default", NewMemory("the bluebird", MemoryType.SEMANTIC))
