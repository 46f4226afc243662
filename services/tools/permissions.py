"""Who may call a tool: by tool role and by agent, as the tool says and as the operator's file narrows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import BaseModel, ConfigDict, Field

from services.tools.errors import ToolNotAllowed
from services.tools.store import Tool
from shared.identity import Principal

EVERY_AGENT: Final = "*"


class Role(StrEnum):
    """What a caller is to a tool."""

    VIEWER = "viewer"
    AGENT = "agent"
    ADMIN = "admin"
    BATCH_PROCESSOR = "batch_processor"


_OF_PLATFORM: Final = {
    "admin": Role.ADMIN,
    "operator": Role.ADMIN,
    "auditor": Role.VIEWER,
    "tenant_user": Role.VIEWER,
    "batch_processor": Role.BATCH_PROCESSOR,
}
_DEFAULT_ROLES: Final = frozenset({Role.AGENT, Role.ADMIN})


@dataclass(frozen=True, slots=True)
class ToolPermission:
    """Who may call a tool, and how often; 0 is no limit."""

    allowed_roles: frozenset[Role]
    allowed_agents: frozenset[str]
    rate_limit_per_min: int
    user_rate_limit_per_min: int

    def admits(self, agent: str) -> bool:
        """An agent is known by its name, whatever its version."""
        return EVERY_AGENT in self.allowed_agents or agent.partition("@")[0] in self.allowed_agents


class _Narrowed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    allowed_roles: frozenset[Role] | None = None
    allowed_agents: frozenset[str] | None = None
    rate_limit_per_min: int = Field(default=0, ge=0)
    user_rate_limit_per_min: int = Field(default=0, ge=0)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    tools: dict[str, _Narrowed] = Field(default_factory=dict)


class ToolAuthorizer:
    """Decides at the moment of the call."""

    def __init__(self, narrowed: Mapping[str, Any] | None = None) -> None:
        self._narrowed = _File.model_validate({"tools": dict(narrowed or {})}).tools

    @classmethod
    def from_file(cls, path: Path) -> ToolAuthorizer:
        """Reads `tools: {<name>: {allowed_roles, allowed_agents, rate_limit_per_min, user_rate_limit_per_min}}`."""
        return cls(yaml.safe_load(path.read_text()).get("tools"))

    def permission(self, tool: Tool) -> ToolPermission:
        """What holds for a tool. The file can take away and lower, never give."""
        roles = frozenset(Role(role) for role in tool.allowed_roles) or _DEFAULT_ROLES
        agents = frozenset(tool.allowed_agents)
        narrowed = self._narrowed.get(tool.name, _Narrowed())
        if narrowed.allowed_agents is not None:
            named = narrowed.allowed_agents
            agents = named if EVERY_AGENT in agents else agents if EVERY_AGENT in named else agents & named
        return ToolPermission(
            allowed_roles=roles if narrowed.allowed_roles is None else roles & narrowed.allowed_roles,
            allowed_agents=agents,
            rate_limit_per_min=_lower(tool.rate_limit_per_min, narrowed.rate_limit_per_min),
            user_rate_limit_per_min=_lower(tool.user_rate_limit_per_min, narrowed.user_rate_limit_per_min),
        )

    def authorize(self, caller: Principal, tool: Tool, *, agent: str) -> ToolPermission:
        """The permission that the call goes by. Raises ToolNotAllowed."""
        permission, roles = self.permission(tool), roles_of(caller, agent)
        allowed = bool(roles & permission.allowed_roles) and (not agent or permission.admits(agent))
        if not allowed:
            raise ToolNotAllowed(
                f"{agent or 'the caller'} may not call {tool.name}",
                agent=agent, tool=tool.name, roles=",".join(sorted(roles)),
            )  # fmt: skip
        return permission


def roles_of(caller: Principal, agent: str) -> frozenset[Role]:
    """What a caller is: an agent when it names one, otherwise what the platform's roles make it."""
    if agent:
        return frozenset({Role.AGENT})
    return frozenset(_OF_PLATFORM[role] for role in caller.roles if role in _OF_PLATFORM)


def _lower(limit: int, other: int) -> int:
    return min(limit, other) if limit and other else limit or other
