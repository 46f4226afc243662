"""Settings of the tools service."""

from __future__ import annotations

from pydantic import Field

from shared.settings import MeshSettings, settings_for


class ToolsSettings(MeshSettings):
    """AGENTNET_TOOLS_*."""

    model_config = settings_for("tools")

    max_sandboxes: int = Field(default=4, ge=1, description="at once in this replica; more wait")
