"""Settings of the gateway service."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from shared.settings import MeshSettings, settings_for

_DESCRIPTORS = Path(__file__).resolve().parents[2] / "gen" / "descriptors" / "agentnet.binpb"


class RateSettings(BaseModel):
    """A token bucket."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    per_second: float = Field(gt=0, description="in the long run")
    burst: int = Field(ge=1, description="at once")


class IssuerSettings(BaseModel):
    """A trusted issuer of tokens (OpenID Connect), and where its tokens say what."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    issuer: str = Field(min_length=1, description="the claim iss, and where discovery starts")
    audience: str = Field(min_length=1, description="the claim aud must name it")
    jwks_uri: str = Field(default="", description="where its keys are; empty: as its discovery document says")
    subject: str = Field(default="sub", description="claim or dotted path")
    tenant: str = Field(default="tenant", description='claim or dotted path, for example "organization" or "org_id"')
    roles: str = Field(default="roles", description='claim or dotted path, for example "realm_access.roles"')
    tenants: dict[str, str] = Field(default_factory=dict, description="its name of a tenant to ours")
    role_names: dict[str, str] = Field(default_factory=dict, description="its name of a role to ours")
    fixed_tenant: str = Field(default="", description="all its callers are this tenant's; empty: the claim says")
    client_id: str = Field(default="", description="the dashboard's client there; empty: nobody signs in by way of it")
    client_secret: SecretStr = Field(default=SecretStr(""), description="of that client; empty: PKCE alone")
    scope: str = Field(default="openid", description="what the dashboard asks it for")


class GatewaySettings(MeshSettings):
    """AGENTNET_GATEWAY_*."""

    model_config = settings_for("gateway")

    key_pepper: SecretStr = Field(description="API keys are stored as a hash keyed with this")
    door: str = Field(
        default="127.0.0.1:50061",
        pattern=r"^(unix:/.+|.+:\d{1,5})$",
        description="where Envoy asks who may enter: unix:/path, or host:port",
    )
    door_secret: SecretStr = Field(
        default=SecretStr(""), description="what Envoy shows at the door; must be given for host:port without TLS"
    )
    parts: str = Field(default="", description="name=host:port of every service, by comma, for health")
    identity_ttl: timedelta = Field(default=timedelta(minutes=5), description="of the identity header of one call")
    issuers: list[IssuerSettings] = Field(default_factory=list, description="trusted beside the edge's own, as JSON")
    limits: dict[str, RateSettings] = Field(default_factory=dict, description="over the defaults of limits.py, as JSON")
    descriptors: Path = Field(default=_DESCRIPTORS, description="the contract with its comments, for the documents")
    webhook_private: bool = Field(default=False, description="webhooks may name http and private addresses")
    sinks: list[str] = Field(default_factory=list, description="sinks of events, as JSON: package.module:factory")
    public_url: str = Field(
        default="http://127.0.0.1:8080", description="of the edge, as clients reach it; for A2A's cards"
    )
    a2a_agent: str = Field(default="", description="who answers A2A messages that name no agent; empty: the only one")
    platform_tenant: str = Field(default="default", description="its admins keep the records of all tenants")
    directory_cache_ttl: timedelta = Field(default=timedelta(seconds=5), description="until a suspension holds")
    key_cache_ttl: timedelta = Field(default=timedelta(seconds=5), description="until a revoked key is refused")
