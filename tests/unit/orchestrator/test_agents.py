"""Agents: immutable versions, found by name, moved on through their lives."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentnet.orchestrator.v1 import agent_pb2
from services.orchestrator.agents import Agents, next_patch, read_agents, version_key
from services.orchestrator.errors import AgentArchived, AgentFileInvalid, AgentNotFound, AgentVersionExists
from services.orchestrator.store import AgentFilter
from shared.paging import Page
from tests.support.orchestrator import TENANT, World

DRAFT, ACTIVE, ARCHIVED = (
    agent_pb2.AGENT_STATE_DRAFT,
    agent_pb2.AGENT_STATE_ACTIVE,
    agent_pb2.AGENT_STATE_ARCHIVED,
)


@pytest.fixture
def agents() -> Agents:
    return World().agents


def zeus(version: str = "1.0.0", *, state: agent_pb2.AgentState.ValueType = ACTIVE) -> agent_pb2.Agent:
    return agent_pb2.Agent(name="Zeus", version=version, system_prompt="You are Zeus.", state=state)


async def test_every_tenant_starts_with_the_default_agents(agents: Agents) -> None:
    for tenant in ("acme", "other"):
        found = await agents.every(tenant, AgentFilter(), page=Page())
        assert [agent.name for agent in found] == ["Apollo", "Athena", "Hermes"]
    assert len({agent.id for agent in found}) == 3


async def test_a_bare_name_means_the_newest_active_version(agents: Agents) -> None:
    for version, state in (("1.9.0", ACTIVE), ("1.10.0", ACTIVE), ("2.0.0", DRAFT)):
        await agents.create(TENANT, zeus(version, state=state))
    assert (await agents.find(TENANT, "Zeus")).version == "1.10.0"
    assert (await agents.find(TENANT, "Zeus", "1.9.0")).version == "1.9.0"


async def test_a_draft_runs_by_version_and_not_by_its_bare_name(agents: Agents) -> None:
    await agents.create(TENANT, zeus(state=DRAFT))
    assert (await agents.runnable(TENANT, "Zeus", "1.0.0")).state == DRAFT
    with pytest.raises(AgentNotFound):
        await agents.runnable(TENANT, "Zeus")


async def test_an_unknown_agent_or_version_is_not_found(agents: Agents) -> None:
    for name, version, asked in (("Hera", "", "Hera"), ("Athena", "9.9.9", "Athena@9.9.9")):
        with pytest.raises(AgentNotFound) as raised:
            await agents.find(TENANT, name, version)
        assert raised.value.facts == {"agent": asked}
    for call in (agents.update(TENANT, "Hera", zeus(), request_id=None), agents.set_state(TENANT, "Hera", "", ACTIVE)):
        with pytest.raises(AgentNotFound):
            await call


async def test_a_version_is_made_once(agents: Agents) -> None:
    await agents.create(TENANT, zeus())
    with pytest.raises(AgentVersionExists) as raised:
        await agents.create(TENANT, zeus())
    assert raised.value.facts == {"agent": "Zeus@1.0.0"}


async def test_a_repeated_request_returns_the_first_answer(agents: Agents) -> None:
    first = await agents.create(TENANT, zeus(), request_id="req_1")
    assert await agents.create(TENANT, zeus("1.0.1"), request_id="req_1") == first


async def test_an_update_makes_the_next_patch_and_keeps_what_it_does_not_set(agents: Agents) -> None:
    before = await agents.find(TENANT, "Athena")
    changes = agent_pb2.Agent(description="Sharper.", capabilities=["planning"])
    after = await agents.update(TENANT, "Athena", changes, request_id="req_1")
    again = await agents.update(TENANT, "Athena", changes, request_id="req_1")
    assert (after.version, after.description, list(after.capabilities)) == ("1.0.1", "Sharper.", ["planning"])
    assert after.system_prompt == before.system_prompt
    assert again == after
    assert await agents.find(TENANT, "Athena", "1.0.0") == before


async def test_an_agent_moves_on_and_never_back(agents: Agents) -> None:
    await agents.create(TENANT, zeus(state=DRAFT))
    assert (await agents.set_state(TENANT, "Zeus", "1.0.0", ACTIVE)).state == ACTIVE
    assert (await agents.set_state(TENANT, "Zeus", "1.0.0", ARCHIVED)).state == ARCHIVED
    assert (await agents.set_state(TENANT, "Zeus", "1.0.0", ARCHIVED)).state == ARCHIVED
    with pytest.raises(AgentArchived):
        await agents.set_state(TENANT, "Zeus", "1.0.0", ACTIVE)


async def test_a_move_by_bare_name_moves_the_newest_version(agents: Agents) -> None:
    await agents.create(TENANT, zeus("1.0.0"))
    await agents.create(TENANT, zeus("1.1.0", state=DRAFT))
    assert (await agents.set_state(TENANT, "Zeus", "", ACTIVE)).version == "1.1.0"


async def test_an_archived_agent_starts_nothing_new(agents: Agents) -> None:
    await agents.set_state(TENANT, "Athena", "1.0.0", ARCHIVED)
    with pytest.raises(AgentArchived):
        await agents.runnable(TENANT, "Athena")


def test_the_file_of_agents_is_checked_at_start(tmp_path: Path) -> None:
    file = tmp_path / "agents.yaml"
    file.write_text("agents: [{name: 1Athena, version: 1.0.0, system_prompt: x, colour: blue}]")
    with pytest.raises(AgentFileInvalid) as raised:
        read_agents(file)
    assert "agents.0.name" in raised.value.message
    assert "agents.0.colour" in raised.value.message
    assert str(file) in raised.value.message


def test_the_profile_that_policy_reads_may_stand_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "agents.yaml"
    file.write_text("agents: [{name: Midas, system_prompt: x, profile: finance, config: {desk: 4}}]")
    (agent,) = read_agents(file)
    assert dict(agent.config) == {"desk": 4, "profile": "finance"}


def test_versions_are_numbers() -> None:
    assert version_key("1.10.0") > version_key("1.9.9")
    assert next_patch("1.9.9") == "1.9.10"
