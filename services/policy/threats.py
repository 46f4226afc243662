"""Threats: violations counted as signs of something larger, by the rules of the risk register."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from services.policy.risks import THREATS, Risks
from services.policy.store import Violation
from shared.telemetry import meter

_threats = meter.create_counter("threats_total", description="violations that are signs of a risk, by risk")
_ANY = "policy_false_positives"


@dataclass(frozen=True, slots=True)
class Watchtower:
    """Turns violations into risk events: each counts towards a high rate, some are signs of an attack or a leak."""

    risks: Risks

    async def seen(self, tenant: str, violations: Sequence[Violation]) -> None:
        """One event for each risk, agent and session, with as much value as there were violations."""
        counts: Counter[tuple[str, str, str]] = Counter()
        for one in violations:
            if not one.shadow:
                for risk in (_ANY, THREATS.get(one.violation_type, "")):
                    counts[risk, one.agent, one.session_id] += bool(risk)
        for (risk, agent, session_id), count in counts.items():
            if count:
                _threats.add(count, {"risk": risk})
                await self.risks.happened(tenant, risk, value=count, agent=agent, session_id=session_id)
