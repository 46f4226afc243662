"""The decision point for roles: on the platform by action, on tools by what a call does. Deny is the default."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from services.policy.audit import AuditLog
from shared.tool_permissions import ToolPermission, refused

_READS: Final = frozenset(
    {"agents.read", "sessions.read", "policies.read", "tools.read", "cost.read", "memory.read", "models.read"}
)
_WORKS: Final = _READS | {"sessions.run", "agents.run", "models.run", "memory.write"}
_OVERSEES: Final = _READS | {"violations.read", "risks.read", "keys.read", "exports.read"}
_OPERATES: Final = (
    _WORKS
    | _OVERSEES
    | {"agents.write", "policies.write", "tools.write", "tools.run", "overrides.write", "risks.write"}
)
PLATFORM: Final = {
    "admin": _OPERATES | {"audit.read", "keys.write", "budgets.write", "tenants.write", "privacy.reveal"},
    "operator": _OPERATES,
    "auditor": _OVERSEES | {"audit.read"},
    "tenant_user": _WORKS,
}
TOOL_ROLES: Final = frozenset({"viewer", "agent", "admin", "batch_processor"})
_CALLING: Final = frozenset({"agent", "admin"})


@dataclass(frozen=True, slots=True)
class Decided:
    allowed: bool
    rationale: str


class AccessStore(Protocol):
    """Where tool permissions are kept."""

    async def set_permission(self, tenant: str, permission: ToolPermission) -> None:
        """Stores one in the place of that tool."""

    async def permissions(self, tenant: str) -> Sequence[ToolPermission]:
        """All, by tool."""


def on_platform(roles: Sequence[str], action: str) -> Decided:
    """Whether one of the roles may do the action."""
    for role in roles:
        if action in PLATFORM.get(role, frozenset()):
            return Decided(allowed=True, rationale=f"the role {role} may {action}")
    return Decided(allowed=False, rationale=f"none of the roles {', '.join(sorted(roles)) or '(none)'} may {action}")


def on_tool(
    roles: Sequence[str], tool: str, agent: str, permissions: Sequence[ToolPermission], *, idempotent: bool
) -> Decided:
    """Whether the call may be made: a batch processor only makes calls that may be repeated, a viewer none; every
    permission that names the tool must agree.
    """
    calling = [role for role in roles if role in _CALLING or (role == "batch_processor" and idempotent)]
    if not calling:
        return Decided(allowed=False, rationale=f"none of the roles {', '.join(sorted(roles)) or '(none)'} may call it")
    if why := refused(permissions, tool, roles=calling, agent=agent):
        return Decided(allowed=False, rationale=why)
    return Decided(allowed=True, rationale=f"the role {calling[0]} may call {tool}")


@dataclass(frozen=True, slots=True)
class Access:
    """Decides, and writes refusals down."""

    store: AccessStore
    audit: AuditLog

    async def action(self, tenant: str, by: str, roles: Sequence[str], action: str) -> Decided:
        return await self._told(tenant, by, action, on_platform(roles, action))

    async def tool(
        self, tenant: str, by: str, roles: Sequence[str], tool: str, *, agent: str, idempotent: bool
    ) -> Decided:
        permissions = await self.store.permissions(tenant)
        return await self._told(tenant, by, tool, on_tool(roles, tool, agent, permissions, idempotent=idempotent))

    async def permit(self, tenant: str, by: str, permission: ToolPermission) -> ToolPermission:
        await self.store.set_permission(tenant, permission)
        await self.audit.record(
            tenant, by, "access.set_tool", permission.tool, roles=list(permission.roles), agents=list(permission.agents)
        )
        return permission

    async def _told(self, tenant: str, by: str, what: str, decided: Decided) -> Decided:
        if not decided.allowed:
            await self.audit.record(tenant, by, "access.refuse", what, rationale=decided.rationale)
        return decided
