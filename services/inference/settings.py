"""Settings of the inference service."""

from __future__ import annotations

import os
from datetime import timedelta

from pydantic import Field, SecretStr

from shared.settings import MeshSettings, settings_for


class InferenceSettings(MeshSettings):
    """AGENTNET_INFERENCE_*. A provider's key comes by environment, never from a file of ours."""

    model_config = settings_for("inference")

    embedded_url: str = Field(default="", description="the embedded model server; empty: none")
    embedded_key: SecretStr = SecretStr("")
    embedded_model: str = "smollm2-135m"
    openai_base_url: str = Field(
        default="", description="any OpenAI-compatible URL; empty: OpenAI's when there is a key"
    )
    openai_api_key: SecretStr = Field(default_factory=lambda: SecretStr(os.environ.get("OPENAI_API_KEY", "")))
    openai_models: str = Field(default="gpt-4o-mini,gpt-4o,gpt-4.1,gpt-4.1-mini,gpt-4.1-nano", description="by comma")
    default_model: str = Field(default="", description="empty: the first of openai_models with a key, else embedded")
    connect_timeout: timedelta = timedelta(seconds=5)
    first_token_timeout: timedelta = timedelta(seconds=60)
    idle_timeout: timedelta = Field(default=timedelta(seconds=30), description="between two reads of a stream")
    synthetic_gap: timedelta = Field(default=timedelta(milliseconds=20), description="of the model synthetic-paced")
    events_ttl: timedelta = Field(default=timedelta(hours=1), description="how long a generation can be attached to")
    strict: bool = Field(default=True, description="refuse calls while no policy snapshot was ever received")
    max_generations: int = Field(default=512, ge=1, description="at once in this replica; more are told to wait")
