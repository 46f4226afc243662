"""What enforcement rules of policy ordered against an agent, a session or a tenant, obeyed while it holds."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from services.inference.breakers import Breakers, BreakerState
from services.inference.errors import PolicyBlocked
from services.inference.peers import Measure, Payer, PolicyPeer
from shared.clock import Clock
from shared.errors import MeshError, Reason, ResourceExhausted
from shared.log import log
from shared.risks import PROVIDER_OUTAGE

BLOCK: Final = "block"
THROTTLE: Final = "throttle"
DOWNGRADE: Final = "downgrade"
_LOOK_AFTER: Final = timedelta(seconds=1)
_TOO_OLD: Final = timedelta(seconds=5)
_THROTTLED_TO: Final = timedelta(seconds=5)
"""A throttled target starts one call in this time, at each replica."""
_KNOWN_AT_MOST: Final = 10_000


@dataclass(slots=True)
class _Known:
    measures: Sequence[Measure] = ()
    looked_at: timedelta | None = None
    looking: asyncio.Task[None] | None = None


@dataclass(slots=True)
class Measures:
    """Asks policy about a tenant that calls, once a second. While policy is away the last answer holds."""

    policy: PolicyPeer
    breakers: Breakers
    clock: Clock
    _known: dict[str, _Known] = field(default_factory=dict)
    _started: dict[tuple[str, str, str], timedelta] = field(default_factory=dict)

    async def admit(self, payer: Payer, provider: str) -> str:
        """Why the call, which goes to this provider, should go to a cheaper model; empty: it need not. Raises
        PolicyBlocked and ResourceExhausted.
        """
        cheaper, now = "", self.clock.now()
        for measure in await self._of(payer):
            if measure.until <= now or not measure.concerns(payer):
                continue
            why = f"the rule {measure.rule} of policy holds for the {measure.target_kind}"
            if measure.action == BLOCK:
                raise PolicyBlocked(f"{why}: it is blocked", rule=measure.rule, until=measure.until.isoformat())
            if measure.action == THROTTLE:
                self._throttle(payer, measure, why)
            elif measure.action == DOWNGRADE and await self._serves(measure, provider):
                cheaper = why
        return cheaper

    async def _serves(self, measure: Measure, provider: str) -> bool:
        """An outage is no reason to leave a provider that is well."""
        return measure.risk != PROVIDER_OUTAGE or await self.breakers.state(provider) is not BreakerState.CLOSED

    async def _of(self, payer: Payer) -> Sequence[Measure]:
        """The tenant's, about a second old. Only the first call of a tenant waits for policy, ever or after a while."""
        tenant = payer.principal.tenant_id
        if tenant not in self._known and len(self._known) >= _KNOWN_AT_MOST:
            self._known.clear()
        known = self._known.setdefault(tenant, _Known())
        age = None if known.looked_at is None else self.clock.monotonic() - known.looked_at
        if (age is None or age >= _LOOK_AFTER) and known.looking is None:
            known.looking = asyncio.create_task(self._look(payer, known), name=f"measures of {tenant}")
        if (age is None or age >= _TOO_OLD) and known.looking:
            await asyncio.shield(known.looking)
        return known.measures

    async def _look(self, payer: Payer, known: _Known) -> None:
        try:
            known.measures = await self.policy.measures(payer)
        except MeshError as error:
            log.warning("measures.not_known", tenant=payer.principal.tenant_id, error=error.message)
        finally:
            known.looked_at, known.looking = self.clock.monotonic(), None

    def _throttle(self, payer: Payer, measure: Measure, why: str) -> None:
        whose = (payer.principal.tenant_id, measure.target_kind, measure.target)
        now, last = self.clock.monotonic(), self._started.get(whose)
        if last is not None and now - last < _THROTTLED_TO:
            raise ResourceExhausted(
                f"{why}: it is throttled",
                reason=Reason.ERROR_REASON_RATE_LIMITED,
                retry_after=_THROTTLED_TO - (now - last),
                rule=measure.rule,
            )
        if len(self._started) >= _KNOWN_AT_MOST:
            self._started.clear()
        self._started[whose] = now
