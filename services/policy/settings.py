"""Settings of the policy service."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from pydantic import Field

from services.policy.audit import HOT
from shared.settings import MeshSettings, settings_for


class PolicySettings(MeshSettings):
    """AGENTNET_POLICY_*."""

    model_config = settings_for("policy")

    default_bundle: Path = Field(
        default=Path(__file__).parent / "bundles" / "default.yaml", description="for tenants without one of their own"
    )
    classifiers: Path = Field(
        default=Path(__file__).parent / "classifiers",
        description="a folder of ONNX models that rules name, <name>.onnx",
    )
    poll: timedelta = Field(default=timedelta(seconds=30), description="a change is looked for though none was heard")
    keep_decisions: timedelta = Field(default=timedelta(days=7), description="how long inputs are kept for Simulate")
    reported_decisions: float = Field(
        default=0.1, ge=0, le=1,
        description="share of sessions whose decisions enforcement points report; all of tenants with a shadow bundle",
    )  # fmt: skip
    audit_archive_after: timedelta = Field(
        default=HOT, ge=timedelta(seconds=1), description="entries of the audit trail this old are moved to the archive"
    )
    risks_hot: timedelta = Field(
        default=timedelta(days=90), ge=timedelta(days=1),
        description="events, actions and old mitigations of risks older than this are moved to the archive",
    )  # fmt: skip
    archive_every: timedelta = Field(
        default=timedelta(hours=6), description="how often old audit entries and rows of risks are moved"
    )
    audit_key_file: Path | None = Field(
        default=None, description="32 bytes or more that seal the audit trail; without it the service's own key does"
    )
    audit_archive: str = Field(
        default="postgres",
        description="of the audit trail and of risks: postgres, file:///folder, or s3://bucket/prefix?endpoint=http://host:port",
    )
    heartbeat: timedelta = Field(default=timedelta(seconds=10), description="of an idle WatchBundles")
