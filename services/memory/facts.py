"""What is so, since when, and what was so before."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from services.memory.bounds import Kept
from services.memory.errors import FactNotFound
from services.memory.fact_store import Fact, FactFilter, FactStore, Recorded
from services.memory.policy import MemoryPolicy
from services.memory.store import Receipt
from shared.clock import Clock
from shared.ids import Ids
from shared.paging import MAX_PAGE_SIZE, Page

_ABOUT: Final = 50


@dataclass(frozen=True, slots=True)
class NewFact:
    """What to record. `valid_from` None means now."""

    subject: str
    relation: str
    object: str
    several: bool = False
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    confidence: float = 1.0
    session_id: str = ""
    turn_id: str = ""
    agent: str = ""
    policy_version: str = ""


class Facts:
    """The facts of all tenants, one tenant a call."""

    def __init__(self, store: FactStore, *, policy: MemoryPolicy, clock: Clock, ids: Ids) -> None:
        self._policy = policy
        self._store = store
        self._clock = clock
        self._ids = ids

    async def record(self, tenant: str, many: Sequence[NewFact]) -> Sequence[Recorded]:
        """All or none, in their order. Raises PolicyBlocked and PolicyUnavailable."""
        now = self._clock.now()
        many = [self._allowed(tenant, new) for new in many]
        facts = [
            Fact(
                self._ids.new("fct"), new.subject, new.relation, new.object, new.several, new.valid_from or now, now,
                valid_to=new.valid_to, confidence=new.confidence, session_id=new.session_id, turn_id=new.turn_id,
                agent=new.agent, policy_version=new.policy_version,
            )
            for new in many
        ]  # fmt: skip
        return await self._store.record(tenant, facts)

    def _allowed(self, tenant: str, new: NewFact) -> NewFact:
        subject, _ = self._policy.kept(tenant, new.agent, new.subject, field="facts.subject")
        relation, _ = self._policy.kept(tenant, new.agent, new.relation, field="facts.relation")
        known, bundles = self._policy.kept(tenant, new.agent, new.object, field="facts.object")
        version = new.policy_version or bundles
        return replace(new, subject=subject, relation=relation, object=known, policy_version=version)

    def _readable(self, tenant: str, fact: Fact) -> Fact:
        """Without its object where any part may not be in a prompt; its subject stays, as it is forgotten by that."""
        told = self._told(tenant, fact)
        return replace(fact, object=told.object if told else "")

    def _told(self, tenant: str, fact: Fact) -> Fact | None:
        """As it may be part of a prompt; None: not at all."""
        subject, relation, known = (
            self._policy.told(tenant, fact.agent, part) for part in (fact.subject, fact.relation, fact.object)
        )
        if subject is None or relation is None or known is None:
            return None
        return replace(fact, subject=subject, relation=relation, object=known)

    async def every(self, tenant: str, chosen: FactFilter, page: Page) -> list[Fact]:
        """Those recorded last first, each as policy lets it be read."""
        return [self._readable(tenant, fact) for fact in await self._store.every(tenant, chosen, page)]

    async def about(self, tenant: str, subjects: Sequence[str], *, as_of: datetime | None) -> list[Fact]:
        """What is so of these entities and may be part of a prompt, in their order."""
        at = as_of or self._clock.now()
        found: list[Fact] = []
        for subject in subjects:
            known = await self._store.every(tenant, FactFilter(subject, valid_at=at, as_of=as_of), Page(_ABOUT))
            found += [told for fact in known[:_ABOUT] if (told := self._told(tenant, fact))]
        return found

    async def related(self, tenant: str, subject: str, *, depth: int, limit: int) -> list[Fact]:
        """What is so around an entity, step by step, those nearest first."""
        now = self._clock.now()
        found: dict[str, Fact] = {}
        seen: set[str] = set()
        edge = {subject}
        for _ in range(depth):
            near = await self._store.touching(tenant, sorted(edge), valid_at=now, limit=limit)
            fresh = [fact for fact in near if fact.id not in found]
            found |= {fact.id: fact for fact in fresh}
            seen |= edge
            edge = {end for fact in fresh for end in (fact.subject, fact.object)} - seen
            if not edge or len(found) >= limit:
                break
        return [self._readable(tenant, fact) for fact in list(found.values())[:limit]]

    async def end(self, tenant: str, fact_id: str, *, valid_to: datetime | None) -> Fact:
        """Raises FactNotFound."""
        now = self._clock.now()
        fact = await self._store.end(tenant, fact_id, valid_to=valid_to or now, now=now)
        if fact is None:
            raise FactNotFound(f"no fact {fact_id}", fact_id=fact_id)
        return fact

    async def forget(self, tenant: str, subject: str, *, requested_by: str) -> list[Receipt]:
        """The proofs of the deletion of a subject's facts, history included."""
        receipts: list[Receipt] = []
        while found := (await self._store.every(tenant, FactFilter(subject), Page(MAX_PAGE_SIZE)))[:MAX_PAGE_SIZE]:
            receipts += await self.forget_all(tenant, found, requested_by=requested_by)
        return receipts

    async def forget_all(self, tenant: str, facts: Sequence[Fact], *, requested_by: str) -> list[Receipt]:
        """The proofs of the deletion of these."""
        now = self._clock.now()
        receipts = [Receipt(self._ids.new("rct"), fact.id, _hash(fact), requested_by, now) for fact in facts]
        await self._store.forget(tenant, facts, receipts)
        return receipts

    async def kept(self, tenant: str, *, ended_by: datetime | None) -> Kept:
        """How many there are, or only of those that no longer hold by then."""
        return await self._store.kept(tenant, ended_by=ended_by)

    async def outlived(self, tenant: str, *, before: datetime, ended_by: datetime | None, limit: int) -> Sequence[Fact]:
        """Those recorded before; where only ended ones are asked for, those of which that was so and known before."""
        return await self._store.outlived(tenant, before=before, ended_by=ended_by, limit=limit)

    async def surplus(self, tenant: str, *, at_most: int, ended_by: datetime | None, limit: int) -> Sequence[Fact]:
        """Those beyond so many: the longest ended first, then those recorded first."""
        now = self._clock.now()
        return await self._store.surplus(tenant, at_most=at_most, ended_by=ended_by, now=now, limit=limit)


def _hash(fact: Fact) -> bytes:
    return hashlib.sha256(f"{fact.subject}\n{fact.relation}\n{fact.object}".encode()).digest()
