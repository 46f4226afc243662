"""The composition root of the inference service."""

from __future__ import annotations

from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Final

import grpc

from agentnet.inference.v1 import media_service_pb2_grpc, queue_service_pb2_grpc
from services.inference import wiring
from services.inference.admission import Admission, Order
from services.inference.breakers import BreakerLimits, RedisBreakers
from services.inference.cache import AnswerCache
from services.inference.cost_grpc import SERVICES as COST
from services.inference.cost_grpc import GrpcCost
from services.inference.counting import TokenCounter
from services.inference.document_reader import DocumentReader
from services.inference.downgrades import Downgrades
from services.inference.embeddings.main import embedded_embedder, with_others
from services.inference.embeddings.paid import paying
from services.inference.embeddings.settings import EmbeddingSettings
from services.inference.enforcement import Enforcement, Held
from services.inference.engine import Engine
from services.inference.exporting import exported
from services.inference.langfuse.main import langfuse
from services.inference.langfuse.settings import LangfuseSettings
from services.inference.measures import Measures
from services.inference.media.service import NAME as MEDIA
from services.inference.media.service import MediaService
from services.inference.media.studio import Studio
from services.inference.peers import CostPeer
from services.inference.peers_grpc import SERVICES as POLICY
from services.inference.peers_grpc import GrpcPolicy
from services.inference.producer import Ended
from services.inference.prompts.main import SERVICE as PROMPTS
from services.inference.prompts.main import register_prompts
from services.inference.providers.http import pooled
from services.inference.purchase import Purchases
from services.inference.queue.service import NAME as QUEUE
from services.inference.queue.service import QueueService
from services.inference.queue.store_postgres import PostgresQueueStore
from services.inference.queue.worker import Worker
from services.inference.remains import Remains
from services.inference.replay import ReplayMode
from services.inference.service import NAME, InferenceService, add_to_server
from services.inference.settings import InferenceSettings
from services.inference.settling import KeptCost
from services.inference.store_postgres import PostgresGenerationStore
from services.inference.tail import GenerationTail
from services.inference.tokenizers import known_tokenizers
from shared.clock import Clock, SystemClock
from shared.identity import Signer, current
from shared.ids import RandomIds
from shared.monitors.decisions import NAME as DECISIONS
from shared.monitors.decisions import reporting
from shared.monitors.enforced import Enforced, published
from shared.outbox import Outbox
from shared.postgres import open_database
from shared.redis import open_redis
from shared.risks import reporting as reporting_risks
from shared.rpc.channel import mesh_channel
from shared.rpc.server import run
from shared.tasks import supervised

_PATIENCE: Final = timedelta(seconds=30)  # longer than an attempt tries to settle by itself
_NEVER: Final = timedelta(days=3650)


