"""Spikes of tokens, as policy's register of risks hears of them: by session, as its rules count."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final

from services.cost.report_store import Alert, AlertKind
from services.cost.store import CostStore, Filter, Summary
from services.cost.velocity import STEP
from shared.paging import Page
from shared.risks import TOKEN_COST_SPIKE, Happened

_KINDS: Final = (AlertKind.VELOCITY, AlertKind.TOKEN_SPIKE)
_DEAREST: Final = Page(20)


async def spikes(store: CostStore, tenant: str, raised: Iterable[Alert], now: datetime) -> list[Happened]:
    """The dearest sessions of the last five minutes, each with its tokens, when an alert says that a tenant or an agent
    takes too much too fast.
    """
    alerts = [alert for alert in raised if alert.kind in _KINDS]
    if not alerts:
        return []
    detail = {"alert": alerts[0].id, "kind": alerts[0].kind.value}
    recent = Filter(start=now - STEP, end=now + STEP)
    sums = await store.summarize(tenant, recent, group_by=("session", "agent"), page=_DEAREST)
    return [_happened(one, detail) for one in sums if one.input_tokens + one.output_tokens]


def _happened(sums: Summary, detail: Mapping[str, str]) -> Happened:
    session, agent = sums.group
    return Happened(TOKEN_COST_SPIKE, sums.input_tokens + sums.output_tokens, agent, session, detail)
