"""Who may call a tenant's tools, as policy was told and tools enforce it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True, slots=True)
class ToolPermission:
    """Who may call the tools a pattern names. Empty means no further limit."""

    tool: str
    roles: tuple[str, ...] = ()
    agents: tuple[str, ...] = ()


def refused(permissions: Sequence[ToolPermission], tool: str, *, roles: Collection[str], agent: str) -> str:
    """Why not, in a sentence; empty when every permission that names the tool agrees. An agent is known by its name,
    whatever its version.
    """
    name = agent.partition("@")[0]
    for permission in permissions:
        if not fnmatchcase(tool, permission.tool):
            continue
        if permission.roles and not set(roles) & set(permission.roles):
            return f"{permission.tool} is for {', '.join(permission.roles)} only"
        if permission.agents and name not in permission.agents:
            return f"{permission.tool} is not for the agent {agent or '(none)'}"
    return ""
