"""The honest fake of risks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime

from services.policy.risks import MITIGATIONS, Enforced, EnforcementRule, Mitigation, RiskEvent, TargetKind


class MemoryRisks:
    """Everything is gone when the process ends."""

    def __init__(self) -> None:
        self._events: dict[str, list[RiskEvent]] = {}
        self._mitigations: dict[str, list[Mitigation]] = {}
        self._rules: dict[tuple[str, str], EnforcementRule] = {}
        self._actions: dict[str, list[Enforced]] = {}

    async def add_event(self, tenant: str, event: RiskEvent) -> None:
        self._events.setdefault(tenant, []).append(event)

    async def total(self, tenant: str, risk: str, kind: TargetKind, target: str, *, since: datetime) -> float:
        return sum(
            event.value
            for event in self._events.get(tenant, [])
            if event.risk == risk and event.created_at > since and event.target(kind, tenant) == target
        )

    async def counts(self, tenant: str, *, since: datetime) -> Mapping[str, int]:
        return Counter(event.risk for event in self._events.get(tenant, []) if event.created_at > since)

    async def add_mitigation(self, tenant: str, mitigation: Mitigation) -> None:
        self._mitigations.setdefault(tenant, []).append(mitigation)

    async def mitigations(self, tenant: str) -> Sequence[Mitigation]:
        newest = sorted(self._mitigations.get(tenant, []), key=lambda one: (one.created_at, one.id), reverse=True)
        places, kept = Counter[str](), list[Mitigation]()
        for one in newest:
            places[one.risk] += 1
            if places[one.risk] <= MITIGATIONS:
                kept.append(one)
        return kept

    async def set_rule(self, tenant: str, rule: EnforcementRule) -> None:
        self._rules[tenant, rule.name] = rule

    async def rules(self, tenant: str) -> Sequence[EnforcementRule]:
        return [rule for (owner, _), rule in sorted(self._rules.items()) if owner == tenant]

    async def enforce(self, tenant: str, action: Enforced) -> bool:
        mine = self._actions.setdefault(tenant, [])
        if any(
            (one.rule, one.target) == (action.rule, action.target) and one.expires_at > action.created_at
            for one in mine
        ):
            return False
        mine.append(action)
        return True

    async def actions(self, tenant: str, *, active_at: datetime | None, target: str) -> Sequence[Enforced]:
        found = [
            one
            for one in self._actions.get(tenant, [])
            if target in ("", one.target) and (active_at is None or one.expires_at > active_at)
        ]
        return sorted(found, key=lambda one: (one.created_at, one.id), reverse=True)
