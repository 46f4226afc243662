"""What relationships, delegations and templates may rely on, whichever store keeps them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from agentnet.orchestrator.v1 import delegation_pb2, relationship_service_pb2, template_service_pb2
from deploy.local.postgres import Cluster
from services.orchestrator.agents.stores import (
    Delegation,
    DelegationFilter,
    DelegationStore,
    Relationship,
    RelationshipStore,
    TemplateStore,
)
from services.orchestrator.agents.stores_memory import (
    MemoryDelegationStore,
    MemoryRelationshipStore,
    MemoryTemplateStore,
)
from services.orchestrator.agents.stores_postgres import (
    PostgresDelegationStore,
    PostgresRelationshipStore,
    PostgresTemplateStore,
)
from shared.errors import ResourceExhausted
from shared.paging import Page
from shared.postgres import open_database

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
RUNNING, DONE, REVOKED = (
    delegation_pb2.DELEGATION_STATE_RUNNING,
    delegation_pb2.DELEGATION_STATE_COMPLETED,
    delegation_pb2.DELEGATION_STATE_REVOKED,
)


@dataclass(frozen=True, slots=True)
class Kept:
    relationships: RelationshipStore
    delegations: DelegationStore
    templates: TemplateStore


@pytest.fixture(params=["memory", "postgres"])
async def kept(request: pytest.FixtureRequest) -> AsyncIterator[Kept]:
    if request.param == "memory":
        yield Kept(MemoryRelationshipStore(), MemoryDelegationStore(), MemoryTemplateStore())
        return
    cluster: Cluster = request.getfixturevalue("postgres")
    admin = await asyncpg.connect(cluster.dsn("postgres"))
    for table in ("agent_relationship", "delegation", "agent_template", "agent_template_use"):
        await admin.execute(f"truncate orchestrator.{table}")
    await admin.close()
    async with open_database(cluster.dsn("orchestrator"), pool=4) as own:
        yield Kept(PostgresRelationshipStore(own), PostgresDelegationStore(own), PostgresTemplateStore(own))


def edge(key: str, source: str, target: str, *, priority: int = 0, kind: str = "chains_to") -> Relationship:
    return relationship_service_pb2.AgentRelationship(
        id=key, source=source, target=target, kind=kind, priority=priority
    )


def anything(_known: object) -> None:
    """Refuses nothing."""


async def test_edges_are_listed_by_priority_for_both_ends(kept: Kept) -> None:
    for one in (edge("r1", "A", "B"), edge("r2", "A", "C", priority=5), edge("r3", "D", "A", kind="reviews")):
        await kept.relationships.put("acme", one, fits=anything)
    await kept.relationships.put("other", edge("r4", "A", "B"), fits=anything)
    assert [one.id for one in await kept.relationships.every("acme", agent="A", kind="")] == ["r2", "r1", "r3"]
    assert [one.id for one in await kept.relationships.every("acme", agent="", kind="reviews")] == ["r3"]
    assert [one.id for one in await kept.relationships.every("acme", agent="B", kind="")] == ["r1"]


async def test_an_edge_said_again_replaces_what_is_said_of_it(kept: Kept) -> None:
    await kept.relationships.put("acme", edge("r1", "A", "B"), fits=anything)
    again = await kept.relationships.put("acme", edge("r2", "A", "B", priority=9), fits=anything)
    assert (again.id, again.priority) == ("r1", 9)
    assert list(await kept.relationships.every("acme", agent="", kind="")) == [again]
    assert await kept.relationships.delete("acme", "r1")
    assert not await kept.relationships.delete("acme", "r1")


async def test_a_refused_edge_is_not_stored(kept: Kept) -> None:
    def full(known: object) -> None:
        raise ResourceExhausted("enough")

    with pytest.raises(ResourceExhausted):
        await kept.relationships.put("acme", edge("r1", "A", "B"), fits=full)
    assert not await kept.relationships.every("acme", agent="", kind="")


def delegation(key: str, parent: str = "", *, budget: int = 0, minute: int = 0, agent: str = "A") -> Delegation:
    made = Delegation(
        id=key, parent_id=parent, source="user:ada", target=f"{agent}@1.0.0", session_id=f"ses_{key}",
        conversation_id="con_1", task="Größe?", state=RUNNING,
    )  # fmt: skip
    made.capability.budget_micros_usd = budget
    made.capability.expire_time.FromDatetime(NOON + timedelta(hours=1))
    made.create_time.FromDatetime(NOON + timedelta(minutes=minute))
    return made


def fitting(_parent: Delegation | None, _below: int) -> None:
    """Refuses nothing."""


async def opened(kept: Kept, *wanted: Delegation) -> None:
    for one in wanted:
        await kept.delegations.open("acme", one, request_id=None, fits=fitting)


async def test_a_delegation_comes_back_as_it_was_opened_and_once_a_request(kept: Kept) -> None:
    first = await kept.delegations.open("acme", delegation("d1"), request_id="r1", fits=fitting)
    again = await kept.delegations.open("acme", delegation("d2"), request_id="r1", fits=fitting)
    assert first == again == await kept.delegations.find("acme", "d1") == delegation("d1")
    assert await kept.delegations.of_request("acme", "r1") == first
    assert await kept.delegations.of_request("other", "r1") is None
    assert await kept.delegations.find("acme", "d2") is None
    assert await kept.delegations.find("other", "d1") is None


async def test_those_below_one_parent_never_take_more_than_it_has(kept: Kept) -> None:
    await opened(kept, delegation("top", budget=100))

    def within(parent: Delegation | None, below: int) -> None:
        assert parent is not None
        if below + 30 > parent.capability.budget_micros_usd:
            raise ResourceExhausted("spent")

    async def below(number: int) -> bool:
        try:
            await kept.delegations.open(
                "acme", delegation(f"d{number}", "top", budget=30), request_id=None, fits=within
            )
        except ResourceExhausted:
            return False
        return True

    assert sum(await asyncio.gather(*(below(number) for number in range(6)))) == 3


async def test_what_one_below_did_not_spend_is_given_back(kept: Kept) -> None:
    await opened(kept, delegation("top", budget=100), delegation("d1", "top", budget=80))
    ended = delegation("d1", "top", budget=80)
    ended.state, ended.cost_micros_usd, ended.output = DONE, 5, "Two."
    assert await kept.delegations.end("acme", ended)
    assert not await kept.delegations.end("acme", ended)
    seen: list[int] = []
    await kept.delegations.open(
        "acme", delegation("d2", "top"), request_id=None, fits=lambda _parent, below: seen.append(below)
    )
    assert seen == [5]
    assert await kept.delegations.find("acme", "d1") == ended


async def test_delegations_are_listed_newest_first_and_filtered(kept: Kept) -> None:
    await opened(kept, delegation("d1"), delegation("d2", "d1", minute=1, agent="B"), delegation("d3", "d1", minute=2))

    async def listed(page: Page | None = None, **wanted: object) -> list[str]:
        chosen = DelegationFilter(**wanted)  # type: ignore[arg-type]
        return [one.id for one in await kept.delegations.every("acme", chosen, page=page or Page())]

    assert await listed() == ["d3", "d2", "d1"]
    assert await listed(Page(size=1)) == ["d3", "d2"]
    cursor = ((NOON + timedelta(minutes=1)).isoformat(), "d2")
    assert await listed(Page(cursor=cursor)) == ["d1"]
    assert await listed(parent_id="d1", agent="B") == ["d2"]
    assert await listed(conversation_id="con_2") == []
    assert await listed(state=DONE) == []


async def test_what_runs_is_counted_until_it_expires(kept: Kept) -> None:
    await opened(kept, delegation("d1"), delegation("d2"), delegation("d3", agent="B"))
    assert dict(await kept.delegations.running("acme", now=NOON)) == {"A": 2, "B": 1}
    assert dict(await kept.delegations.running("acme", now=NOON + timedelta(hours=1))) == {}
    assert dict(await kept.delegations.running("other", now=NOON)) == {}


async def test_revoking_takes_the_whole_tree_that_runs(kept: Kept) -> None:
    await opened(
        kept, delegation("d1"), delegation("d2", "d1", minute=1), delegation("d3", "d2", minute=2),
        delegation("d4", "d1", minute=3), delegation("apart", minute=4),
    )  # fmt: skip
    ended = delegation("d4", "d1", minute=3)
    ended.state = DONE
    await kept.delegations.end("acme", ended)
    revoked = await kept.delegations.revoke("acme", "d1", at=NOON)
    assert [(one.id, one.state, one.end_time.ToDatetime(UTC)) for one in revoked] == [
        (name, REVOKED, NOON) for name in ("d1", "d2", "d3")
    ]
    assert await kept.delegations.revoke("acme", "d1", at=NOON) == []
    apart = await kept.delegations.find("acme", "apart")
    assert apart is not None
    assert apart.state == RUNNING
    assert await kept.delegations.revoke("other", "apart", at=NOON) == []


async def test_templates_are_kept_once_and_their_uses_counted(kept: Kept) -> None:
    made: Callable[..., template_service_pb2.AgentTemplate] = template_service_pb2.AgentTemplate
    assert await kept.templates.add("acme", made(name="t", version="1.0.0", domain="writing"))
    assert not await kept.templates.add("acme", made(name="t", version="1.0.0", domain="other"))
    assert [one.domain for one in await kept.templates.every("acme")] == ["writing"]
    assert await kept.templates.every("other") == []
    for _ in range(2):
        await kept.templates.used("acme", "t", "1.0.0")
    assert dict(await kept.templates.uses("acme")) == {("t", "1.0.0"): 2}
    assert dict(await kept.templates.uses("other")) == {}


async def test_what_has_ended_may_still_be_told_what_it_spent(kept: Kept) -> None:
    await opened(kept, delegation("d1"), delegation("d2", "d1"))
    await kept.delegations.revoke("acme", "d2", at=NOON)
    revoked = await kept.delegations.find("acme", "d2")
    assert revoked is not None
    revoked.cost_micros_usd = 9
    await kept.delegations.spent("acme", revoked)
    assert await kept.delegations.find("acme", "d2") == revoked
    seen: list[int] = []
    await kept.delegations.open(
        "acme", delegation("d3", "d1"), request_id=None, fits=lambda _parent, below: seen.append(below)
    )
    assert seen == [9]


async def test_one_made_while_its_parent_is_revoked_is_revoked_too(postgres: Cluster) -> None:
    admin = await asyncpg.connect(postgres.dsn("postgres"))
    await admin.execute("truncate orchestrator.delegation")
    async with open_database(postgres.dsn("orchestrator"), pool=4) as own:
        delegations = PostgresDelegationStore(own)
        await delegations.open("acme", delegation("d1"), request_id=None, fits=fitting)

        async def waiting(number: int) -> None:
            async with asyncio.timeout(10):
                while await admin.fetchval("select count(*) from pg_locks where not granted") < number:
                    await asyncio.sleep(0.01)

        async with admin.transaction():
            await admin.execute("select from orchestrator.delegation where id = 'd1' for update")
            opening = asyncio.create_task(
                delegations.open("acme", delegation("d2", "d1"), request_id=None, fits=fitting)
            )
            await waiting(1)
            revoking = asyncio.create_task(delegations.revoke("acme", "d1", at=NOON))
            await waiting(2)
        await opening
        assert [one.id for one in await revoking] == ["d1", "d2"]
    await admin.close()
