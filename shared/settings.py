"""The frozen settings of a service: read once from environment, .env and overlay, with errors a person can use."""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

SERVICES = ("gateway", "orchestrator", "inference", "tools", "policy", "memory", "cost")
_OVERLAYS = Path(__file__).resolve().parent.parent / "deploy" / "settings"


def settings_for(service: str) -> SettingsConfigDict:
    """Where a service's settings come from: AGENTNET_<SERVICE>_<FIELD>, else AGENTNET_<FIELD>."""
    return SettingsConfigDict(env_prefix=f"AGENTNET_{service.upper()}_")


class BadSetting(ValueError):
    """What a setting leads to cannot be used: the service ends with status 2 and a sentence for each line of this."""

    setting = ""
    """The variable."""


class MeshSettings(BaseSettings):
    """What every service needs. A field reads AGENTNET_<SERVICE>_<FIELD> first and AGENTNET_<FIELD> second.

    Order, first wins: the environment, `.env`, the overlay `deploy/settings/<environment>.env`, the default here.
    Times are seconds or ISO 8601 durations.
    """

    model_config = SettingsConfigDict(env_prefix="AGENTNET_", frozen=True, extra="ignore", env_ignore_empty=True)

    environment: Literal["dev", "staging", "prod"] = Field(
        default="dev", description="which overlay of deploy/settings is read"
    )
    listen: str = Field(pattern=r"^.+:\d{1,5}$", description="host:port this service binds; loopback unless told")
    mesh_address: str = Field(default="127.0.0.1:9090", description="Envoy's internal listener")
    postgres_dsn: SecretStr = Field(description="this service's own role and schema")
    postgres_pool: int = Field(default=8, ge=1, le=200, description="connections at most")
    redis_url: SecretStr = Field(
        default=SecretStr("redis://127.0.0.1:6379/0"), description="of Valkey or Redis, its password in it"
    )
    identity_keys: Path = Field(description="JWKS with the public keys identity headers are signed by")
    identity_private_key: Path | None = Field(default=None, description="PEM; only services that sign have one")
    tls_folder: Path | None = Field(
        default=None, description="tls.crt, tls.key and ca.crt for mutual TLS with every peer; none: in the clear"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = Field(
        default="INFO", description="events below it are dropped"
    )
    log_bus: bool = Field(default=False, description="publish warnings and errors to the Redis stream log:events too")
    bus_url: str = Field(
        default="",
        pattern=r"^$|^(nats|tls|kafka|kafka\+ssl)://.",
        description="of events: nats://host:port of JetStream, kafka:// or kafka+ssl://host:port; empty: Redis Streams",
    )
    middleware: list[str] = Field(
        default_factory=list, description="around every call, in this order, as JSON: package.module:factory"
    )
    drain_grace: timedelta = Field(default=timedelta(seconds=5), description="from SIGTERM to cutting calls")
    otlp_endpoint: str | None = Field(
        default=None, description="host:port of an OTLP collector, or its https:// URL; none: no export"
    )

    @classmethod
    def load(cls) -> Self:
        """Reads and checks; on a bad setting says which, in one sentence each, and exits with status 2."""
        try:
            return cls.model_validate({})
        except ValidationError as error:
            for problem in error.errors():
                name = _variable(cls, str(problem["loc"][0]) if problem["loc"] else "")
                sys.stderr.write(f"bad setting {name}: {problem['msg']}\n")
            sys.exit(2)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        del dotenv_settings, file_secret_settings, env_settings
        return (init_settings, _LayeredSource(settings_cls))


class _LayeredSource(PydanticBaseSettingsSource):
    """Environment over .env over overlay, the service's own prefix over the mesh's."""

    def get_field_value(self, field: object, field_name: str) -> tuple[object, str, bool]:
        del field
        own = str(self.config.get("env_prefix", ""))
        for name in (f"{own}{field_name}".upper(), f"AGENTNET_{field_name}".upper()):
            if value := self._values.get(name):
                return value, field_name, False
        return None, field_name, False

    def __call__(self) -> dict[str, object]:
        self._values = _layers()
        found = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: self._decode(name, value) for name, value in found.items() if isinstance(value, str)}

    def _decode(self, name: str, value: str) -> object:
        field = self.settings_cls.model_fields[name]
        if field.annotation is timedelta and value.replace(".", "", 1).isdigit():
            return timedelta(seconds=float(value))
        return self.decode_complex_value(name, field, value) if self.field_is_complex(field) else value


def _layers() -> dict[str, str]:
    environment = {key.upper(): value for key, value in os.environ.items()}
    local = _read(Path(".env"))
    chosen = environment.get("AGENTNET_ENVIRONMENT") or local.get("AGENTNET_ENVIRONMENT") or "dev"
    return _read(_OVERLAYS / f"{Path(chosen).name}.env") | local | environment


def _read(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    lines = (
        line.partition("=")
        for line in path.read_text().splitlines()
        if "=" in line and not line.lstrip().startswith("#")
    )
    return {key.strip().upper(): value.strip().strip("'\"") for key, _, value in lines}


def _variable(cls: type[MeshSettings], field: str) -> str:
    return f"{cls.model_config.get('env_prefix', 'AGENTNET_')}{field}".upper()