def main() -> None:
    settings, embeddings = InferenceSettings.load(), EmbeddingSettings.load()

    async def register(server: grpc.aio.Server, stack: AsyncExitStack) -> None:
        clock = SystemClock()
        database = await stack.enter_async_context(
            open_database(settings.postgres_dsn.get_secret_value(), pool=settings.postgres_pool, stateless=True)
        )
        redis = await stack.enter_async_context(open_redis(settings.redis_url.get_secret_value()))
        channel = await stack.enter_async_context(
            mesh_channel(settings.mesh_address, services=(*COST, *POLICY, DECISIONS), tls=settings.tls_folder)
        )
        session = await stack.enter_async_context(pooled(settings.connect_timeout))
        if settings.identity_private_key is None:
            raise ValueError("inference needs AGENTNET_IDENTITY_PRIVATE_KEY")
        signer = Signer.from_file("inference", settings.identity_private_key, clock)
        policy = GrpcPolicy(channel, signer)
        enforced = Enforced(published(channel, signer, "inference"), Held.of)
        decisions = await stack.enter_async_context(
            reporting(enforced.reported, channel, signer, "inference", clock=clock, ids=RandomIds())
        )
        enforcement = Enforcement(enforced, policy, strict=settings.strict, decisions=decisions)
        embedder = await stack.enter_async_context(
            embedded_embedder(embeddings, redis=redis, clock=clock, tenant=lambda: current().tenant_id)
        )
        limits = BreakerLimits(failures=settings.breaker_failures, cooldown=settings.breaker_cooldown)
        breakers = RedisBreakers(redis, clock=clock, limits=limits)
        wired = await wiring.wired(settings, session)
        tail = GenerationTail(redis, ttl=settings.events_ttl, clock=clock)
        admission = Admission(
            router=wired.router,
            breakers=breakers,
            downgrades=Downgrades(redis),
            cache=AnswerCache(redis, embedder, clock=clock, capacity=settings.cache_answers),
            tail=tail,
            retry_base=settings.retry_base,
        )
        exporter = await stack.enter_async_context(langfuse(LangfuseSettings.load(), session, clock))

        def ended(tenant: str, order: Order, how: Ended) -> None:
            if exporter:
                exporter.offer(exported(tenant, order, how, at=clock.now()))

        tokenizers = known_tokenizers(settings.tokenizers)
        counter = TokenCounter(tokenizers)
        cost = await _cost(stack, settings, GrpcCost(channel, signer), Remains(tail, wired.router, counter), clock)
        measures = Measures(policy, breakers, clock)
        risks = await stack.enter_async_context(reporting_risks(channel, signer, "inference", clock))
        engine = Engine(
            ended=ended,
            admission=admission,
            enforcement=enforcement,
            breakers=breakers,
            cost=cost,
            policy=policy,
            measures=measures,
            store=PostgresGenerationStore(database),
            tail=tail,
            counter=counter,
            clock=clock,
            limit=settings.max_generations,
            tell=risks.tell,
        )
        await stack.enter_async_context(supervised("policy", enforced.follow))
        await stack.enter_async_context(supervised("generations", engine.tend))
        providers = {model.provider for model in admission.router.models()}
        await stack.enter_async_context(supervised("downgrades", admission.downgrades.watch))
        await stack.enter_async_context(supervised("breakers", lambda: breakers.watch(providers)))
        stack.push_async_callback(engine.drain)
        purchases = Purchases(cost, policy, enforcement, clock)
        paid = paying(purchases, caller=current, ids=RandomIds(), offline=settings.replay is ReplayMode.STRICT)
        models = await stack.enter_async_context(
            with_others(
                embedder, wired.folders, wired.embeddings, embeddings, session, paid=paid, tokenizers=tokenizers,
                redis=redis, clock=clock, tenant=lambda: current().tenant_id,
            )
        )  # fmt: skip
        service = InferenceService(
            engine, models, counter, RandomIds(), reader=DocumentReader(),
            prompts=register_prompts(server, database, clock),
        )  # fmt: skip
        add_to_server(service, server)
        jobs = PostgresQueueStore(database)
        worker = Worker(jobs, engine, service.order, RandomIds().new("own"), clock, settings.queue_places)
        queue_service_pb2_grpc.add_QueueServiceServicer_to_server(QueueService(jobs, worker), server)
        stack.push_async_callback(worker.drain)
        if settings.queue_places:
            await stack.enter_async_context(supervised("queue", worker.run))
        studio = Studio(
            wired.router, wired.makers, purchases, measures, breakers, settings.max_media, tell=risks.tell,
            retry_base=settings.retry_base,
        )  # fmt: skip
        media_service_pb2_grpc.add_MediaServiceServicer_to_server(MediaService(studio, RandomIds()), server)

    run("inference", settings, register, service_names=(NAME, PROMPTS, MEDIA, QUEUE))


async def _cost(
    stack: AsyncExitStack, settings: InferenceSettings, cost: GrpcCost, remains: Remains, clock: Clock
) -> CostPeer:
    """Cost, with settlements that survive where there is a folder for them."""
    if settings.outbox_folder is None:
        return cost
    folder = settings.outbox_folder
    left = stack.enter_context(Outbox(folder / "settlements", clock=clock, patience=_PATIENCE))
    begun = stack.enter_context(Outbox(folder / "attempts", clock=clock, patience=_NEVER))
    kept = KeptCost(cost, left=left, begun=begun, counted=remains.counted)
    await stack.enter_async_context(supervised("settlements", kept.run))
    return kept
