"""What is told to Prometheus about money: the seed's `cost_usd_total`."""

from __future__ import annotations

from services.cost.prices import MILLION
from services.cost.store import Settled
from shared.telemetry import meter


class SpendMeter:
    """Counts what is settled, once an entry."""

    def __init__(self) -> None:
        # Without a unit of its own: the exporter would put it into the name.
        self._spent = meter.create_counter(
            "cost_usd_total", description="US dollars settled, by provider, model and tenant"
        )

    def settled(self, tenant: str, settled: Settled) -> None:
        """A settlement that is done again counts nothing."""
        if settled.fresh:
            call = settled.event.call
            labels = {"provider": call.provider, "model": call.model, "tenant": tenant}
            self._spent.add(settled.event.micros_usd / MILLION, labels)
