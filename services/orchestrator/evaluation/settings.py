"""Settings of the evaluation worker."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field, SecretStr

from shared.settings import MeshSettings, settings_for


class EvaluationSettings(MeshSettings):
    """AGENTNET_ORCHESTRATOR_*: the worker is the orchestrator's, with its role, its key and its schema."""

    model_config = settings_for("orchestrator")

    driver_dsn: SecretStr = Field(description="the role that sees leases of all tenants and nothing else")
    evaluation_lease_ttl: timedelta = Field(
        default=timedelta(seconds=10), description="a worker that cannot renew for this long lost its cases"
    )
    evaluation_poll: timedelta = Field(default=timedelta(milliseconds=500), description="how often the queue is asked")
    evaluation_cases: int = Field(default=4, ge=1, le=1000, description="run by this worker at once")
    evaluation_max_tries: int = Field(default=5, ge=1, description="of a case; then it has failed")
