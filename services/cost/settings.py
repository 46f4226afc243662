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
