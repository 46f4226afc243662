"""What the registry may rely on, whichever store keeps its agents."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from agentnet.orchestrator.v1 import agent_pb2
from deploy.local.postgres import Cluster
from services.orchestrator.agents.cache import Versions, listen
from services.orchestrator.store import AgentFilter
from services.orchestrator.store_postgres import PostgresAgentStore
from shared.clock import FakeClock
from shared.errors import PageTokenInvalid
from shared.paging import Page
from shared.postgres import open_database
from shared.tasks import supervised
from tests.contract.orchestrator.conftest import Stores

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def agent(
    name: str, version: str = "1.0.0", *, minute: int = 0, state: agent_pb2.AgentState.ValueType | None = None
) -> agent_pb2.Agent:
    made = agent_pb2.Agent(
        id=f"agt_{name}_{version}",
        name=name,
        version=version,
        system_prompt="Größe.",
        capabilities=["planning", name.lower()],
        monitors=["default"],
        state=state or agent_pb2.AGENT_STATE_ACTIVE,
    )
    made.style["logic"] = 0.9
    made.config["deep"] = {"list": [1, "two", None]}
    made.create_time.FromDatetime(NOON + timedelta(minutes=minute))
    return made


async def names(stores: Stores, chosen: AgentFilter, page: Page | None = None) -> list[str]:
    return [f"{one.name}@{one.version}" for one in await stores.agents.every("acme", chosen, page=page or Page())]


async def test_a_version_comes_back_as_it_was(stores: Stores) -> None:
    assert await stores.agents.add("acme", agent("Athena"), request_id=None)
    assert await stores.agents.versions("acme", "Athena") == [agent("Athena")]


async def test_a_version_is_never_replaced(stores: Stores) -> None:
    await stores.agents.add("acme", agent("Athena"), request_id=None)
    other = agent("Athena")
    other.id, other.system_prompt = "agt_other", "Other."

    assert not await stores.agents.add("acme", other, request_id=None)
    assert await stores.agents.versions("acme", "Athena") == [agent("Athena")]


async def test_two_tenants_may_have_the_same_version(stores: Stores) -> None:
    assert await stores.agents.add("acme", agent("Athena"), request_id=None)
    assert await stores.agents.add("other", agent("Athena"), request_id=None)


async def test_a_request_makes_one_version_and_finds_it_again(stores: Stores) -> None:
    assert await stores.agents.add("acme", agent("Athena"), request_id="req_1")
    assert not await stores.agents.add("acme", agent("Athena", "1.0.1"), request_id="req_1")
    assert await stores.agents.made_by("acme", "req_1") == agent("Athena")
    assert await stores.agents.made_by("other", "req_1") is None
    assert await stores.agents.made_by("acme", "req_2") is None


async def test_a_state_changes_and_nothing_else(stores: Stores) -> None:
    await stores.agents.add("acme", agent("Athena"), request_id=None)
    archived = agent("Athena", state=agent_pb2.AGENT_STATE_ARCHIVED)

    await stores.agents.set_state("acme", archived)

    assert await stores.agents.versions("acme", "Athena") == [archived]


async def test_versions_are_listed_by_number_and_not_by_letter(stores: Stores) -> None:
    for version in ("1.10.0", "1.2.0", "1.9.0"):
        await stores.agents.add("acme", agent("Athena", version), request_id=None)

    assert await names(stores, AgentFilter()) == ["Athena@1.2.0", "Athena@1.9.0", "Athena@1.10.0"]


async def test_agents_are_filtered_ordered_and_paged(stores: Stores) -> None:
    for place, name in enumerate(["Hermes", "Athena", "Apollo"]):
        await stores.agents.add("acme", agent(name, minute=place), request_id=None)
    await stores.agents.add("acme", agent("Zeus", state=agent_pb2.AGENT_STATE_ARCHIVED), request_id=None)
    await stores.agents.add("acme", agent("Hera", state=agent_pb2.AGENT_STATE_DRAFT, minute=9), request_id=None)

    assert await names(stores, AgentFilter(), Page(size=2)) == ["Apollo@1.0.0", "Athena@1.0.0", "Hera@1.0.0"]
    assert await names(stores, AgentFilter(), Page(size=9, cursor=("2",))) == ["Hera@1.0.0", "Hermes@1.0.0"]
    assert await names(stores, AgentFilter(order="create_time"), Page(size=1)) == ["Hermes@1.0.0", "Athena@1.0.0"]
    assert (await names(stores, AgentFilter(order="create_time desc")))[0] == "Hera@1.0.0"
    assert await names(stores, AgentFilter(capability="athena")) == ["Athena@1.0.0"]
    assert await names(stores, AgentFilter(name="Hera")) == ["Hera@1.0.0"]
    assert await names(stores, AgentFilter(state=agent_pb2.AGENT_STATE_ARCHIVED)) == ["Zeus@1.0.0"]


async def test_a_file_of_versions_is_stored_whole_or_not_at_all(stores: Stores) -> None:
    await stores.agents.add("acme", agent("Hera"), request_id=None)

    assert not await stores.agents.add_all("acme", [agent("Athena"), agent("Hera")])
    assert await names(stores, AgentFilter()) == ["Hera@1.0.0"]
    assert await stores.agents.add_all("acme", [agent("Athena"), agent("Apollo")])
    assert await names(stores, AgentFilter()) == ["Apollo@1.0.0", "Athena@1.0.0", "Hera@1.0.0"]


async def test_replicas_are_told_over_postgres_what_changed(postgres: Cluster) -> None:
    """NOTIFY reaches a cache that another connection filled."""
    async with open_database(postgres.dsn("orchestrator"), pool=2) as database:
        store = PostgresAgentStore(database)
        versions, told = Versions(store, FakeClock()), asyncio.Event()
        tenant = "notified"
        first = agent("Nyx")
        await store.add(tenant, first, request_id=None)
        dsn = postgres.dsn("orchestrator")
        async with supervised("agents", lambda: listen(dsn, versions, heard=told.set)):
            while not told.is_set():
                await versions.versions(tenant, "Nyx")
                first.state = agent_pb2.AGENT_STATE_ARCHIVED
                await store.set_state(tenant, first)
                await asyncio.sleep(0.01)
            (found,) = await versions.versions(tenant, "Nyx")
        assert found.state == agent_pb2.AGENT_STATE_ARCHIVED


async def test_of_many_versions_only_the_newest_of_a_state_is_listed(stores: Stores) -> None:
    for version in ("1.9.0", "1.10.0"):
        await stores.agents.add("acme", agent("Athena", version), request_id=None)
    await stores.agents.add("acme", agent("Athena", "2.0.0", state=agent_pb2.AGENT_STATE_DRAFT), request_id=None)
    await stores.agents.add("acme", agent("Hera"), request_id=None)
    await stores.agents.add("other", agent("Hera", "3.0.0"), request_id=None)

    active = AgentFilter(state=agent_pb2.AGENT_STATE_ACTIVE, newest=True)
    assert await names(stores, active) == ["Athena@1.10.0", "Hera@1.0.0"]
    with pytest.raises(PageTokenInvalid):
        await names(stores, active, Page(size=9, cursor=("many",)))
