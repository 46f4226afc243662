"""Settings of the export to Langfuse."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

from pydantic import Field, model_validator

from shared.settings import MeshSettings, settings_for


class LangfuseSettings(MeshSettings):
    """AGENTNET_INFERENCE_LANGFUSE_*. Nothing is exported while there is no URL."""

    model_config = settings_for("inference")

    langfuse_url: str = Field(
        default="", pattern=r"^(https?://.+)?$", description="of the Langfuse server; empty: no export"
    )
    langfuse_public_key: str = Field(default="", description="names the project")
    langfuse_secret_key: str = Field(
        default="env:LANGFUSE_SECRET_KEY",
        pattern=r"^(env|file):.+$",
        description="where the secret is, never the secret",
    )
    langfuse_content: bool = Field(default=True, description="export prompts and answers, as policy let them pass")
    langfuse_grace: timedelta = Field(default=timedelta(seconds=3), description="for what waits when the service stops")

    @model_validator(mode="after")
    def _whole(self) -> LangfuseSettings:
        if self.langfuse_url and not self.langfuse_public_key:
            raise ValueError("langfuse_url needs langfuse_public_key")
        if self.langfuse_url:
            self.secret_key()
        return self

    def secret_key(self) -> str:
        """The secret as it is now. Raises ValueError when the reference leads nowhere."""
        kind, _, place = self.langfuse_secret_key.partition(":")
        try:
            found = os.environ.get(place, "") if kind == "env" else Path(place).read_text().strip()
        except OSError:
            found = ""
        if not found:
            raise ValueError(f"langfuse_secret_key leads to nothing: {self.langfuse_secret_key}")
        return found
