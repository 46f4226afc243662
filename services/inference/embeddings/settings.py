"""Settings of the embeddings of inference."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from pydantic import Field

from services.inference.embeddings.arithmetic import Arithmetic
from services.inference.embeddings.device import Device
from shared.settings import MeshSettings, settings_for


class EmbeddingSettings(MeshSettings):
    """AGENTNET_INFERENCE_EMBEDDING_*."""

    model_config = settings_for("inference")

    embedding_device: Device = Field(
        default=Device.AUTO, description="auto takes CUDA when there is one; cuda demands it"
    )
    embedding_arithmetic: Arithmetic = Field(
        default=Arithmetic.AUTO, description="auto computes in int8 on processors with dot products of bytes"
    )
    embedding_threads: int = Field(default=1, ge=0, description="for one batch on the CPU; 0: all cores")
    embedding_batch: int = Field(default=32, ge=1, le=1024, description="texts in one run of the model")
    embedding_wait: timedelta = Field(
        default=timedelta(milliseconds=3), ge=timedelta(), le=timedelta(milliseconds=100), description="for company"
    )
    embedding_cache: Literal["memory", "redis", "off"] = Field(
        default="memory", description="redis: shared by replicas"
    )
    embedding_cache_bytes: int = Field(default=32 * 1024 * 1024, ge=0, description="of vectors, in this process")
    embedding_cache_ttl: timedelta = Field(default=timedelta(hours=24), gt=timedelta())
