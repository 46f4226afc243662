"""The honest fake of governance: overrides, the audit trail, decisions and pseudonyms."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from services.policy.archive import Part
from services.policy.audit import AuditFilter
from services.policy.audit_entry import FIRST_SEAL, AuditEntry
from services.policy.overrides import Override
from services.policy.simulation import Decision


class MemoryGovernance:
    """Everything is gone when the process ends."""

    def __init__(self) -> None:
        self._overrides: dict[tuple[str, str], Override] = {}
        self._hot: dict[str, list[AuditEntry]] = {}
        self._archived: dict[str, list[AuditEntry]] = {}
        self._heads: dict[str, tuple[int, str]] = {}
        self._parts: dict[str, list[Part]] = {}
        self._decisions: dict[tuple[str, str], Decision] = {}
        self._values: dict[tuple[str, str], bytes] = {}
        self._lock = asyncio.Lock()

    async def add_override(self, tenant: str, override: Override) -> None:
        self._overrides[tenant, override.id] = override

    async def override(self, tenant: str, override_id: str) -> Override | None:
        return self._overrides.get((tenant, override_id))

    async def overrides(self, tenant: str) -> Sequence[Override]:
        mine = [found for (owner, _), found in self._overrides.items() if owner == tenant]
        return sorted(mine, key=lambda one: (one.created_at, one.id), reverse=True)

    async def count_use(self, tenant: str, override_id: str) -> None:
        found = self._overrides[tenant, override_id]
        self._overrides[tenant, override_id] = replace(found, uses=found.uses + 1)

    async def revoke(self, tenant: str, override_id: str, *, at: datetime) -> None:
        found = self._overrides[tenant, override_id]
        self._overrides[tenant, override_id] = replace(found, revoked_at=found.revoked_at or at)

    async def append(
        self,
        tenant: str,
        actor: str,
        act: str,
        subject: str,
        detail: Mapping[str, object],
        *,
        at: datetime,
        key: bytes,
    ) -> AuditEntry:
        plain = json.loads(json.dumps(dict(detail)))
        async with self._lock:
            last, before = self._heads.get(tenant, (0, FIRST_SEAL))
            entry = AuditEntry(last + 1, actor, act, subject, plain, at)
            entry = replace(entry, seal=entry.sealed_after(before, key))
            self._hot.setdefault(tenant, []).append(entry)
            self._heads[tenant] = (entry.sequence, entry.seal)
        return entry

    async def entries(self, tenant: str, chosen: AuditFilter, *, after: int, limit: int) -> Sequence[AuditEntry]:
        known = [*(self._archived.get(tenant, []) if chosen.archived else []), *self._hot.get(tenant, [])]
        return [one for one in known if one.sequence > after and chosen.fits(one)][:limit]

    async def archive(self, tenant: str, *, before: datetime) -> int:
        old = [one for one in self._hot.get(tenant, []) if one.created_at < before]
        self._archived.setdefault(tenant, []).extend(old)
        self._hot[tenant] = [one for one in self._hot.get(tenant, []) if one.created_at >= before]
        return len(old)

    async def head(self, tenant: str) -> tuple[int, str]:
        return self._heads.get(tenant, (0, FIRST_SEAL))

    async def move_to(self, tenant: str, part: Part) -> None:
        known = self._parts.setdefault(tenant, [])
        if part not in known:
            known.append(part)
        self._hot[tenant] = [one for one in self._hot[tenant] if not part.first <= one.sequence <= part.last]

    async def parts(self, tenant: str) -> Sequence[Part]:
        return sorted(self._parts.get(tenant, []), key=lambda part: part.first)

    async def audited_tenants(self) -> Sequence[str]:
        return sorted(self._hot)

    async def keep(self, tenant: str, decisions: Sequence[Decision]) -> int:
        new = [one for one in decisions if (tenant, one.id) not in self._decisions]
        self._decisions |= {(tenant, one.id): one for one in new}
        return len(new)

    async def tell(self, tenant: str, decision_id: str, *, harmful: bool) -> Decision | None:
        if (tenant, decision_id) not in self._decisions:
            return None
        told = replace(self._decisions[tenant, decision_id], harmful=harmful)
        self._decisions[tenant, decision_id] = told
        return told

    async def decisions(
        self, tenant: str, *, start: datetime | None, end: datetime | None, limit: int
    ) -> Sequence[Decision]:
        mine = [
            one
            for (owner, _), one in self._decisions.items()
            if owner == tenant and (start is None or one.created_at >= start) and (end is None or one.created_at < end)
        ]
        return sorted(mine, key=lambda one: (one.created_at, one.id), reverse=True)[:limit]

    async def forget_decisions(self, tenant: str, *, before: datetime) -> int:
        old = [key for key, one in self._decisions.items() if key[0] == tenant and one.created_at < before]
        for key in old:
            del self._decisions[key]
        return len(old)

    async def keep_values(self, tenant: str, sealed: Mapping[str, bytes]) -> None:
        for name, value in sealed.items():
            self._values.setdefault((tenant, name), value)

    async def values(self, tenant: str, pseudonyms: Collection[str]) -> Mapping[str, bytes]:
        return {name: self._values[tenant, name] for name in pseudonyms if (tenant, name) in self._values}
