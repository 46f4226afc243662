"""Outages of providers, as policy's register of risks hears of them."""

from __future__ import annotations

from services.inference.peers import Payer
from shared.errors import MeshError
from shared.risks import PROVIDER_OUTAGE, Happened, Tell


def outage(tell: Tell, payer: Payer, provider: str, failure: MeshError) -> None:
    """A provider's breaker is open, or nobody of a chain answered and it was the last. One outage is one event in ten
    seconds for each tenant that meets it.
    """
    detail = {"provider": provider, "model": payer.model, "reason": failure.reason_name}
    happened = Happened(PROVIDER_OUTAGE, agent=payer.agent, session_id=payer.session_id, detail=detail)
    tell(payer.principal.tenant_id, happened, provider)
