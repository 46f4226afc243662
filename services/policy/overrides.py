"""Overrides: a signed excuse from some rules, for one tenant, for a time, perhaps for one agent, session or tool only.

For false positives, and for calls of tools that wait for leave: an operator gives a token out, whoever holds it sends
it along, the rules it names let pass what they find, and every use is in the audit trail. A token is a JWT signed with
this service's Ed25519 key, so that enforcement points can check it with the mesh's public keys; taking one back is seen
by this service at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from typing import Any, Final, Protocol

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.policy.audit import AuditLog
from services.policy.errors import OverrideExpired, OverrideInvalid, OverrideNotFound, RuleUnknown
from shared.clock import Clock
from shared.ids import Ids

LONGEST: Final = timedelta(hours=24)
_AUDIENCE: Final = "agentnet-override"
_ALGORITHM: Final = "EdDSA"
_NAMED: Final = 20
_CLAIMS: Final = ["exp", "jti", "tenant", "rules"]


@dataclass(frozen=True, slots=True)
class Override:
    """One excuse. Empty agent, session and tool mean any."""

    id: str
    rules: tuple[str, ...]
    agent: str
    session_id: str
    reason: str
    issued_by: str
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None = None
    uses: int = 0
    tool: str = ""


class OverrideStore(Protocol):
    """Where overrides are kept."""

    async def add_override(self, tenant: str, override: Override) -> None:
        """Stores a new one."""

    async def override(self, tenant: str, override_id: str) -> Override | None:
        """One by id."""

    async def overrides(self, tenant: str) -> Sequence[Override]:
        """All, newest first."""

    async def count_use(self, tenant: str, override_id: str) -> None:
        """One use more."""

    async def revoke(self, tenant: str, override_id: str, *, at: datetime) -> None:
        """Ends it; the first time counts."""


class Overrides:
    """Gives tokens out, takes them back, and reads them. `rule_names` tells which rules a tenant has."""

    def __init__(
        self,
        store: OverrideStore,
        audit: AuditLog,
        key: Ed25519PrivateKey,
        *,
        rule_names: Callable[[str], Awaitable[Collection[str]]],
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._rule_names = rule_names
        self._store = store
        self._audit = audit
        self._key = key
        self._clock = clock
        self._ids = ids

    async def create(
        self, tenant: str, by: str, *, rules: Sequence[str], agent: str, session_id: str, reason: str, ttl: timedelta,
        tool: str = "",
    ) -> tuple[Override, str]:  # fmt: skip
        """A new override and its token, which is told only this once. Raises RuleUnknown."""
        _refuse_unknown(rules, await self._rule_names(tenant))
        now = self._clock.now()
        made = Override(self._ids.new("ovr"), tuple(rules), agent, session_id, reason, by, now, now + ttl, tool=tool)
        await self._store.add_override(tenant, made)
        await self._audit.record(tenant, by, "override.create", made.id, rules=list(rules), reason=reason)
        claims = {
            "jti": made.id, "aud": _AUDIENCE, "tenant": tenant, "rules": list(rules), "agent": agent,
            "session": session_id, "exp": int(made.expires_at.timestamp()),
        }  # fmt: skip
        return made, jwt.encode(claims, self._key, algorithm=_ALGORITHM, headers={"kid": "policy"})

    async def revoke(self, tenant: str, by: str, override_id: str) -> Override:
        """Takes one back. Raises OverrideNotFound."""
        found = await self._store.override(tenant, override_id)
        if found is None:
            raise OverrideNotFound(f"no override {override_id}", override_id=override_id)
        now = self._clock.now()
        await self._store.revoke(tenant, override_id, at=now)
        await self._audit.record(tenant, by, "override.revoke", override_id)
        return replace(found, revoked_at=found.revoked_at or now)

    async def every(self, tenant: str) -> Sequence[Override]:
        return await self._store.overrides(tenant)

    async def excused(
        self, tenant: str, token: str, *, by: str, agent: str, session_id: str, tool: str = ""
    ) -> frozenset[str]:
        """The rules a token excuses here and now; counts and audits it. Raises OverrideInvalid and OverrideExpired."""
        claims = self._claims(tenant, token)
        name = str(claims["jti"])
        found = await self._store.override(tenant, name)
        if found is None or found.revoked_at is not None:
            raise OverrideInvalid("the override was taken back", override_id=name)
        if found.agent not in ("", agent) or found.session_id not in ("", session_id):
            raise OverrideInvalid("the override is for another agent or session", override_id=name)
        if found.tool not in ("", tool):
            raise OverrideInvalid(f"the override is for calls of {found.tool} only", override_id=name)
        await self._store.count_use(tenant, name)
        await self._audit.record(tenant, by, "override.use", name, agent=agent, session_id=session_id, tool=tool)
        return frozenset(found.rules)

    def _claims(self, tenant: str, token: str) -> dict[str, Any]:
        try:
            claims: dict[str, Any] = jwt.decode(
                token, self._key.public_key(), algorithms=[_ALGORITHM], audience=_AUDIENCE,
                options={"require": _CLAIMS, "verify_exp": False},
            )  # fmt: skip
        except jwt.PyJWTError:
            raise OverrideInvalid("the override is not signed by this mesh") from None
        if claims["tenant"] != tenant:
            raise OverrideInvalid("the override is not for this tenant")
        if datetime.fromtimestamp(claims["exp"], UTC) <= self._clock.now():
            raise OverrideExpired("the override's time has passed", override_id=str(claims["jti"]))
        return claims


def _refuse_unknown(rules: Sequence[str], known: Collection[str]) -> None:
    for rule in rules:
        if rule not in known:
            near = get_close_matches(rule, known, n=_NAMED, cutoff=0)
            raise RuleUnknown(f"no rule {rule}; known: {', '.join(near)}", field="rules", known=", ".join(near))
