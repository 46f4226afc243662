"""How the embedded embedding model is built into inference."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

import aiohttp
from redis.asyncio import Redis

from services.inference.catalog import CatalogInvalid
from services.inference.embeddings.batching import Limits, batching
from services.inference.embeddings.cache import CachingEmbedder, MemoryVectorCache, RedisVectorCache, VectorCache
from services.inference.embeddings.contract import Embedder, Worded
from services.inference.embeddings.device import Device
from services.inference.embeddings.late import MODEL, here
from services.inference.embeddings.models import EmbeddingModels, RemoteEmbeddings, remote_embedder
from services.inference.embeddings.settings import EmbeddingSettings
from services.inference.tokenizers import Tokenizers
from shared.clock import Clock
from shared.log import log

if TYPE_CHECKING:
    from services.inference.embeddings.folder import FolderModel

# A CPU computes a few hundred tokens at full speed, measured by tests/bench/embeddings.py; a GPU needs thousands.
_LIMITS: Final = {Device.CPU: Limits(), Device.CUDA: Limits(tokens=16_384, padding=4096)}


@asynccontextmanager
async def embedded_embedder(
    settings: EmbeddingSettings, *, redis: Redis, clock: Clock, tenant: Callable[[], str]
) -> AsyncIterator[Embedder]:
    """The embedded model, batched and cached, in the block. Raises DeviceMissing."""
    threads, arithmetic = settings.embedding_threads, settings.embedding_arithmetic
    model, device = await asyncio.to_thread(here, settings.embedding_device, threads=threads, arithmetic=arithmetic)
    limits = replace(_LIMITS[device], texts=settings.embedding_batch, wait=settings.embedding_wait)
    async with batching(model, limits) as embedder:
        cache = _cache(settings, redis, clock)
        yield embedder if cache is None else CachingEmbedder(embedder, cache, model=MODEL, tenant=tenant)


@asynccontextmanager
async def with_others(
    embedded: Embedder,
    folders: Mapping[str, Path],
    remote: Mapping[str, RemoteEmbeddings],
    settings: EmbeddingSettings,
    session: aiohttp.ClientSession,
    *,
    paid: Callable[..., Embedder],
    tokenizers: Tokenizers,
    redis: Redis,
    clock: Clock,
    tenant: Callable[[], str],
) -> AsyncIterator[EmbeddingModels]:
    """All models by name, in the block; `paid` makes one of a provider's pay for itself. Raises CatalogInvalid and
    DeviceMissing when one of the operator's own cannot be loaded.
    """
    cache = _cache(settings, redis, clock)
    made = {
        name: remote_embedder(
            one.endpoint, session, window=one.window, tokenizers=tokenizers, cache=cache, tenant=tenant,
            wait=settings.embedding_wait, paid=partial(paid, provider=one.endpoint.name, model=name),
        )
        for name, one in remote.items()
    }  # fmt: skip
    worded: dict[str, Worded] = {}
    async with AsyncExitStack() as stack:
        for name, folder in folders.items():
            model = await asyncio.to_thread(_loaded, name, folder, settings)
            embedder: Embedder = await stack.enter_async_context(batching(model, _limits(model, settings)))
            if cache:
                embedder = CachingEmbedder(embedder, cache, model=f"{name}/{model.version}", tenant=tenant)
            made[name], worded[name] = embedder, model.worded
        yield EmbeddingModels({MODEL: embedded} | made, default=MODEL, worded=worded)


def _limits(model: FolderModel, settings: EmbeddingSettings) -> Limits:
    texts = 1 if model.by_batch else settings.embedding_batch
    return replace(_LIMITS[model.device], texts=texts, wait=settings.embedding_wait)


def _loaded(name: str, folder: Path, settings: EmbeddingSettings) -> FolderModel:
    """Its libraries are loaded with the first one."""
    folders = import_module("services.inference.embeddings.folder")
    try:
        model: FolderModel = folders.FolderModel(
            name, folder, settings.embedding_device, threads=settings.embedding_threads
        )
    except folders.FolderInvalid as error:
        raise CatalogInvalid(f"embeddings.{name}.folder: {folder}: {error}") from error
    log.info("embedding.loaded", model=name, device=model.device.value)
    return model


def _cache(settings: EmbeddingSettings, redis: Redis, clock: Clock) -> VectorCache | None:
    match settings.embedding_cache:
        case "memory":
            size, ttl = settings.embedding_cache_bytes, settings.embedding_cache_ttl
            return MemoryVectorCache(clock, size=size, ttl=ttl)
        case "redis":
            return RedisVectorCache(redis, ttl=settings.embedding_cache_ttl)
        case "off":
            return None
