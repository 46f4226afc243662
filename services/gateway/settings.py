"""Settings of the gateway service."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field, SecretStr

from shared.settings import MeshSettings, settings_for


class GatewaySettings(MeshSettings):
    """AGENTNET_GATEWAY_*."""

    model_config = settings_for("gateway")

    key_pepper: SecretStr = Field(description="API keys are stored as a hash keyed with this")
    parts: str = Field(default="", description="name=host:port of every service, by comma, for health")
    identity_ttl: timedelta = Field(default=timedelta(minutes=5), description="of the identity header of one call")
    key_cache_ttl: timedelta = Field(default=timedelta(seconds=5), description="until a revoked key is refused")
