"""Settings of the memory service."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field, field_validator

from shared.settings import MeshSettings, settings_for


class MemorySettings(MeshSettings):
    """AGENTNET_MEMORY_*."""

    model_config = settings_for("memory")

    embedding_model: str = Field(default="", description="empty: the mesh's default embedding model")
    token_vectors: bool = Field(
        default=True,
        description="whether those of a memory's tokens are kept, 64 bytes each, at most 6 KB, for ranking",
    )
    tenant_memories: int = Field(
        default=2_000_000, ge=1, description="memories a tenant may keep; storing slows down from nine tenths on"
    )
    cached_embeddings: int = Field(default=2_048, ge=1, description="vectors of texts asked for last, 12 to 18 KB each")
    cached_embeddings_ttl: timedelta = Field(default=timedelta(minutes=10), description="how long one is kept")
    clusters: str = Field(
        default="", description="memory services of other clusters that a recall may ask: eu=memory.eu:50051,us=…"
    )
    cluster_patience: timedelta = Field(default=timedelta(seconds=2), description="how long they are waited for")
    strict: bool = Field(default=True, description="refuse while no policy snapshot was ever received")
    automatic_context: bool = Field(default=True, description="whether GetContext searches; off: the tail alone")
    automatic_episodes: bool = Field(default=True, description="whether turns become episodes when asked for")
    reranker: str = Field(default="", description="takes a second look at what was found; empty: nobody does")
    reranked: int = Field(default=50, ge=1, le=200, description="how many of the first candidates it sees")
    reranker_patience: timedelta = Field(
        default=timedelta(milliseconds=200), description="how long it is waited for; later, the order stays as it was"
    )
    conversation_days: int = Field(
        default=0,
        ge=0,
        description="after its last turn a conversation is kept, where a tenant says nothing else; 0: for ever",
    )
    fact_days: int = Field(default=0, ge=0, description="after it was recorded a fact is kept, likewise")
    ended_fact_days: int = Field(default=0, ge=0, description="after it ended a fact is kept, likewise")
    upkeep_interval: timedelta = Field(default=timedelta(minutes=5), description="how often memories are pruned")

    @field_validator("clusters")
    @classmethod
    def _named(cls, value: str) -> str:
        for entry in filter(None, value.split(",")):
            name, _, address = entry.strip().partition("=")
            if not name or ":" not in address:
                raise ValueError(f"{entry} is not name=host:port")
        return value

    @property
    def cluster_addresses(self) -> dict[str, str]:
        """By name."""
        return dict(entry.strip().split("=", 1) for entry in self.clusters.split(",") if entry.strip())
