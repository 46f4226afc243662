"""The honest fake."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime

from services.tools.store import AuditEntry, Effect, Invocation, Tool


class MemoryToolStore:
    """Everything is gone when the process ends."""

    def __init__(self) -> None:
        self._tools: dict[tuple[str, str], Tool] = {}
        self._audit: list[tuple[str, AuditEntry]] = []
        self._counted: defaultdict[tuple[str, str], defaultdict[date, int]] = defaultdict(lambda: defaultdict(int))
        self._effects: dict[tuple[str, str], Effect] = {}
        self._invocations: list[tuple[str, Invocation]] = []

    async def add(self, tenant: str, tool: Tool, entry: AuditEntry) -> bool:
        if (tenant, tool.reference) in self._tools:
            return False
        self._tools[tenant, tool.reference] = tool
        self._audit.append((tenant, entry))
        return True

    async def versions(self, tenant: str, name: str) -> Sequence[Tool]:
        return [tool for tool in await self.every(tenant) if tool.name == name]

    async def every(self, tenant: str) -> Sequence[Tool]:
        mine = [tool for (owner, _), tool in self._tools.items() if owner == tenant]
        return sorted(mine, key=lambda tool: (tool.name, tool.version))

    async def move(self, tenant: str, tool: Tool, entry: AuditEntry) -> bool:
        stored = self._tools[tenant, tool.reference]
        if stored.state != entry.from_state:
            return False
        self._tools[tenant, tool.reference] = replace(stored, state=entry.to_state)
        self._audit.append((tenant, entry))
        return True

    async def audit(self, tenant: str, tool: str) -> Sequence[AuditEntry]:
        mine = [entry for owner, entry in self._audit if owner == tenant and entry.tool == tool]
        return sorted(mine, key=lambda entry: (entry.created_at, entry.id))[:500]

    async def count(self, tenant: str, tool: Tool, day: date) -> str:
        counted = self._counted[tenant, tool.reference]
        if tool.quota.total and sum(counted.values()) >= tool.quota.total:
            return "total"
        if tool.quota.per_day and counted[day] >= tool.quota.per_day:
            return "day"
        counted[day] += 1
        return ""

    async def counted(self, tenant: str, tool: str, day: date) -> tuple[int, int]:
        counted = self._counted[tenant, tool]
        return sum(counted.values()), counted[day]

    async def reserve(self, tenant: str, effect: Effect) -> Effect:
        return self._effects.setdefault((tenant, effect.request_id), effect)

    async def take_over(self, tenant: str, seen: Effect, effect: Effect) -> bool:
        if self._effects.get((tenant, seen.request_id)) != seen:
            return False
        self._effects[tenant, seen.request_id] = effect
        return True

    async def advance(self, tenant: str, effect: Effect) -> bool:
        if self._effects[tenant, effect.request_id].invocation_id != effect.invocation_id:
            return False
        self._effects[tenant, effect.request_id] = effect
        return True

    async def forget_effects(self, tenant: str, before: datetime) -> int:
        old = [key for key, effect in self._effects.items() if key[0] == tenant and effect.created_at < before]
        for key in old:
            del self._effects[key]
        return len(old)

    async def record(self, tenant: str, invocation: Invocation) -> None:
        self._invocations.append((tenant, invocation))

    async def invocations(self, tenant: str, tool: str) -> Sequence[Invocation]:
        mine = [one for owner, one in self._invocations if owner == tenant and one.tool == tool]
        return sorted(mine, key=lambda one: (one.created_at, one.id), reverse=True)[:500]
