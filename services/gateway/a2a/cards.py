"""Cards: what a client is told about the mesh and its agents, and where to reach them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Final
from urllib.parse import urlsplit

from a2a.types import a2a_pb2

from agentnet.orchestrator.v1 import agent_pb2
from services.gateway.facades.agents import Agents
from shared.errors import NotFound, Reason

PROTOCOL: Final = "1.0"
TEXT: Final = ("text/plain", "text/markdown", "application/json")
_ABOUT: Final = "A mesh of services for teams of AI agents; its agents are named after you authenticate."


class AgentUnknown(NotFound):
    """No such agent in this tenant."""

    reason = Reason.ERROR_REASON_AGENT_NOT_FOUND


class Cards:
    """Made from what the tenant has."""

    def __init__(self, agents: Agents, *, url: str, default: str = "") -> None:
        self._agents = agents
        self._url = url.rstrip("/")
        self._default = default

    def public(self) -> a2a_pb2.AgentCard:
        """The mesh's, for anyone."""
        skill = a2a_pb2.AgentSkill(id="ask", name="Ask an agent", description=_ABOUT, tags=["agents"])
        return self._card("agentnet", _ABOUT, version("agentnet"), [skill], "")

    async def of(self, agent: str) -> a2a_pb2.AgentCard:
        """An agent's; without a name the mesh's, with the tenant's agents as skills. Raises AgentUnknown."""
        newest = await self._newest()
        if not agent:
            return self._card("agentnet", _ABOUT, version("agentnet"), [_skill(one) for one in newest.values()], "")
        found = newest.get(agent)
        if found is None:
            raise AgentUnknown(f"there is no agent {agent}", agent=agent)
        return self._card(found.name, found.description or found.name, found.version, [_skill(found)], found.name)

    async def named(self, agent: str) -> str:
        """Whom a message without a name is for. Raises AgentUnknown when that is open."""
        if agent or self._default:
            return agent or self._default
        names = sorted(await self._newest())
        if len(names) != 1:
            raise AgentUnknown("name an agent: /a2a/<agent>, or the request's tenant")
        return names[0]

    async def _newest(self) -> dict[str, agent_pb2.Agent]:
        return {agent.name: agent for agent in sorted(await self._agents.agents(), key=_age)}

    def _card(
        self, name: str, description: str, release: str, skills: Sequence[a2a_pb2.AgentSkill], agent: str
    ) -> a2a_pb2.AgentCard:
        address = f"{self._url}/a2a" + (f"/{agent}" if agent else "")
        capabilities = a2a_pb2.AgentCapabilities(streaming=True, push_notifications=True, extended_agent_card=True)
        card = a2a_pb2.AgentCard(
            name=name,
            description=description,
            version=release,
            documentation_url=f"{self._url}/docs",
            capabilities=capabilities,
            default_input_modes=TEXT,
            default_output_modes=TEXT,
            skills=skills,
            supported_interfaces=[
                a2a_pb2.AgentInterface(url=address, protocol_binding="JSONRPC", protocol_version=PROTOCOL),
                a2a_pb2.AgentInterface(url=address, protocol_binding="HTTP+JSON", protocol_version=PROTOCOL),
                a2a_pb2.AgentInterface(
                    url=urlsplit(self._url).netloc, protocol_binding="GRPC", protocol_version=PROTOCOL, tenant=agent
                ),
            ],
        )
        _secure(card)
        return card


def _secure(card: a2a_pb2.AgentCard) -> None:
    """A token or an API key."""
    bearer = a2a_pb2.HTTPAuthSecurityScheme(scheme="Bearer")
    key = a2a_pb2.APIKeySecurityScheme(location="header", name="x-api-key")
    card.security_schemes["bearer"].http_auth_security_scheme.CopyFrom(bearer)
    card.security_schemes["apiKey"].api_key_security_scheme.CopyFrom(key)
    for name in ("bearer", "apiKey"):
        card.security_requirements.add().schemes[name].CopyFrom(a2a_pb2.StringList())


def _skill(agent: agent_pb2.Agent) -> a2a_pb2.AgentSkill:
    tags = list(agent.capabilities) or ["agent"]
    return a2a_pb2.AgentSkill(id=agent.name, name=agent.name, description=agent.description or agent.name, tags=tags)


def _age(agent: agent_pb2.Agent) -> int:
    return agent.create_time.ToNanoseconds()
