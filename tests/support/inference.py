"""One replica of inference with scripted peers and a scripted model, over real gRPC."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import grpc
from redis.asyncio import Redis

from agentnet.inference.v1 import generation_pb2
from agentnet.inference.v1 import inference_service_pb2 as pb
from agentnet.inference.v1 import inference_service_pb2_grpc as rpc
from agentnet.inference.v1 import queue_service_pb2_grpc as queue_rpc
from services.inference.admission import Admission, Order
from services.inference.breakers import Breakers, LocalBreakers
from services.inference.cache import AnswerCache
from services.inference.catalog import Ability
from services.inference.counting import TokenCounter
from services.inference.document_reader import DocumentReader
from services.inference.downgrades import Downgrades
from services.inference.embeddings.contract import Embedded
from services.inference.embeddings.late import MODEL as EMBEDDING_MODEL
from services.inference.embeddings.models import EmbeddingModels
from services.inference.enforcement import Enforcement, Held
from services.inference.engine import Engine
from services.inference.measures import Measures
from services.inference.peers import NOTHING_ELSE, Cost, Leased, Measure, Metered, Notice, Payer, PolicyPeer, Settlement
from services.inference.producer import Ended
from services.inference.prompts.registry import PromptRegistry
from services.inference.prompts.store_memory import MemoryPromptStore
from services.inference.providers.contract import Chunk, FinishReason, ModelCall, Provider, Usage
from services.inference.providers.synthetic import SyntheticProvider
from services.inference.queue.service import NAME as QUEUE
from services.inference.queue.service import QueueService
from services.inference.queue.store import QueueStore
from services.inference.queue.store_memory import MemoryQueueStore
from services.inference.queue.worker import Worker
from services.inference.route import Model, Router
from services.inference.service import NAME, InferenceService, add_to_server
from services.inference.store import GenerationStore
from services.inference.store_memory import MemoryGenerationStore
from services.inference.tail import GenerationTail
from services.inference.tokenizers import Tokenizers
from shared.clock import SystemClock
from shared.errors import MeshError, NotFound, PermissionDenied, Reason, ResourceExhausted, Unavailable
from shared.ids import SequentialIds
from shared.monitors.decisions import Decided, Decisions, Room, reported
from shared.monitors.enforced import Enforced, Snapshot, Watch
from shared.monitors.pipeline import Outcome
from shared.monitors.rules import Action, Bundle, Rule, RuleType, Severity, Target, Verdict
from shared.risks import Tell, untold
from shared.rpc.channel import mesh_channel
from shared.rpc.server import serving
from shared.settings import MeshSettings
from shared.tasks import stopped, supervised
from tests.support.identity import Keys

Event = generation_pb2.GenerationEvent
MAIL = Rule("mail", RuleType.REGEX, Severity.MAJOR, pattern=r"[a-z]+@[a-z]+\.[a-z]+", target=Target.OUTPUT)
BOMB = Rule("bomb", RuleType.KEYWORD, Severity.SEVERE, action=Action.BLOCK, keywords=("bomb",))
DAMN = Rule("damn", RuleType.KEYWORD, Severity.MINOR, keywords=("damn",))
DEFAULT = Snapshot(1, {"*": (Bundle("default", "1.0.0", (MAIL, BOMB, DAMN)),)})


@dataclass(slots=True)
class ScriptedCost:
    """Remembers what was asked of it; refuses as told. `limit` is the tokens there is money for."""

    refusals: list[MeshError] = field(default_factory=list)
    settle_failures: list[MeshError] = field(default_factory=list)
    limit: int = 1_000_000
    refuse_after: int = 1_000_000
    reserved: list[str] = field(default_factory=list)
    extended: list[int] = field(default_factory=list)
    leased: list[Metered] = field(default_factory=list)
    settled: list[tuple[str, Usage]] = field(default_factory=list)
    settlements: list[Settlement] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)

    async def reserve(
        self, payer: Payer, *, input_tokens: int, output_tokens: int, metered: Metered = NOTHING_ELSE
    ) -> Leased:
        await asyncio.sleep(0)
        if self.refusals:
            raise self.refusals.pop(0)
        if len(self.reserved) >= self.refuse_after:
            raise ResourceExhausted("no money", reason=Reason.ERROR_REASON_BUDGET_EXHAUSTED)
        self.reserved.append(payer.generation_id)
        self.leased.append(metered)
        return Leased(self.notices, 1_000_000, 2_000_000, audio_output_price=15_000_000, image_price=40_000)

    async def extend(self, payer: Payer, *, output_tokens: int, spent: Usage) -> None:
        if output_tokens > self.limit:
            raise ResourceExhausted("no money", reason=Reason.ERROR_REASON_BUDGET_EXHAUSTED)
        self.extended.append(output_tokens)

    async def settle(self, settlement: Settlement) -> Cost:
        if self.settle_failures:
            raise self.settle_failures.pop(0)
        usage = settlement.usage
        self.settlements.append(settlement)
        self.settled.append((settlement.payer.generation_id, usage))
        return Cost(usage.output_tokens * 2, "prices-1")


@dataclass(slots=True)
class ScriptedPolicy:
    """Publishes what it is given; `away` says it does not answer. `outcomes` are what it says of sentences."""

    snapshots: asyncio.Queue[Snapshot] = field(default_factory=asyncio.Queue)
    away: bool = False
    recorded: list[tuple[str, str, Action]] = field(default_factory=list)
    bundles: dict[str, Bundle] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    orders: list[Measure] = field(default_factory=list)
    overrides: dict[str, frozenset[str]] = field(default_factory=dict)
    pseudonyms: dict[str, tuple[str, str]] = field(default_factory=dict)
    sent: list[str] = field(default_factory=list)
    checked: list[tuple[str, Target, tuple[str, ...]]] = field(default_factory=list)

    async def watch(self, after: int) -> AsyncIterator[Snapshot]:
        while True:
            yield await self.snapshots.get()

    async def bundle(self, payer: Payer, name: str) -> Bundle:
        if name not in self.bundles:
            raise NotFound(f"no bundle {name}", reason=Reason.ERROR_REASON_BUNDLE_NOT_FOUND)
        return self.bundles[name]

    async def excused(self, payer: Payer, text: str, token: str) -> frozenset[str]:
        if self.away:
            raise Unavailable("policy is away")
        if token not in self.overrides:
            raise PermissionDenied("the override was taken back", reason=Reason.ERROR_REASON_OVERRIDE_INVALID)
        return self.overrides[token]

    async def pseudonymized(self, payer: Payer, text: str, kinds: Sequence[str]) -> str:
        if self.away:
            raise Unavailable("policy is away")
        for value, (kind, pseudonym) in self.pseudonyms.items():
            text = text.replace(value, pseudonym) if kind in kinds else text
        return text

    async def check(
        self, payer: Payer, text: str, target: Target, bundles: Sequence[Bundle], *, override: str = ""
    ) -> Outcome:
        if self.away:
            raise Unavailable("policy is away")
        self.checked.append((text, target, tuple(bundle.label for bundle in bundles)))
        self.sent.append(override)
        return self.outcomes.get(text, Outcome(text))

    async def measures(self, payer: Payer) -> Sequence[Measure]:
        if self.away:
            raise Unavailable("policy is away")
        return list(self.orders)

    async def record(self, payer: Payer, verdicts: Sequence[tuple[str, Verdict]], *, at: datetime) -> None:
        if self.away:
            raise Unavailable("policy is away")
        self.recorded += [(name, verdict.rule.name, verdict.action) for name, verdict in verdicts]


@dataclass(slots=True)
class ScriptedModel:
    """Says each step as one chunk; waits at an event; raises an error. `scripts` are for the next calls, in order."""

    steps: list[str | Chunk | asyncio.Event | Exception] = field(default_factory=list)
    scripts: list[list[str | Chunk | asyncio.Event | Exception]] = field(default_factory=list)
    usage: Usage | None = None
    calls: list[ModelCall] = field(default_factory=list)
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    name: str = "scripted"

    async def stream(self, call: ModelCall) -> AsyncGenerator[Chunk, None]:
        self.calls.append(call)
        try:
            steps = self.scripts.pop(0) if self.scripts else list(self.steps)
            for step in steps:
                await asyncio.sleep(0)
                match step:
                    case str():
                        yield Chunk(step, token_count=1)
                    case Chunk():
                        yield step
                    case asyncio.Event():
                        await step.wait()
                    case Exception():
                        raise step
            if not (steps and isinstance(steps[-1], Chunk) and steps[-1].finish_reason):
                yield Chunk(finish_reason=FinishReason.STOP, usage=self.usage)
        finally:
            self.closed.set()


class CountingEmbedder:
    """The length of each text as its vector, the text as those of its tokens."""

    async def embed(self, texts: Sequence[str]) -> Embedded:
        vectors, tokens = tuple((float(len(text)),) for text in texts), tuple(text.encode() for text in texts)
        return Embedded(vectors, sum(map(len, texts)), 0, token_vectors=tokens)


class LengthEmbedder:
    """Texts of one length mean the same: a unit vector by length."""

    async def embed(self, texts: Sequence[str]) -> Embedded:
        angles = [min(len(text), 90) * math.pi / 180 for text in texts]
        return Embedded(tuple((math.cos(angle), math.sin(angle)) for angle in angles), sum(map(len, texts)), 0)


@dataclass(slots=True)
class Replica:
    """One served replica and everything it is made of."""

    stub: Any
    engine: Engine
    model: ScriptedModel
    cost: ScriptedCost
    policy: ScriptedPolicy
    store: GenerationStore
    tail_task: asyncio.Task[None]
    others: dict[str, ScriptedModel]
    prompts: PromptRegistry
    ended: list[tuple[str, Order, Ended]]
    worker: Worker
    queue: Any
    channel: grpc.aio.Channel


@asynccontextmanager
async def replica(
    keys: Keys,
    redis: Redis,
    *,
    store: GenerationStore | None = None,
    snapshot: Snapshot | None = DEFAULT,
    limit: int = 8,
    breakers: Breakers | None = None,
    jobs: QueueStore | None = None,
    provider: Provider | None = None,
    watch: Watch | None = None,
    told: grpc.aio.Channel | None = None,
    measured: PolicyPeer | None = None,
    tell: Tell = untold,
    tokenizers: Tokenizers | None = None,
) -> AsyncIterator[Replica]:
    """A replica in the block. Those with one Redis and one store are replicas of one service. `provider` takes the
    place of the scripted model, `watch` of what the scripted policy publishes; `told` is where decisions are recorded,
    `measured` who orders measures.
    """
    model, cost, policy = ScriptedModel(), ScriptedCost(), ScriptedPolicy()
    others = {name: ScriptedModel(name=name) for name in ("backup", "continuing", "roomy")}
    enforced = Enforced(watch or policy.watch, Held.of)
    decisions = Decisions(
        enforced.reported, reported(told, keys.signer, "inference") if told else _untold,
        clock=SystemClock(), ids=SequentialIds(), room=Room(gather=timedelta(0), grace=timedelta(milliseconds=200)),
    )  # fmt: skip
    enforcement = Enforcement(enforced, policy, strict=True, decisions=decisions)
    prompts, ended = PromptRegistry(MemoryPromptStore(), SystemClock()), list[tuple[str, Order, Ended]]()
    breakers = breakers or LocalBreakers(SystemClock())
    tail = GenerationTail(redis, ttl=timedelta(hours=1), clock=SystemClock())
    admission = Admission(
        router=_router(provider or model, others), breakers=breakers, downgrades=Downgrades(redis),
        cache=AnswerCache(redis, LengthEmbedder(), clock=SystemClock(), capacity=4), tail=tail,
        retry_base=timedelta(milliseconds=1), jitter=lambda: 0.0, kept_within=timedelta(seconds=5),
    )  # fmt: skip
    engine = Engine(
        admission=admission, enforcement=enforcement, breakers=breakers, cost=cost, policy=policy,
        store=store or MemoryGenerationStore(), clock=SystemClock(),
        tail=tail, counter=TokenCounter(tokenizers or Tokenizers({})),
        measures=Measures(measured or policy, breakers, SystemClock()), limit=limit, tell=tell,
        ended=lambda *how: ended.append(how),
    )  # fmt: skip
    settings = MeshSettings.model_validate(
        {"listen": "127.0.0.1:0", "postgres_dsn": "postgres://nowhere", "identity_keys": keys.jwks, "drain_grace": 0}
    )

    service = InferenceService(
        engine,
        EmbeddingModels({EMBEDDING_MODEL: CountingEmbedder()}, default=EMBEDDING_MODEL),
        engine.counter,
        SequentialIds(),
        reader=DocumentReader(),
        prompts=prompts,
    )
    jobs = jobs or MemoryQueueStore(SystemClock())
    worker = Worker(jobs, engine, service.order, str(uuid4()), SystemClock(), places=2)

    async def register(server: grpc.aio.Server, _stack: AsyncExitStack) -> None:
        add_to_server(service, server)
        queue_rpc.add_QueueServiceServicer_to_server(QueueService(jobs, worker), server)

    if snapshot:
        policy.snapshots.put_nowait(snapshot)
    tail_task = asyncio.create_task(engine.tail.write(engine.running))
    async with (
        supervised("policy", enforced.follow),
        supervised("decisions", decisions.run),
        serving(settings, register, service_names=(NAME, QUEUE)) as address,
        mesh_channel(address, services=(NAME, QUEUE)) as channel,
    ):
        await asyncio.sleep(0.01)
        stub = rpc.InferenceServiceStub(channel)
        queue = queue_rpc.QueueServiceStub(channel)
        try:
            yield Replica(
                stub, engine, model, cost, policy, engine.store, tail_task, others, prompts, ended, worker, queue, channel
            )  # fmt: skip
        finally:
            await worker.drain()
            await engine.drain()
            await decisions.flush()
    await stopped(tail_task)


async def _untold(_tenant: str, _decided: Sequence[Decided]) -> None:
    """Nobody hears of decisions."""


def _router(model: Provider, others: Mapping[str, ScriptedModel]) -> Router:
    able = frozenset({Ability.TOOLS, Ability.IMAGE, Ability.JSON_SCHEMA, Ability.REASONING})
    models = [
        Model("scripted", "scripted", abilities=able, context_tokens=100, cheaper="backup"),
        Model("synthetic", "synthetic"),
        Model(EMBEDDING_MODEL, "e", embedding=True),
        Model("backup", "backup", abilities=able, context_tokens=50),
        Model("continuing", "continuing", abilities=able, continues=True),
        Model("roomy", "roomy", context_tokens=1000),
        Model("safe", "scripted", abilities=able, fallback=("backup", "roomy")),
    ]
    providers: dict[str, Provider] = {"scripted": model, "synthetic": SyntheticProvider(timedelta()), **others}
    return Router(models, providers, default="scripted")


def request(text: str = "Hello?", generation_id: str = "gen_1", **changes: Any) -> pb.GenerateRequest:
    found = pb.GenerateRequest(generation_id=generation_id, **changes)
    message = found.messages.add(role="ROLE_USER")
    message.content.add(text=text)
    return found


def kinds(events: Sequence[Event]) -> list[str]:
    return [event.WhichOneof("event") or "" for event in events]


def text_of(events: Sequence[Event]) -> str:
    return "".join(event.text.text for event in events if event.HasField("text"))
