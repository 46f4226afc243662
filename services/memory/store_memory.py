"""The honest fake: exact search over a list."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from services.memory.store import TURNS_HELD, Filter, Memory, Scored, ShortTermTurn, Vector
from shared.paging import Page


class InMemoryStore:
    """Everything is gone when the process ends."""

    def __init__(self) -> None:
        self._memories: dict[tuple[str, str], tuple[Memory, Vector]] = {}
        self._turns: dict[tuple[str, str], list[ShortTermTurn]] = {}

    async def add(self, tenant: str, memory: Memory, vector: Vector) -> Memory:
        for (owner, _), (known, _) in self._memories.items():
            if owner == tenant and _identity(known) == _identity(memory):
                return known
        self._memories[tenant, memory.id] = (memory, vector)
        return memory

    async def find(self, tenant: str, memory_id: str, *, now: datetime) -> Memory | None:
        found = self._memories.get((tenant, memory_id))
        return found[0] if found and _lives(found[0], now) else None

    async def forget(self, tenant: str, memory_id: str) -> bool:
        return self._memories.pop((tenant, memory_id), None) is not None

    async def every(
        self, tenant: str, chosen: Filter, *, now: datetime, newest_first: bool, page: Page
    ) -> Sequence[Memory]:
        mine = sorted((memory for memory, _ in self._mine(tenant, chosen, now)), key=_place, reverse=newest_first)
        if page.cursor:
            seen = (page.cursor[0], page.cursor[1])
            mine = [memory for memory in mine if (_place(memory) < seen if newest_first else _place(memory) > seen)]
        return mine[: page.size + 1]

    async def nearest(
        self, tenant: str, vector: Vector, chosen: Filter, *, now: datetime, min_score: float, limit: int
    ) -> Sequence[Scored]:
        scored = [
            Scored(memory, _cosine(vector, known))
            for memory, known in self._mine(tenant, chosen, now)
            if len(known) == len(vector)
        ]
        fitting = [found for found in scored if found.score >= min_score]
        return sorted(fitting, key=lambda found: -found.score)[:limit]

    async def append_turn(self, tenant: str, session_id: str, turn: ShortTermTurn, *, now: datetime) -> int:
        held = self._turns.setdefault((tenant, session_id), [])
        if all(known.turn_id != turn.turn_id for known in held):
            held.append(turn)
            del held[:-TURNS_HELD]
        return len(held)

    async def tail(self, tenant: str, session_id: str, *, limit: int) -> Sequence[ShortTermTurn]:
        return self._turns.get((tenant, session_id), [])[-limit:]

    def _mine(self, tenant: str, chosen: Filter, now: datetime) -> list[tuple[Memory, Vector]]:
        return [
            (memory, vector)
            for (owner, _), (memory, vector) in self._memories.items()
            if owner == tenant and _lives(memory, now) and _fits(memory, chosen)
        ]


def _identity(memory: Memory) -> tuple[str, str, bytes]:
    return memory.agent, memory.memory_type.value, memory.content_hash


def _lives(memory: Memory, now: datetime) -> bool:
    return memory.expires_at is None or memory.expires_at > now


def _place(memory: Memory) -> tuple[str, str]:
    return memory.created_at.isoformat(), memory.id


def _fits(memory: Memory, chosen: Filter) -> bool:
    return (
        (not chosen.agent or memory.agent in ("", chosen.agent))
        and (not chosen.types or memory.memory_type in chosen.types)
        and set(chosen.tags) <= set(memory.tags)
        and (chosen.start is None or memory.created_at >= chosen.start)
        and (chosen.end is None or memory.created_at < chosen.end)
        and (not chosen.not_session or memory.session_id != chosen.not_session)
    )


def _cosine(first: Vector, second: Vector) -> float:
    product = sum(a * b for a, b in zip(first, second, strict=True))
    size = (sum(a * a for a in first) * sum(b * b for b in second)) ** 0.5
    return product / size if size else 0.0
