"""Agents: immutable versions, found by name, moved on through their lives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import BaseModel, ConfigDict, Field

from agentnet.orchestrator.v1 import agent_pb2
from services.orchestrator.errors import AgentArchived, AgentNotFound, AgentVersionExists
from services.orchestrator.store import AgentFilter, AgentStore
from shared import fields
from shared.clock import Clock
from shared.ids import Ids
from shared.paging import Page

ACTIVE: Final = agent_pb2.AGENT_STATE_ACTIVE
ARCHIVED: Final = agent_pb2.AGENT_STATE_ARCHIVED


class _Definition(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$")
    version: str
    description: str = ""
    system_prompt: str
    style: dict[str, float] = {}
    capabilities: list[str] = []


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    agents: list[_Definition]


def read_agents(path: Path) -> list[agent_pb2.Agent]:
    """Agents of a YAML file. Raises pydantic's ValidationError at start."""
    data: Any = yaml.safe_load(path.read_text())
    return [
        agent_pb2.Agent(
            name=found.name,
            version=found.version,
            description=found.description,
            system_prompt=found.system_prompt,
            style=fields.struct(dict(found.style)),
            capabilities=found.capabilities,
            state=ACTIVE,
        )
        for found in _File.model_validate(data).agents
    ]


class Agents:
    """The registry of all tenants, one tenant a call. Each tenant starts with the default agents."""

    def __init__(self, store: AgentStore, defaults: Sequence[agent_pb2.Agent], *, clock: Clock, ids: Ids) -> None:
        self._store = store
        self._defaults = defaults
        self._clock = clock
        self._ids = ids
        self._welcomed: set[str] = set()

    async def create(self, tenant: str, agent: agent_pb2.Agent, *, request_id: str | None = None) -> agent_pb2.Agent:
        """Stores a version. Raises AgentVersionExists, unless the request_id made that very version."""
        await self.welcome(tenant)
        made = self._made(agent)
        if await self._store.add(tenant, made, request_id=request_id):
            return made
        if request_id and (earlier := await self._store.made_by(tenant, request_id)):
            return earlier
        raise AgentVersionExists(
            f"{agent.name}@{agent.version} exists; versions never change", agent=f"{agent.name}@{agent.version}"
        )

    async def find(self, tenant: str, name: str, version: str = "") -> agent_pb2.Agent:
        """One version, or the newest active one; without an active one the newest. Raises AgentNotFound."""
        await self.welcome(tenant)
        versions = await self._store.versions(tenant, name)
        if version:
            fitting = [agent for agent in versions if agent.version == version]
        else:
            fitting = [agent for agent in versions if agent.state == ACTIVE] or list(versions)
        if not fitting:
            asked = f"{name}@{version}" if version else name
            raise AgentNotFound(f"no agent {asked}", agent=asked)
        return max(fitting, key=lambda agent: version_key(agent.version))

    async def runnable(self, tenant: str, name: str, version: str = "") -> agent_pb2.Agent:
        """Raises AgentNotFound, also for a bare name that only drafts have, and AgentArchived."""
        agent = await self.find(tenant, name, version)
        if agent.state == agent_pb2.AGENT_STATE_DRAFT and not version:
            raise AgentNotFound(f"{name} has no active version; name one, as {name}@{agent.version}", agent=name)
        if agent.state == ARCHIVED:
            raise AgentArchived(f"{agent.name}@{agent.version} is archived", agent=f"{agent.name}@{agent.version}")
        return agent

    async def update(
        self, tenant: str, name: str, changes: agent_pb2.Agent, *, request_id: str | None
    ) -> agent_pb2.Agent:
        """The next version: what is set in the changes replaces, the rest stays."""
        newest = await self._newest(tenant, name)
        made = agent_pb2.Agent()
        made.CopyFrom(newest)
        for field, _ in changes.ListFields():
            made.ClearField(field.name)  # type: ignore[arg-type] # a name from the message itself
        made.MergeFrom(changes)
        made.name = name
        made.version = changes.version or next_patch(newest.version)
        made.state = changes.state or ACTIVE
        return await self.create(tenant, made, request_id=request_id)

    async def set_state(
        self, tenant: str, name: str, version: str, state: agent_pb2.AgentState.ValueType
    ) -> agent_pb2.Agent:
        """Moves a version, or the newest one, on and never back. Raises AgentNotFound and AgentArchived."""
        agent = await (self.find(tenant, name, version) if version else self._newest(tenant, name))
        if state < agent.state:
            raise AgentArchived(f"{agent.name}@{agent.version} cannot go back", agent=f"{agent.name}@{agent.version}")
        agent.state = state
        await self._store.set_state(tenant, agent)
        return agent

    async def every(self, tenant: str, chosen: AgentFilter, *, page: Page) -> Sequence[agent_pb2.Agent]:
        """Versions in the order asked for, at most `page.size` + 1."""
        await self.welcome(tenant)
        return await self._store.every(tenant, chosen, page=page)

    async def welcome(self, tenant: str) -> None:
        """Gives a tenant the default agents, once."""
        if tenant in self._welcomed:
            return
        for agent in self._defaults:
            await self._store.add(tenant, self._made(agent), request_id=None)
        self._welcomed.add(tenant)

    async def _newest(self, tenant: str, name: str) -> agent_pb2.Agent:
        await self.welcome(tenant)
        versions = await self._store.versions(tenant, name)
        if not versions:
            raise AgentNotFound(f"no agent {name}", agent=name)
        return max(versions, key=lambda agent: version_key(agent.version))

    def _made(self, agent: agent_pb2.Agent) -> agent_pb2.Agent:
        made = agent_pb2.Agent()
        made.CopyFrom(agent)
        made.id = self._ids.new("agt")
        made.create_time.FromDatetime(self._clock.now())
        return made


def version_key(version: str) -> tuple[int, ...]:
    """Semantic versions in their order."""
    return tuple(int(part) for part in version.split("."))


def next_patch(version: str) -> str:
    major, minor, patch = version_key(version)
    return f"{major}.{minor}.{patch + 1}"
