"""Risks: the register, events as they come, and rules that act when there is too much of them within a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Protocol

from services.policy.audit import AuditLog
from services.policy.errors import RiskNotFound
from shared.clock import Clock
from shared.errors import InvalidArgument
from shared.ids import Ids
from shared.log import log
from shared.monitors.rules import RuleType

MITIGATIONS: Final = 100
DAY: Final = timedelta(hours=24)
BLOCK, THROTTLE, ALERT, DOWNGRADE = "block", "throttle", "alert", "downgrade"
ACTIONS: Final = (BLOCK, THROTTLE, ALERT, DOWNGRADE)
CALLBACK: Final = "callback:"
_CALLBACK_TIME: Final = timedelta(seconds=5)


class TargetKind(StrEnum):
    AGENT = "agent"
    SESSION = "session"
    TENANT = "tenant"


@dataclass(frozen=True, slots=True)
class Risk:
    """An entry of the register."""

    name: str
    impact: str
    mitigation: str


REGISTER: Final = (
    Risk("provider_outage", "Degraded service", "Fallback and circuit breaker"),
    Risk("policy_false_positives", "Frustration", "Severity tiers and override tokens"),
    Risk("token_cost_spike", "Budget overrun", "Spend alerts and downgrade"),
    Risk("memory_bloat", "Latency", "Summaries and pruning"),
    Risk("tool_injection", "Data exfiltration", "Schema validation and sandbox"),
    Risk("convergence_stall", "Long sessions", "Hard caps and stagnation detection"),
    Risk("prompt_leakage", "Compliance breach", "Secret scanning and redaction"),
)
NAMES: Final = frozenset(risk.name for risk in REGISTER)
# What a violation of a type of rule is a sign of, beside being one.
THREATS: Final = {RuleType.INJECTION.value: "tool_injection", RuleType.SECRET.value: "prompt_leakage"}


@dataclass(frozen=True, slots=True)
class EnforcementRule:
    """When the values of a risk's events for one target reach the threshold within the window, the action holds."""

    name: str
    risk: str
    threshold: float
    window: timedelta
    action: str
    target: TargetKind
    hold: timedelta
    enabled: bool = True
    built_in: bool = False


def _default(name: str, risk: str, threshold: float, action: str, target: TargetKind) -> EnforcementRule:
    window = timedelta(minutes=5)
    return EnforcementRule(name, risk, threshold, window, action, target, window, built_in=True)


DEFAULTS: Final = (
    _default("token_spike_downgrades", "token_cost_spike", 100_000, DOWNGRADE, TargetKind.SESSION),
    _default("provider_outage_alerts", "provider_outage", 3, ALERT, TargetKind.TENANT),
    _default("provider_outage_falls_back", "provider_outage", 3, DOWNGRADE, TargetKind.TENANT),
    _default("memory_bloat_throttles", "memory_bloat", 1, THROTTLE, TargetKind.AGENT),
    _default("many_violations_alert", "policy_false_positives", 20, ALERT, TargetKind.TENANT),
    _default("injection_wave_alerts", "tool_injection", 5, ALERT, TargetKind.TENANT),
    _default("leaking_session_blocks", "prompt_leakage", 10, BLOCK, TargetKind.SESSION),
    _default("stalled_session_alerts", "convergence_stall", 1, ALERT, TargetKind.SESSION),
)


@dataclass(frozen=True, slots=True)
class RiskEvent:
    """Something that happened."""

    id: str
    risk: str
    value: float
    agent: str
    session_id: str
    created_at: datetime
    detail: Mapping[str, object] = field(default_factory=dict)

    def target(self, kind: TargetKind, tenant: str) -> str:
        """Who is counted; empty when the event has none of the kind."""
        return {TargetKind.AGENT: self.agent, TargetKind.SESSION: self.session_id, TargetKind.TENANT: tenant}[kind]


@dataclass(frozen=True, slots=True)
class Enforced:
    """What a rule did."""

    id: str
    rule: str
    risk: str
    action: str
    target_kind: TargetKind
    target: str
    value: float
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Mitigation:
    id: str
    risk: str
    text: str
    owner: str
    created_at: datetime


class RiskStore(Protocol):
    """Where risks are kept."""

    async def add_event(self, tenant: str, event: RiskEvent) -> None:
        """Stores one."""

    async def total(self, tenant: str, risk: str, kind: TargetKind, target: str, *, since: datetime) -> float:
        """The sum of the values of a target's events."""

    async def counts(self, tenant: str, *, since: datetime) -> Mapping[str, int]:
        """How many events each risk had."""

    async def add_mitigation(self, tenant: str, mitigation: Mitigation) -> None:
        """Stores one."""

    async def mitigations(self, tenant: str) -> Sequence[Mitigation]:
        """The newest hundred of each risk, newest first."""

    async def set_rule(self, tenant: str, rule: EnforcementRule) -> None:
        """Stores one in the place of that name."""

    async def rules(self, tenant: str) -> Sequence[EnforcementRule]:
        """The tenant's own, by name."""

    async def enforce(self, tenant: str, action: Enforced) -> bool:
        """Stores an action. False when one of the same rule still holds for the target: one at a time acts."""

    async def actions(self, tenant: str, *, active_at: datetime | None, target: str) -> Sequence[Enforced]:
        """Newest first."""


