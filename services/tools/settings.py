"""Settings of the tools service."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from pydantic import Field

from shared.settings import MeshSettings, settings_for

_PERMISSIONS: Final = Path(__file__).with_name("permissions.yaml")


class ToolsSettings(MeshSettings):
    """AGENTNET_TOOLS_*."""

    model_config = settings_for("tools")

    max_sandboxes: int = Field(default=4, ge=1, description="at once in this replica; more wait")
    sandbox: Literal["bubblewrap", "gvisor"] = Field(default="bubblewrap", description="what functions run in")
    runtime_class: Literal["", "gvisor", "vm"] = Field(
        default="", description="what this replica itself runs in, by its pod's runtimeClassName; checked at the start"
    )
    cgroup: str = Field(
        default="auto",
        description="folder of cgroup v2 delegated to this replica; auto: its own; none: limits by process",
    )
    threat_limit: int = Field(
        default=5, ge=0, description="denied attempts in ten minutes after which a caller may not call; 0: only logged"
    )
    artefacts: str = Field(
        default="",
        description="where what functions attach lies: file:///folder or s3://bucket/prefix; empty: none",
    )
    permissions: Path = Field(default=_PERMISSIONS, description="YAML that narrows who may call which tool")
    strict: bool = Field(default=True, description="refuse calls while no policy snapshot was ever received")
    secrets: Path | None = Field(default=None, description="folder of secrets: <tenant>/<key_id> or shared/<key_id>")
    egress_allow: str = Field(
        default="", description="hosts, addresses and networks that tools may reach, by commas; *.example.com too"
    )
