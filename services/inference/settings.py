"""Settings of the inference service."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

from pydantic import Field, SecretStr, model_validator

from services.inference.replay import ReplayMode
from shared.settings import MeshSettings, settings_for


class InferenceSettings(MeshSettings):
    """AGENTNET_INFERENCE_*. A provider's key comes by environment, never from a file of ours."""

    model_config = settings_for("inference")

    embedded_url: str = Field(default="", description="the embedded model server; empty: none")
    embedded_key: SecretStr = Field(default=SecretStr(""), description="what the embedded model's server is told")
    embedded_model: str = Field(default="smollm2-135m", description="the embedded model's name")
    catalog: Path | None = Field(default=None, description="a YAML file of providers and models (catalog.py)")
    openai_base_url: str = Field(
        default="", description="any OpenAI-compatible URL; empty: OpenAI's when there is a key"
    )
    openai_api_key: SecretStr = Field(
        default_factory=lambda: SecretStr(os.environ.get("OPENAI_API_KEY", "")), description="else OPENAI_API_KEY"
    )
    openai_models: str = Field(default="gpt-4o-mini,gpt-4o,gpt-4.1,gpt-4.1-mini,gpt-4.1-nano", description="by comma")
    default_model: str = Field(default="", description="empty: the first of openai_models with a key, else embedded")
    connect_timeout: timedelta = Field(default=timedelta(seconds=5), description="to a provider's host")
    first_token_timeout: timedelta = Field(default=timedelta(seconds=60), description="from a call to its first token")
    idle_timeout: timedelta = Field(default=timedelta(seconds=30), description="between two reads of a stream")
    total_timeout: timedelta = Field(default=timedelta(minutes=10), description="of one provider call")
    retry_base: timedelta = Field(default=timedelta(milliseconds=200), description="the first pause before a retry")
    breaker_failures: int = Field(default=5, ge=1, description="in a row, until a provider's breaker opens")
    breaker_cooldown: timedelta = Field(default=timedelta(seconds=10), description="until one call tries it again")
    cache_answers: int = Field(default=1000, ge=1, description="kept a tenant; the least used go first")
    replay: ReplayMode = Field(default=ReplayMode.OFF, description="record, strict or permissive, with replay_folder")
    replay_folder: Path | None = Field(default=None, description="where recordings are")
    tokenizers: dict[str, Path] = Field(default={}, description="tokenizer.json or GGUF files by model, as JSON")
    synthetic_gap: timedelta = Field(default=timedelta(milliseconds=20), description="of the model synthetic-paced")
    outbox_folder: Path | None = Field(
        default=None, description="a folder of this replica's own, where settlements survive it; empty: they do not"
    )
    events_ttl: timedelta = Field(default=timedelta(hours=1), description="how long a generation can be attached to")
    strict: bool = Field(default=True, description="refuse calls while no policy snapshot was ever received")
    queue_places: int = Field(default=8, ge=0, description="submitted generations run at once here; 0: none are")
    max_media: int = Field(default=32, ge=1, description="pictures, transcripts and speeches made at once here")
    max_generations: int = Field(default=512, ge=1, description="at once in this replica; more are told to wait")

    @model_validator(mode="after")
    def _replay_has_a_folder(self) -> InferenceSettings:
        if self.replay is not ReplayMode.OFF and self.replay_folder is None:
            raise ValueError("replay needs replay_folder")
        return self
