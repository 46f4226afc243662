"""The composition root of the gateway service."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import aiohttp
import grpc
from a2a.types import a2a_pb2_grpc
from mcp.server.lowlevel import Server as McpServer
from redis.asyncio import Redis

from agentnet.gateway.v1 import (
    a2a_service_pb2_grpc,
    anthropic_service_pb2_grpc,
    audit_service_pb2_grpc,
    dashboard_service_pb2_grpc,
    debug_service_pb2_grpc,
    document_service_pb2_grpc,
    event_service_pb2_grpc,
    graphql_service_pb2_grpc,
    health_service_pb2_grpc,
    identity_service_pb2_grpc,
    key_service_pb2_grpc,
    mcp_service_pb2_grpc,
    metrics_service_pb2_grpc,
    openai_service_pb2_grpc,
    run_service_pb2_grpc,
    tenant_service_pb2_grpc,
    token_service_pb2_grpc,
    user_service_pb2_grpc,
    webhook_service_pb2_grpc,
)
from agentnet.tools.v1.tool_service_pb2_grpc import ToolServiceStub
from services.gateway import contract, door, probes
from services.gateway.a2a.cards import Cards
from services.gateway.a2a.handler import A2aHandler
from services.gateway.a2a.push import Push
from services.gateway.a2a.service import A2aService, grpc_service
from services.gateway.a2a.store import A2aStore
from services.gateway.a2a.store_postgres import PostgresA2aStore
from services.gateway.a2a.tasks import Tasks
from services.gateway.a2a.work import SessionWork, Work
from services.gateway.admission import Admission
from services.gateway.audit import Audit, AuditStore
from services.gateway.audit_postgres import PostgresAuditStore
from services.gateway.buckets_leased import LeasedBuckets
from services.gateway.buckets_local import LocalBuckets
from services.gateway.buckets_redis import FallbackBuckets, RedisBuckets
from services.gateway.bus import sending
from services.gateway.bus.bus import Bus, LocalLive
from services.gateway.bus.delivery import Deliverer, Patience
from services.gateway.bus.kafka import KafkaIntake
from services.gateway.bus.nats_jetstream import NatsIntake
from services.gateway.bus.redis_streams import Intake, RedisLive
from services.gateway.bus.sending import Sender
from services.gateway.bus.service import EventService, WebhookService
from services.gateway.bus.signing import Seal
from services.gateway.bus.sinks import Sinks, load
from services.gateway.bus.store import EventStore, WebhookStore
from services.gateway.bus.store_postgres import PostgresEventStore, PostgresWebhookStore
from services.gateway.bus.webhooks import Webhooks
from services.gateway.claims import ClaimMapping
from services.gateway.credentials import Credentials
from services.gateway.dashboard.codes import Codes
from services.gateway.dashboard.cookies import Cookies
from services.gateway.dashboard.service import DashboardService
from services.gateway.directory import Directory, DirectoryStore
from services.gateway.directory_postgres import PostgresDirectoryStore
from services.gateway.documents import Documents, DocumentService
from services.gateway.facades import agents, mcp_server, media, models
from services.gateway.facades.mcp_prompts import SERVICE as PROMPTS
from services.gateway.facades.mcp_prompts import Prompts
from services.gateway.facades.mcp_tasks import SERVICE as TASKS
from services.gateway.facades.mcp_tasks import SessionTasks
from services.gateway.facades.router import Answerers
from services.gateway.facades.service_anthropic import AnthropicService
from services.gateway.facades.service_graphql import GraphqlService
from services.gateway.facades.service_mcp import McpService
from services.gateway.facades.service_openai import OpenaiService
from services.gateway.fetch import fetch_json
from services.gateway.health import MeshHealth, Probe
from services.gateway.issuers import Issuer, Issuers
from services.gateway.keys import Keys
from services.gateway.limits import DEFAULTS, Buckets, Limits, Rate
from services.gateway.metrics import MeshMetrics
from services.gateway.names import Names
from services.gateway.permissions import permissions
from services.gateway.responses.driven import Driven
from services.gateway.responses.kept import Responses
from services.gateway.responses.store import ResponseStore
from services.gateway.responses.store_postgres import PostgresResponseStore
from services.gateway.responses.worker import Worker
from services.gateway.service import HealthService, IdentityService, KeyService
from services.gateway.service_directory import AuditService, TenantService, TokenService, UserService
from services.gateway.service_operations import DebugService, RunService
from services.gateway.settings import GatewaySettings, IssuerSettings
from services.gateway.store import KeyStore
from services.gateway.store_postgres import PostgresKeyStore
from services.gateway.tokens import Tokens
from shared.clock import Clock, SystemClock
from shared.identity import Signer
from shared.ids import RandomIds
from shared.postgres import open_database
from shared.redis import open_redis
from shared.rpc.channel import mesh_channel
from shared.rpc.server import run
from shared.tasks import supervised

SERVICES = tuple(sorted(service.full_name for service in contract.services() if ".gateway." in service.full_name))
PEERS = ("agentnet.tools.v1.ToolService", *models.SERVICES, media.SERVICE, *agents.SERVICES, PROMPTS, TASKS)
READ = tuple(service.full_name for service in contract.services())
PERMISSIONS = permissions(contract.services())
NAMES = Names.of(contract.services())
# What the contract calls open is for those who have no identity.
OPEN = tuple(path for path, one in PERMISSIONS.items() if one.open)


@dataclass(frozen=True, slots=True)
class Stores:
    """What gateway keeps, and where."""

    keys: KeyStore
    directory: DirectoryStore
    audit: AuditStore
    buckets: Buckets
    events: EventStore
    webhooks: WebhookStore
    a2a: A2aStore
    responses: ResponseStore
    redis: Redis | None
    probes: dict[str, Probe]


def main() -> None:
    settings = GatewaySettings.load()

    async def register(server: grpc.aio.Server, stack: AsyncExitStack) -> None:
        await build(settings, await _stores(settings, stack), server, stack)

    run("gateway", settings, register, service_names=SERVICES, open_to_all=OPEN)


async def _stores(settings: GatewaySettings, stack: AsyncExitStack) -> Stores:
    dsn = settings.postgres_dsn.get_secret_value()
    database = await stack.enter_async_context(open_database(dsn, pool=settings.postgres_pool))
    redis = await stack.enter_async_context(open_redis(settings.redis_url.get_secret_value()))
    clock = SystemClock()
    return Stores(
        keys=PostgresKeyStore(database),
        directory=PostgresDirectoryStore(database),
        audit=PostgresAuditStore(database),
        buckets=LeasedBuckets(FallbackBuckets(RedisBuckets(redis), LocalBuckets(clock), clock), clock),
        events=PostgresEventStore(database),
        webhooks=PostgresWebhookStore(database),
        a2a=PostgresA2aStore(database),
        responses=PostgresResponseStore(database),
        redis=redis,
        probes={"postgres": probes.of_postgres(database), "redis": probes.of_redis(redis)},
    )


async def build(
    settings: GatewaySettings,
    stores: Stores,
    server: grpc.aio.Server,
    stack: AsyncExitStack,
    *,
    work: Work | None = None,
    mcp: McpServer[Any] | None = None,
) -> None:
    """The whole service on the server; what it opens closes with the stack. `work` does A2A's tasks if not sessions;
    `mcp` is offered to MCP's clients if not the mesh.
    """
    clock, ids = SystemClock(), RandomIds()
    if settings.identity_private_key is None:
        raise ValueError("gateway needs AGENTNET_IDENTITY_PRIVATE_KEY")
    private_key = settings.identity_private_key.read_bytes()
    signer = Signer("gateway", private_key, clock)
    audit = Audit(stores.audit, clock=clock, ids=ids)
    await stack.enter_async_context(supervised("audit", audit.write))
    directory = Directory(
        stores.directory, platform=settings.platform_tenant, clock=clock, cache_ttl=settings.directory_cache_ttl
    )
    pepper = settings.key_pepper.get_secret_value()
    keys = Keys(stores.keys, pepper=pepper, clock=clock, ids=ids, cache_ttl=settings.key_cache_ttl)
    tokens = Tokens(private_key, clock, ids)
    http = await stack.enter_async_context(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)))
    issuers = Issuers([_issuer(one) for one in settings.issuers], fetch_json(http), clock)
    rates = {name: Rate(rate.per_second, rate.burst) for name, rate in settings.limits.items()}
    limits = Limits(stores.buckets, rates)
    cookies = Cookies(Seal(pepper), PERMISSIONS, secure=_over_tls(settings))
    admission = Admission(
        Credentials(keys, tokens, issuers, cookies),
        PERMISSIONS,
        directory=directory,
        limits=limits,
        audit=audit,
        clock=clock,
    )
    asked = door.Door(admission, NAMES, signer, clock, ttl=settings.identity_ttl)
    secret = settings.door_secret.get_secret_value()
    await stack.enter_async_context(door.opened(settings.door, asked.answer, secret=secret, tls=settings.tls_folder))
    identity_service_pb2_grpc.add_IdentityServiceServicer_to_server(IdentityService(), server)
    key_service_pb2_grpc.add_KeyServiceServicer_to_server(KeyService(keys, directory, audit, clock), server)
    scopes = frozenset(permission.scope for permission in PERMISSIONS.values())
    _add_directory(server, directory, audit, clock, scopes)
    token_service_pb2_grpc.add_TokenServiceServicer_to_server(TokenService(tokens, audit), server)
    codes = Codes(settings.issuers, fetch_json(http), http)
    dashboard = DashboardService(cookies, codes, tokens, admission=admission, audit=audit, clock=clock)
    dashboard_service_pb2_grpc.add_DashboardServiceServicer_to_server(dashboard, server)
    channel = await stack.enter_async_context(
        mesh_channel(settings.mesh_address, services=PEERS, tls=settings.tls_folder)
    )
    documents = DocumentService(Documents.read(settings.descriptors, PERMISSIONS), ToolServiceStub(channel))
    document_service_pb2_grpc.add_DocumentServiceServicer_to_server(documents, server)
    answerers = Answerers(models.Models(channel, limits), agents.Agents(channel, limits), media.Media(channel, limits))
    offered = mcp_server.Offer(channel, answerers.agents)
    driven = Driven(stores.responses, answerers, offered, admission.allow)
    await _add_openai(Responses(stores.responses, answerers, driven, clock, ids), signer, server, stack)
    anthropic_service_pb2_grpc.add_AnthropicServiceServicer_to_server(AnthropicService(answerers), server)
    offer = mcp or mcp_server.server(offered, Prompts(channel), SessionTasks(answerers.agents, channel))
    mcp_service_pb2_grpc.add_McpServiceServicer_to_server(McpService(offer), server)
    handler = await _a2a(settings, stores.a2a, stack, answerers.agents, work)
    a2a_service_pb2_grpc.add_A2aServiceServicer_to_server(A2aService(*handler), server)
    a2a_pb2_grpc.add_A2AServiceServicer_to_server(grpc_service(handler[0]), server)  # type: ignore[no-untyped-call] # the library's
    reading = await stack.enter_async_context(
        mesh_channel(settings.mesh_address, services=READ, tls=settings.tls_folder)
    )
    graph = GraphqlService(contract.services(), reading, admission.allow)
    graphql_service_pb2_grpc.add_GraphqlServiceServicer_to_server(graph, server)
    run_service_pb2_grpc.add_RunServiceServicer_to_server(RunService(answerers), server)
    debug = DebugService({**DEFAULTS, **rates}, platform=settings.platform_tenant, methods=len(PERMISSIONS))
    debug_service_pb2_grpc.add_DebugServiceServicer_to_server(debug, server)
    await _add_bus(settings, stores, server, stack, audit)
    _add_overview(settings, stores, server, await _parts(settings, stack))


def _over_tls(settings: GatewaySettings) -> bool:
    """Whether browsers reach the edge over TLS."""
    return bool(settings.tls_folder) or settings.public_url.startswith("https:")


def _add_overview(
    settings: GatewaySettings, stores: Stores, server: grpc.aio.Server, parts: Mapping[str, grpc.aio.Channel]
) -> None:
    metrics = MeshMetrics(parts, platform=settings.platform_tenant)
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(metrics, server)
    health = MeshHealth({**stores.probes, **{name: probes.of_service(channel) for name, channel in parts.items()}})
    health_service_pb2_grpc.add_HealthServiceServicer_to_server(HealthService(health), server)


async def _add_openai(responses: Responses, signer: Signer, server: grpc.aio.Server, stack: AsyncExitStack) -> None:
    """OpenAI's protocol, and who drives on what of it goes on without its caller."""
    await stack.enter_async_context(supervised("responses", Worker(responses, signer, responses.clock).run))
    openai = OpenaiService(responses.answerers, responses)
    openai_service_pb2_grpc.add_OpenaiServiceServicer_to_server(openai, server)


