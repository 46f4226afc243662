"""The honest fake."""

from __future__ import annotations

from collections.abc import Sequence

from services.tools.store import Invocation, Tool


class MemoryToolStore:
    """Everything is gone when the process ends."""

    def __init__(self) -> None:
        self._tools: dict[tuple[str, str, str], Tool] = {}
        self._invocations: list[tuple[str, Invocation]] = []

    async def add(self, tenant: str, tool: Tool) -> bool:
        key = (tenant, tool.name, tool.version)
        if key in self._tools:
            return False
        self._tools[key] = tool
        return True

    async def versions(self, tenant: str, name: str) -> Sequence[Tool]:
        return [tool for (owner, _, _), tool in self._tools.items() if owner == tenant and tool.name == name]

    async def every(self, tenant: str) -> Sequence[Tool]:
        mine = [tool for (owner, _, _), tool in self._tools.items() if owner == tenant]
        return sorted(mine, key=lambda tool: (tool.name, tool.version))

    async def record(self, tenant: str, invocation: Invocation) -> None:
        self._invocations.append((tenant, invocation))

    async def invocations(self, tenant: str, tool: str) -> Sequence[Invocation]:
        mine = [one for owner, one in self._invocations if owner == tenant and one.tool == tool]
        return sorted(mine, key=lambda one: (one.created_at, one.id), reverse=True)[:500]
