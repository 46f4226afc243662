"""The composition root of the inference service."""

from __future__ import annotations

from contextlib import AsyncExitStack

import aiohttp
import grpc

from services.inference.embeddings.main import embedded_embedder
from services.inference.embeddings.minilm import MODEL as EMBEDDING_MODEL
from services.inference.embeddings.settings import EmbeddingSettings
from services.inference.enforcement import Enforcement
from services.inference.engine import Engine
from services.inference.peers_grpc import SERVICES as PEERS
from services.inference.peers_grpc import GrpcCost, GrpcPolicy
from services.inference.prompts.main import SERVICE as PROMPTS
from services.inference.prompts.main import register_prompts
from services.inference.providers.contract import Provider
from services.inference.providers.openai_compatible import Endpoint, OpenAICompatibleProvider
from services.inference.providers.synthetic import SyntheticProvider
from services.inference.route import Model, Router
from services.inference.service import NAME, InferenceService, add_to_server
from services.inference.settings import InferenceSettings
from services.inference.store_postgres import PostgresGenerationStore
from services.inference.tail import GenerationTail
from shared.clock import SystemClock
from shared.identity import Signer, current
from shared.ids import RandomIds
from shared.postgres import open_database
from shared.redis import open_redis
from shared.rpc.channel import mesh_channel
from shared.rpc.server import run
from shared.tasks import supervised

_OPENAI = "https://api.openai.com/v1"
_EMBEDDED_CONTEXT = 4096


def main() -> None:
    settings, embeddings = InferenceSettings.load(), EmbeddingSettings.load()

    async def register(server: grpc.aio.Server, stack: AsyncExitStack) -> None:
        clock = SystemClock()
        database = await stack.enter_async_context(
            open_database(settings.postgres_dsn.get_secret_value(), pool=settings.postgres_pool)
        )
        redis = await stack.enter_async_context(open_redis(settings.redis_url.get_secret_value()))
        channel = await stack.enter_async_context(mesh_channel(settings.mesh_address, services=PEERS))
        session = await stack.enter_async_context(_session(settings))
        if settings.identity_private_key is None:
            raise ValueError("inference needs AGENTNET_IDENTITY_PRIVATE_KEY")
        signer = Signer.from_file("inference", settings.identity_private_key, clock)
        policy = GrpcPolicy(channel, signer)
        enforcement = Enforcement(policy, strict=settings.strict)
        engine = Engine(
            router=_router(settings, session),
            enforcement=enforcement,
            cost=GrpcCost(channel, signer),
            policy=policy,
            store=PostgresGenerationStore(database),
            tail=GenerationTail(redis, ttl=settings.events_ttl),
            clock=clock,
            limit=settings.max_generations,
        )
        await stack.enter_async_context(supervised("policy", enforcement.follow))
        await stack.enter_async_context(supervised("tail", lambda: engine.tail.write(engine.live)))
        stack.push_async_callback(engine.drain)
        embedder = await stack.enter_async_context(
            embedded_embedder(embeddings, redis=redis, clock=clock, tenant=lambda: current().tenant_id)
        )
        add_to_server(InferenceService(engine, embedder, RandomIds()), server)
        register_prompts(server, database, clock)

    run("inference", settings, register, service_names=(NAME, PROMPTS))


def _session(settings: InferenceSettings) -> aiohttp.ClientSession:
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=settings.connect_timeout.total_seconds())
    return aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30))


def _router(settings: InferenceSettings, session: aiohttp.ClientSession) -> Router:
    models = [
        Model("synthetic", "synthetic"),
        Model("synthetic-paced", "synthetic-paced"),
        Model(EMBEDDING_MODEL, "embedded", embedding=True),
    ]
    providers: dict[str, Provider] = {
        "synthetic": SyntheticProvider(gap=settings.synthetic_gap * 0),
        "synthetic-paced": SyntheticProvider(gap=settings.synthetic_gap),
    }
    default = "synthetic"
    if settings.embedded_url:
        key = settings.embedded_key.get_secret_value()
        providers["embedded"] = _endpoint("embedded", settings.embedded_url, key, settings, session)
        models.append(Model(settings.embedded_model, "embedded", context_tokens=_EMBEDDED_CONTEXT))
        default = settings.embedded_model
    key = settings.openai_api_key.get_secret_value()
    if key or settings.openai_base_url:
        providers["openai"] = _endpoint("openai", settings.openai_base_url or _OPENAI, key, settings, session)
        names = [name.strip() for name in settings.openai_models.split(",") if name.strip()]
        models += [Model(name, "openai") for name in names]
        default = names[0] if names else default
    return Router(models, providers, default=settings.default_model or default)


def _endpoint(
    name: str, url: str, key: str, settings: InferenceSettings, session: aiohttp.ClientSession
) -> OpenAICompatibleProvider:
    endpoint = Endpoint(name, url, key, settings.first_token_timeout, settings.idle_timeout)
    return OpenAICompatibleProvider(endpoint, session)