async def _a2a(
    settings: GatewaySettings, store: A2aStore, stack: AsyncExitStack, runners: agents.Agents, work: Work | None
) -> tuple[A2aHandler, Cards]:
    """Tasks of the Agent2Agent protocol, and who they are for."""
    ids, private = RandomIds(), settings.webhook_private
    push = Push(await stack.enter_async_context(sending.session(private=private)), private=private)
    stack.push_async_callback(push.close)
    tasks = Tasks(store, work or SessionWork(runners), push, clock=SystemClock(), ids=ids)
    stack.push_async_callback(tasks.close)
    cards = Cards(runners, url=settings.public_url, default=settings.a2a_agent)
    return A2aHandler(tasks, cards, store, push, ids), cards


async def _add_bus(
    settings: GatewaySettings, stores: Stores, server: grpc.aio.Server, stack: AsyncExitStack, audit: Audit
) -> None:
    """Events and webhooks. With Redis, replicas share the news and services publish through it."""
    clock, ids = SystemClock(), RandomIds()
    seal = Seal(settings.key_pepper.get_secret_value())
    http = await stack.enter_async_context(sending.session(private=settings.webhook_private))
    sender = Sender(http, seal)
    sinks = Sinks(load(settings.sinks))
    await stack.enter_async_context(sinks.fed())
    live = RedisLive(stores.redis) if stores.redis else LocalLive()
    bus = Bus(stores.events, stores.webhooks, live, sinks, clock=clock, ids=ids)
    deliverer = Deliverer(stores.webhooks, stores.events, sender, clock=clock, patience=Patience())
    await stack.enter_async_context(supervised("deliver", deliverer.run))
    if stores.redis and isinstance(live, RedisLive):
        intake = _intake(settings, stores.redis, bus, ids)
        await stack.enter_async_context(supervised("news", live.listen))
        await stack.enter_async_context(supervised("intake", intake.run))
    webhooks = Webhooks(stores.webhooks, sender, seal, clock=clock, ids=ids, private=settings.webhook_private)
    event_service_pb2_grpc.add_EventServiceServicer_to_server(EventService(bus, clock), server)
    webhook_service_pb2_grpc.add_WebhookServiceServicer_to_server(WebhookService(webhooks, audit, clock), server)


