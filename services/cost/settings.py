"""Settings of the cost service."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from pydantic import Field

from shared.settings import MeshSettings, settings_for


class CostSettings(MeshSettings):
    """AGENTNET_COST_*."""

    model_config = settings_for("cost")

    prices: Path = Field(default=Path(__file__).with_name("prices.json"), description="the price book")
    lease_ttl: timedelta = Field(
        default=timedelta(minutes=2), description="after this a lease not extended is given back"
    )
    wait_for_disk: bool = Field(
        default=False,
        description="true: every commit waits for the disk; false: it is remembered until it is there, and done again "
        "when Postgres was killed before",
    )
    watch_every: timedelta = Field(default=timedelta(seconds=15), description="how often who spends is looked at")
    velocity_factor: float = Field(
        default=5.0,
        gt=1,
        description="five minutes this many times as dear as usual are an alert and ask for a downgrade",
    )
    velocity_floor_micros_usd: int = Field(
        default=1_000_000, ge=0, description="five minutes cheaper than this are never an alert; micro-USD"
    )
    token_spike_floor: int = Field(
        default=200_000, ge=0, description="five minutes of fewer tokens are never a spike; tokens"
    )
    downgrade_for: timedelta = Field(
        default=timedelta(minutes=10), gt=timedelta(), description="how long such an alert asks for cheaper models"
    )
    anomaly_floor_micros_usd: int = Field(
        default=100_000, ge=0, description="an anomaly of less is shown and raises no alert; micro-USD"
    )
