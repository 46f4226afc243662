"""The honest fake of governance: overrides, the audit trail, decisions and pseudonyms."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from services.policy.audit import AuditEntry, AuditFilter, first_seal
from services.policy.overrides import Override
from services.policy.simulation import Decision


class MemoryGovernance:
    """Everything is gone when the process ends."""

    def __init__(self) -> None:
        self._overrides: dict[tuple[str, str], Override] = {}
        self._hot: dict[str, list[AuditEntry]] = {}
        self._archived: dict[str, list[AuditEntry]] = {}
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
        self, tenant: str, actor: str, act: str, subject: str, detail: Mapping[str, object], *, at: datetime
    ) -> AuditEntry:
        plain = json.loads(json.dumps(dict(detail)))
        async with self._lock:
            known = [*self._archived.get(tenant, []), *self._hot.get(tenant, [])]
            before = known[-1].seal if known else first_seal()
            entry = AuditEntry(len(known) + 1, actor, act, subject, plain, at)
            entry = replace(entry, seal=entry.sealed_after(before))
            self._hot.setdefault(tenant, []).append(entry)
        return entry

    async def entries(self, tenant: str, chosen: AuditFilter, *, after: int, limit: int) -> Sequence[AuditEntry]:
        known = [*(self._archived.get(tenant, []) if chosen.archived else []), *self._hot.get(tenant, [])]
        return [one for one in known if one.sequence > after and _fits(one, chosen)][:limit]

    async def archive(self, tenant: str, *, before: datetime) -> int:
        old = [one for one in self._hot.get(tenant, []) if one.created_at < before]
        self._archived.setdefault(tenant, []).extend(old)
        self._hot[tenant] = [one for one in self._hot.get(tenant, []) if one.created_at >= before]
        return len(old)

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


def _fits(entry: AuditEntry, chosen: AuditFilter) -> bool:
    return (
        chosen.actor in ("", entry.actor)
        and chosen.act in ("", entry.act)
        and (chosen.start is None or entry.created_at >= chosen.start)
        and (chosen.end is None or entry.created_at < chosen.end)
    )
