"""Agents: immutable versions, found by name, moved on through their lives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from agentnet.orchestrator.v1 import agent_pb2
from services.orchestrator.agents.cache import Versions
from services.orchestrator.errors import AgentArchived, AgentNotFound, AgentVersionExists
from services.orchestrator.store import AgentFilter, AgentStore
from shared.clock import Clock
from shared.ids import Ids
from shared.paging import MAX_PAGE_SIZE, Page

ACTIVE: Final = agent_pb2.AGENT_STATE_ACTIVE
ARCHIVED: Final = agent_pb2.AGENT_STATE_ARCHIVED


class Agents:
    """The registry of all tenants, one tenant a call. Each tenant starts with the default agents."""

    def __init__(
        self,
        store: AgentStore,
        defaults: Sequence[agent_pb2.Agent],
        *,
        clock: Clock,
        ids: Ids,
        versions: Versions | None = None,
    ) -> None:
        """`versions` keeps what was found; without it every look-up asks the store."""
        self._store = store
        self._versions = versions
        self._defaults = defaults
        self._clock = clock
        self._ids = ids
        self._welcomed: set[str] = set()

    async def create(self, tenant: str, agent: agent_pb2.Agent, *, request_id: str | None = None) -> agent_pb2.Agent:
        """Stores a version. Raises AgentVersionExists, unless the request_id made that very version."""
        await self.welcome(tenant)
        made = self._made(agent)
        if await self._store.add(tenant, made, request_id=request_id):
            self._forget(tenant, agent.name)
            return made
        if request_id and (earlier := await self._store.made_by(tenant, request_id)):
            return earlier
        raise AgentVersionExists(
            f"{agent.name}@{agent.version} exists; versions never change", agent=f"{agent.name}@{agent.version}"
        )

    async def find(self, tenant: str, name: str, version: str = "") -> agent_pb2.Agent:
        """One version, or the newest active one; without an active one the newest. Raises AgentNotFound."""
        await self.welcome(tenant)
        versions = await (self._versions or self._store).versions(tenant, name)
        if version:
            fitting = [agent for agent in versions if agent.version == version]
        else:
            fitting = [agent for agent in versions if agent.state == ACTIVE] or list(versions)
        if not fitting:
            asked = f"{name}@{version}" if version else name
            raise AgentNotFound(f"no agent {asked}", agent=asked)
        return fitting[0] if version else max(fitting, key=lambda agent: version_key(agent.version))

    async def all_there(self, tenant: str, references: Sequence[str]) -> None:
        """Raises AgentNotFound unless the tenant has each of these versions: one that took a log in may not."""
        for reference in references:
            try:
                await self.find(tenant, *reference.split("@"))
            except AgentNotFound:
                why = f"the turns are those of {reference}, which this tenant does not have; import it first"
                raise AgentNotFound(why, agent=reference) from None

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
        newest = await self.newest(tenant, name)
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
        agent = await self._stored(tenant, name, version)
        if state < agent.state:
            raise AgentArchived(f"{agent.name}@{agent.version} cannot go back", agent=f"{agent.name}@{agent.version}")
        agent.state = state
        await self._store.set_state(tenant, agent)
        self._forget(tenant, name)
        return agent

    async def import_all(
        self, tenant: str, wanted: Sequence[agent_pb2.Agent], *, dry_run: bool
    ) -> tuple[Sequence[agent_pb2.Agent], Sequence[str]]:
        """Makes what is not there yet: the agents as they are stored, and which of them were made. All or none: raises
        AgentVersionExists before anything is made when a version exists and says something else.
        """
        await self.welcome(tenant)
        known = [await self._same(tenant, agent) for agent in wanted]
        made = [f"{agent.name}@{agent.version}" for agent, found in zip(wanted, known, strict=True) if found is None]
        if dry_run:
            return [found or agent for agent, found in zip(wanted, known, strict=True)], made
        added = [self._made(agent) for agent, found in zip(wanted, known, strict=True) if found is None]
        if added and not await self._store.add_all(tenant, added):
            raise AgentVersionExists("one of these versions was made meanwhile; import again", agent=made[0])
        for agent in added:
            self._forget(tenant, agent.name)
        fresh = iter(added)
        return [found or next(fresh) for found in known], made

    async def _same(self, tenant: str, wanted: agent_pb2.Agent) -> agent_pb2.Agent | None:
        """The version as it is stored, if it is. Raises AgentVersionExists when it says something else."""
        for found in await self._store.versions(tenant, wanted.name):
            if found.version == wanted.version:
                if _says(found) != _says(wanted):
                    reference = f"{wanted.name}@{wanted.version}"
                    raise AgentVersionExists(f"{reference} exists and says something else", agent=reference)
                return found
        return None

    async def every(self, tenant: str, chosen: AgentFilter, *, page: Page) -> Sequence[agent_pb2.Agent]:
        """Versions in the order asked for, at most `page.size` + 1."""
        await self.welcome(tenant)
        return await self._store.every(tenant, chosen, page=page)

    async def active(self, tenant: str) -> list[agent_pb2.Agent]:
        """Of each agent the newest active version."""
        newest, found = AgentFilter(state=ACTIVE, newest=True), list[agent_pb2.Agent]()
        while True:
            page = Page(MAX_PAGE_SIZE, (str(len(found)),))
            more = await self.every(tenant, newest, page=page)
            found += more[: page.size]
            if len(more) <= page.size:
                return found

    async def welcome(self, tenant: str) -> None:
        """Gives a tenant the default agents, once."""
        if tenant in self._welcomed:
            return
        for agent in self._defaults:
            await self._store.add(tenant, self._made(agent), request_id=None)
        self._welcomed.add(tenant)

    def _forget(self, tenant: str, name: str) -> None:
        if self._versions:
            self._versions.forget(tenant, name)

    async def _stored(self, tenant: str, name: str, version: str) -> agent_pb2.Agent:
        """As `find`, from the store itself, to be changed. A bare name means the newest version."""
        if not version:
            return await self.newest(tenant, name)
        await self.welcome(tenant)
        fitting = [agent for agent in await self._store.versions(tenant, name) if agent.version == version]
        if not fitting:
            raise AgentNotFound(f"no agent {name}@{version}", agent=f"{name}@{version}")
        return fitting[0]

    async def newest(self, tenant: str, name: str) -> agent_pb2.Agent:
        """The highest version in any state, from the store itself. Raises AgentNotFound."""
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


def _says(agent: agent_pb2.Agent) -> bytes:
    """What a version says, without what the mesh sets and what may change."""
    said = agent_pb2.Agent()
    said.CopyFrom(agent)
    for name in ("id", "create_time", "state", "template"):
        said.ClearField(name)
    return said.SerializeToString(deterministic=True)
