"""Settings of the memory service."""

from __future__ import annotations

from pydantic import Field

from shared.settings import MeshSettings, settings_for


class MemorySettings(MeshSettings):
    """AGENTNET_MEMORY_*."""

    model_config = settings_for("memory")

    embedding_model: str = Field(default="", description="empty: the mesh's default embedding model")
