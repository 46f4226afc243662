"""Settings of the memory service."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from shared.settings import MeshSettings, settings_for


class MemorySettings(MeshSettings):
    """AGENTNET_MEMORY_*."""

    model_config = settings_for("memory")

    embedding_model: str = Field(default="", description="empty: the mesh's default embedding model")
    tenant_memories: int = Field(
        default=2_000_000, ge=1, description="memories a tenant may keep; storing slows down from nine tenths on"
    )
    cached_embeddings: int = Field(default=2_048, ge=1, description="vectors of texts asked for last, 12 KB each")
    cached_embeddings_ttl: timedelta = Field(default=timedelta(minutes=10), description="how long one is kept")
    automatic_context: bool = Field(default=True, description="whether GetContext searches; off: the tail alone")
    automatic_episodes: bool = Field(default=True, description="whether turns become episodes when asked for")
    upkeep_interval: timedelta = Field(default=timedelta(minutes=5), description="how often memories are pruned")
