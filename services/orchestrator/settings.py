"""Settings of the orchestrator service."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr

from shared.settings import MeshSettings, settings_for


class OrchestratorSettings(MeshSettings):
    """AGENTNET_ORCHESTRATOR_*."""

    model_config = settings_for("orchestrator")

    driver_dsn: SecretStr = Field(description="the role that sees leases of all tenants and nothing else")
    log_key: SecretStr = Field(description="keys the chain of hashes over each session's log")
    default_agents: Path = Field(
        default=Path(__file__).with_name("agents.yaml"), description="the agents every tenant has from the start"
    )
    skills: Path | None = Field(default=None, description="the folder below which agents name folders of skills")
    lease_ttl: timedelta = Field(
        default=timedelta(seconds=3), description="an owner that cannot renew for this long lost"
    )
    max_sessions: int = Field(default=500, ge=1, description="driven by this replica at once")
    max_takeovers: int = Field(default=5, ge=1, description="more set a session aside as poisoned")
    poll: timedelta = Field(default=timedelta(milliseconds=500), description="the safety net under notifications")
    heartbeat: timedelta = Field(default=timedelta(seconds=10), description="of an idle WatchSession")
    tail_ttl: timedelta = Field(default=timedelta(hours=1), description="how long live events stay in Redis")
    max_output_tokens: int = Field(default=96, ge=1, description="of a turn whose agent does not say")
    checkpoints: str = Field(
        default="postgres", description="postgres, file:///folder, or s3://bucket/prefix?endpoint=http://host:port"
    )
    archive: str = Field(
        default="",
        description="where logs of ended sessions go: file:///folder or s3://bucket/prefix; empty: nowhere",
    )
    archive_after: timedelta = Field(
        default=timedelta(days=90), description="of a session's end; logs are hot until then"
    )
    archive_every: timedelta = Field(default=timedelta(hours=1), description="looked for logs that are due")
    approval_wait: timedelta = Field(
        default=timedelta(hours=24), gt=timedelta(),
        description="for a person's leave for what rules of policy hold; then it is refused",
    )  # fmt: skip
    approval_every: timedelta = Field(
        default=timedelta(seconds=10), gt=timedelta(), description="looked for people who did not answer in time"
    )
    plan_max_output_tokens: int = Field(default=1024, ge=64, description="of a plan whose planner does not say")
    prompt_tokens: int = Field(default=6_000, ge=200, description="of a prompt; what is over it is summarised")
    memory_tokens: int = Field(default=600, ge=0, description="of a prompt, for what memory found")
    driver: Literal["postgres", "temporal"] = Field(
        default="postgres", description="what keeps track of runs; temporal is for those who run a cluster of it"
    )
    temporal_address: str = Field(default="127.0.0.1:7233", description="host:port of Temporal's frontend")
    temporal_namespace: str = Field(default="default", description="of Temporal, where its driver runs")
    temporal_queue: str = Field(default="agentnet", description="the task queue that all replicas share")
    temporal_tls: bool = Field(default=False, description="checked against the system's roots")
    temporal_api_key: SecretStr | None = Field(default=None, description="for a cluster that asks for one")
    temporal_history: int = Field(
        default=8_000, ge=50, description="events, before a workflow continues as a new one; Temporal's limit is 51,200"
    )
