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

from services.policy.access import on_platform
from services.policy.audit import AuditLog
from services.policy.errors import (
    NotEntitled,
    OverrideExpired,
    OverrideInvalid,
    OverrideNotFound,
    OverrideOutOfScope,
    RuleUnknown,
)
from shared.clock import Clock
from shared.identity import Principal
from shared.ids import Ids

LONGEST: Final = timedelta(hours=24)
_AUDIENCE: Final = "agentnet-override"
_ALGORITHM: Final = "EdDSA"
_NAMED: Final = 20
_SCOPE: Final = "override:write"
_CLAIMS: Final = ["exp", "jti", "tenant", "rules"]


@dataclass(frozen=True, slots=True)
class Override:
    """One excuse. Empty agent, session, tool and request_id mean any."""

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
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Hold:
    """What rules that want leave stopped in a session: a call of a tool, or without one what an agent was saying."""

    rules: tuple[str, ...]
    agent: str
    session_id: str
    tool: str
    request_id: str


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
        tool: str = "", request_id: str = "",
    ) -> tuple[Override, str]:  # fmt: skip
        """A new override and its token. Raises RuleUnknown."""
        _refuse_unknown(rules, await self._rule_names(tenant))
        now = self._clock.now()
        made = Override(
            self._ids.new("ovr"), tuple(rules), agent, session_id, reason, by, now, now + ttl, tool=tool,
            request_id=request_id,
        )  # fmt: skip
        await self._store.add_override(tenant, made)
        await self._audit.record(tenant, by, "override.create", made.id, rules=list(rules), reason=reason)
        return made, self._token(tenant, made)

    async def decide(
        self, caller: Principal, hold: Hold, *, approved: bool, reason: str, ttl: timedelta
    ) -> Override | None:
        """A person's word on what is held: an override for just that, or None. Raises NotEntitled,
        OverrideOutOfScope and RuleUnknown.
        """
        tenant, by, subject = caller.tenant_id, caller.subject, hold.request_id or hold.session_id
        try:
            _entitled(caller)
        except (NotEntitled, OverrideOutOfScope) as refusal:
            await self._audit.record(tenant, by, "access.refuse", subject, rationale=refusal.message)
            raise
        if not approved:
            await self._audit.record(
                tenant, by, "hold.refuse", subject, rules=list(hold.rules), agent=hold.agent,
                session_id=hold.session_id, tool=hold.tool, reason=reason,
            )  # fmt: skip
            return None
        made, _ = await self.create(
            tenant, by, rules=hold.rules, agent=hold.agent, session_id=hold.session_id,
            reason=reason or f"asked in session {hold.session_id}", ttl=ttl, tool=hold.tool, request_id=hold.request_id,
        )  # fmt: skip
        return made

    async def signed(self, tenant: str, override_id: str) -> str:
        """The token of an override for one session. Raises OverrideNotFound, OverrideInvalid and OverrideExpired."""
        found = await self._store.override(tenant, override_id)
        if found is None or not found.session_id:
            raise OverrideNotFound(f"no override {override_id} of one session", override_id=override_id)
        if found.revoked_at is not None:
            raise OverrideInvalid("the override was taken back", override_id=override_id)
        if found.expires_at <= self._clock.now():
            raise OverrideExpired("the override's time has passed", override_id=override_id)
        return self._token(tenant, found)

    def _token(self, tenant: str, made: Override) -> str:
        claims = {
            "jti": made.id, "aud": _AUDIENCE, "tenant": tenant, "rules": list(made.rules), "agent": made.agent,
            "session": made.session_id, "exp": int(made.expires_at.timestamp()),
        }  # fmt: skip
        return jwt.encode(claims, self._key, algorithm=_ALGORITHM, headers={"kid": "policy"})

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
        self, tenant: str, token: str, *, by: str, agent: str, session_id: str, tool: str = "", request_id: str = ""
    ) -> frozenset[str]:
        """The rules a token excuses here and now; counts and audits it. Raises OverrideInvalid and OverrideExpired."""
        claims = self._claims(tenant, token)
        name = str(claims["jti"])
        found = await self._store.override(tenant, name)
        if found is None or found.revoked_at is not None:
            raise OverrideInvalid("the override was taken back", override_id=name)
        if found.agent not in ("", agent, agent.partition("@")[0]) or found.session_id not in ("", session_id):
            raise OverrideInvalid("the override is for another agent or session", override_id=name)
        if found.tool not in ("", tool):
            raise OverrideInvalid(f"the override is for calls of {found.tool} only", override_id=name)
        if found.request_id not in ("", request_id):
            raise OverrideInvalid("the override is for one other call only", override_id=name)
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


def _entitled(caller: Principal) -> None:
    """Who may give out overrides, and in person: nobody who acts for an agent, whatever its roles."""
    grant = caller.grant
    if grant and (grant.delegators or (grant.scopes is not None and _SCOPE not in grant.scopes)):
        raise OverrideOutOfScope(f"the credential lacks the scope {_SCOPE}", scope=_SCOPE)
    decided = on_platform(sorted(caller.roles), "overrides.write")
    if not decided.allowed:
        roles = ",".join(sorted(caller.roles))
        raise NotEntitled(f"an operator or admin decides this: {decided.rationale}", method="GiveInput", roles=roles)


def _refuse_unknown(rules: Sequence[str], known: Collection[str]) -> None:
    for rule in rules:
        if rule not in known:
            near = get_close_matches(rule, known, n=_NAMED, cutoff=0)
            raise RuleUnknown(f"no rule {rule}; known: {', '.join(near)}", field="rules", known=", ".join(near))
