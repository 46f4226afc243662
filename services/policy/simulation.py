"""Trying rules on what was judged before: what would flip, whom it would touch, how right it would be."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Protocol

from services.policy.errors import DecisionNotFound
from services.policy.vault import Vault
from shared.clock import Clock
from shared.monitors.arguments import Call
from shared.monitors.pipeline import (
    ArgumentsGuardrail,
    GuardrailContext,
    GuardrailPipeline,
    MeasuredGuardrail,
    Outcome,
    StreamedGuardrail,
)
from shared.monitors.rules import WHOLE, WINDOWED, Action, Bundle, Target

EXAMPLES = 20
_PURPOSE = "decision"
_NOTING = frozenset({Action.ALLOW, Action.WARN, Action.ESCALATE})


@dataclass(frozen=True, slots=True)
class Input:
    """What was judged. It is kept sealed."""

    text: str = ""
    facts: Mapping[str, float] = field(default_factory=dict)
    tool: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Decision:
    """One judgement of the past. `harmful` is what a person said of it, None before."""

    id: str
    target: Target
    agent: str
    session_id: str
    allowed: bool
    unchanged: bool
    created_at: datetime
    sealed: bytes = b""
    harmful: bool | None = None
    truncated: bool = False
    bundles: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()


class DecisionStore(Protocol):
    """Where decisions are kept."""

    async def keep(self, tenant: str, decisions: Sequence[Decision]) -> int:
        """Stores those whose id is new; returns how many."""

    async def tell(self, tenant: str, decision_id: str, *, harmful: bool) -> Decision | None:
        """Labels one; None when there is none."""

    async def decisions(
        self, tenant: str, *, start: datetime | None, end: datetime | None, limit: int
    ) -> Sequence[Decision]:
        """The newest of a time, newest first."""

    async def forget_decisions(self, tenant: str, *, before: datetime) -> int:
        """Deletes older ones; how many."""


@dataclass(frozen=True, slots=True)
class RuleCount:
    rule: str
    matches: int
    false_positives: int


@dataclass(frozen=True, slots=True)
class Simulation:
    """What would have been different."""

    decisions: int
    newly_blocked: int
    newly_allowed: int
    newly_changed: int
    sessions: int
    agents: int
    rules: tuple[RuleCount, ...]
    labelled: int
    precision: float | None
    recall: float | None
    examples: tuple[str, ...]
    left_out: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        return (self.newly_blocked + self.newly_allowed + self.newly_changed) / max(1, self.decisions)


class Simulator:
    """Keeps decisions and judges them again, without models: those would judge today's way and cost money."""

    def __init__(self, store: DecisionStore, vault: Vault, *, clock: Clock, keep_for: timedelta) -> None:
        self._store = store
        self._vault = vault
        self._clock = clock
        self._keep_for = keep_for
        self._pipeline = GuardrailPipeline((MeasuredGuardrail(), ArgumentsGuardrail(), StreamedGuardrail()))

    async def keep(self, tenant: str, decisions: Sequence[tuple[Decision, Input]]) -> int:
        """Seals and stores, each id once; what is older than they are kept goes."""
        await self._store.forget_decisions(tenant, before=self._clock.now() - self._keep_for)
        return await self._store.keep(
            tenant, [replace(decision, sealed=self._sealed(tenant, given)) for decision, given in decisions]
        )

    async def tell(self, tenant: str, decision_id: str, *, harmful: bool) -> Decision:
        """Labels one. Raises DecisionNotFound."""
        found = await self._store.tell(tenant, decision_id, harmful=harmful)
        if found is None:
            raise DecisionNotFound(f"no decision {decision_id}", decision_id=decision_id)
        return found

    async def recent(self, tenant: str, limit: int) -> Sequence[Decision]:
        return await self._store.decisions(tenant, start=None, end=None, limit=limit)

    async def simulate(self, tenant: str, bundle: Bundle, *, start: datetime, end: datetime, limit: int) -> Simulation:
        """The bundle instead of what was in force."""
        tally = _Tally()
        for decision in await self._store.decisions(tenant, start=start, end=end, limit=limit):
            given = Input(**json.loads(self._vault.open(tenant, _PURPOSE, decision.sealed)))
            tally.add(decision, given, await self.again([bundle], decision, given))
            await asyncio.sleep(0)  # a long simulation leaves the loop to others
        left_out = tuple(rule.name for rule in bundle.rules if rule.type in WINDOWED | WHOLE)
        return replace(tally.result(), left_out=left_out)

    async def again(self, bundles: Sequence[Bundle], decision: Decision, given: Input) -> Outcome:
        """What the bundles would have made of it."""
        call = Call(given.tool, given.arguments, decision.agent, (), decision.session_id) if given.tool else None
        context = GuardrailContext(
            [bundle.for_agent(decision.agent) for bundle in bundles],
            decision.target, agent=decision.agent, facts=given.facts, call=call,
        )  # fmt: skip
        return await self._pipeline.run(given.text, context)

    def _sealed(self, tenant: str, given: Input) -> bytes:
        return self._vault.seal(tenant, _PURPOSE, json.dumps(asdict(given)))


class _Tally:
    def __init__(self) -> None:
        self.count = 0
        self.flips: Counter[str] = Counter()
        self.touched: list[Decision] = []
        self.matches: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()
        self.labelled: Counter[tuple[bool, bool]] = Counter()

    def add(self, decision: Decision, given: Input, outcome: Outcome) -> None:
        self.count += 1
        unchanged = not outcome.blocked and outcome.text == given.text
        if decision.allowed and outcome.blocked:
            self._flip("blocked", decision)
        elif decision.truncated:
            pass  # what was cut off may be why it was stopped or changed
        elif not decision.allowed and not outcome.blocked:
            self._flip("allowed", decision)
        elif decision.allowed and decision.unchanged != unchanged:
            self._flip("changed", decision)
        for found in outcome.findings:
            self.matches[found.verdict.rule.name] += 1
            self.wrong[found.verdict.rule.name] += decision.harmful is False
        if decision.harmful is not None:
            acts = outcome.blocked or any(found.verdict.action not in _NOTING for found in outcome.findings)
            self.labelled[acts, decision.harmful] += 1

    def result(self) -> Simulation:
        acted, harmful = self._sum(0), self._sum(1)
        right = self.labelled[True, True]
        return Simulation(
            decisions=self.count,
            newly_blocked=self.flips["blocked"],
            newly_allowed=self.flips["allowed"],
            newly_changed=self.flips["changed"],
            sessions=len({one.session_id for one in self.touched if one.session_id}),
            agents=len({one.agent for one in self.touched if one.agent}),
            rules=tuple(RuleCount(name, count, self.wrong[name]) for name, count in self.matches.most_common()),
            labelled=self.labelled.total(),
            precision=right / acted if acted else None,
            recall=right / harmful if harmful else None,
            examples=tuple(one.id for one in self.touched[:EXAMPLES]),
        )

    def _sum(self, place: int) -> int:
        return sum(count for key, count in self.labelled.items() if key[place])

    def _flip(self, how: str, decision: Decision) -> None:
        self.flips[how] += 1
        self.touched.append(decision)