Callback = Callable[[str, Enforced], Awaitable[None]]


class Risks:
    """Takes events in, acts on them at once, remembers what it did. `callbacks` are actions of one's own, by name."""

    def __init__(
        self, store: RiskStore, audit: AuditLog, *, clock: Clock, ids: Ids, callbacks: Mapping[str, Callback]
    ) -> None:
        self._store = store
        self._audit = audit
        self._clock = clock
        self._ids = ids
        self._callbacks = callbacks

    async def register(self, tenant: str) -> tuple[Mapping[str, int], Sequence[Mitigation]]:
        """Events of the last day by risk, and the newest hundred mitigations of each."""
        counts = await self._store.counts(tenant, since=self._clock.now() - DAY)
        return counts, await self._store.mitigations(tenant)

    async def happened(
        self, tenant: str, risk: str, *, value: float = 1, agent: str = "", session_id: str = "",
        detail: Mapping[str, object] | None = None,
    ) -> tuple[RiskEvent, list[Enforced]]:  # fmt: skip
        """Stores an event; what rules made of it. Raises RiskNotFound."""
        _known(risk)
        event = RiskEvent(self._ids.new("rev"), risk, value, agent, session_id, self._clock.now(), detail or {})
        await self._store.add_event(tenant, event)
        done = [
            action
            for rule in await self.rules(tenant)
            if rule.enabled and rule.risk == risk
            if (action := await self._act(tenant, rule, event))
        ]
        return event, done

    async def mitigate(self, tenant: str, by: str, risk: str, text: str) -> Mitigation:
        """Writes down what was done. Raises RiskNotFound."""
        _known(risk)
        made = Mitigation(self._ids.new("mit"), risk, text, by, self._clock.now())
        await self._store.add_mitigation(tenant, made)
        await self._audit.record(tenant, by, "risk.mitigate", risk, text=text)
        return made

    async def set_rule(self, tenant: str, by: str, rule: EnforcementRule) -> EnforcementRule:
        """Raises RiskNotFound, and InvalidArgument for a callback nobody has given."""
        _known(rule.risk)
        if rule.action.startswith(CALLBACK) and rule.action.removeprefix(CALLBACK) not in self._callbacks:
            known = ", ".join(sorted(self._callbacks)) or "none"
            raise InvalidArgument(f"no such callback; known: {known}", field="rule.action")
        await self._store.set_rule(tenant, rule)
        await self._audit.record(tenant, by, "enforcement.set_rule", rule.name, action=rule.action, risk=rule.risk)
        return rule

    async def rules(self, tenant: str) -> list[EnforcementRule]:
        """The tenant's own, and the defaults it has not replaced, by name."""
        every = {rule.name: rule for rule in (*DEFAULTS, *await self._store.rules(tenant))}
        return [every[name] for name in sorted(every)]

    async def actions(self, tenant: str, *, active: bool, target: str) -> Sequence[Enforced]:
        """What was done, newest first; only what still holds when `active`."""
        return await self._store.actions(tenant, active_at=self._clock.now() if active else None, target=target)

    async def _act(self, tenant: str, rule: EnforcementRule, event: RiskEvent) -> Enforced | None:
        target = event.target(rule.target, tenant)
        if not target:
            return None
        since = event.created_at - rule.window
        value = await self._store.total(tenant, rule.risk, rule.target, target, since=since)
        if value < rule.threshold:
            return None
        action = Enforced(
            self._ids.new("enf"), rule.name, rule.risk, rule.action, rule.target, target, value, event.created_at,
            event.created_at + rule.hold,
        )  # fmt: skip
        if not await self._store.enforce(tenant, action):
            return None
        await self._audit.record(
            tenant, "policy", f"enforcement.{rule.action}", target, rule=rule.name, risk=rule.risk, value=value
        )
        log.warning("risk.enforced", rule=rule.name, action=rule.action, target=target, tenant=tenant)
        if rule.action != ALERT:
            until = f"{action.expires_at:%Y-%m-%d %H:%M:%S} UTC"
            text = f"rule {rule.name}: {rule.action} for the {rule.target.value} {target} until {until}"
            await self._store.add_mitigation(
                tenant, Mitigation(self._ids.new("mit"), rule.risk, text, "policy", event.created_at)
            )
        if rule.action.startswith(CALLBACK):
            await self._call_back(tenant, action)
        return action

    async def _call_back(self, tenant: str, action: Enforced) -> None:
        """A callback that fails or takes too long stops neither the event nor other rules, and is in the trail."""
        try:
            async with asyncio.timeout(_CALLBACK_TIME.total_seconds()):
                await self._callbacks[action.action.removeprefix(CALLBACK)](tenant, action)
        except Exception as error:  # noqa: BLE001 - somebody else's code
            what = type(error).__name__
            log.error("callback.fault", callback=action.action, rule=action.rule, tenant=tenant, error=what)
            await self._audit.record(
                tenant, "policy", "enforcement.callback_failed", action.target, rule=action.rule, error=what
            )


def _known(risk: str) -> None:
    if risk not in NAMES:
        raise RiskNotFound(f"no risk {risk}; known: {', '.join(sorted(NAMES))}", risk=risk)