def _intake(settings: GatewaySettings, redis: Redis, bus: Bus, ids: RandomIds) -> Intake | NatsIntake | KafkaIntake:
    """How what services publish comes in."""
    if settings.bus_url.startswith("kafka"):
        return KafkaIntake(settings.bus_url, bus, platform=settings.platform_tenant)
    if settings.bus_url:
        return NatsIntake(settings.bus_url, bus, platform=settings.platform_tenant)
    return Intake(redis, bus, consumer=ids.new("gateway"), platform=settings.platform_tenant)


def _add_directory(
    server: grpc.aio.Server, directory: Directory, audit: Audit, clock: Clock, scopes: frozenset[str]
) -> None:
    tenant_service_pb2_grpc.add_TenantServiceServicer_to_server(TenantService(directory, audit, clock), server)
    users = UserService(directory, audit, clock, scopes=scopes)
    user_service_pb2_grpc.add_UserServiceServicer_to_server(users, server)
    audit_service_pb2_grpc.add_AuditServiceServicer_to_server(AuditService(audit), server)


async def _parts(settings: GatewaySettings, stack: AsyncExitStack) -> dict[str, grpc.aio.Channel]:
    """How to reach each service of the mesh itself, for its health and its metrics."""
    found: dict[str, grpc.aio.Channel] = {}
    for part in filter(None, settings.parts.split(",")):
        name, _, address = part.partition("=")
        found[name] = await stack.enter_async_context(mesh_channel(address, services=(), tls=settings.tls_folder))
    return found


def _issuer(settings: IssuerSettings) -> Issuer:
    claims = ClaimMapping(
        subject=settings.subject,
        tenant=settings.tenant,
        roles=settings.roles,
        tenants=settings.tenants,
        role_names=settings.role_names,
        fixed_tenant=settings.fixed_tenant,
    )
    return Issuer(settings.issuer, settings.audience, claims, settings.jwks_uri)
