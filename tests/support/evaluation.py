"""Evaluation on memory stores: sessions run in this process, meanings are the words themselves."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import timedelta

from agentnet.orchestrator.v1 import event_pb2, session_service_pb2
from services.orchestrator import convert
from services.orchestrator.errors import SessionEnded
from services.orchestrator.evaluation import metrics
from services.orchestrator.evaluation.evaluations import Evaluations
from services.orchestrator.evaluation.metrics import Vector
from services.orchestrator.evaluation.running import Cases
from services.orchestrator.evaluation.store_memory import MemoryEvaluationStore
from services.orchestrator.evaluation.suite import Scenario
from services.orchestrator.evaluation.worker import Worker
from shared.errors import MeshError
from shared.identity import Principal
from tests.support.orchestrator import POLL, World

TTL = timedelta(seconds=10)
MAX_TRIES = 3


@dataclass(slots=True)
class LocalSessions:
    """The sessions of a world. `refusals` meet the next starts, `breaks` the next watches."""

    world: World
    refusals: list[MeshError] = field(default_factory=list)
    breaks: list[MeshError] = field(default_factory=list)
    started: list[str] = field(default_factory=list)
    ratings: dict[str, tuple[str, bool, str]] = field(default_factory=dict)
    rating_refusals: list[MeshError] = field(default_factory=list)

    async def start(self, caller: Principal, scenario: Scenario, *, request_id: str) -> str:
        if self.refusals:
            raise self.refusals.pop(0)
        request = session_service_pb2.StartSessionRequest(
            topic=scenario.topic, agents=scenario.agents, mode=scenario.mode, max_rounds=scenario.max_rounds
        )
        session = await self.world.sessions.start(caller, convert.session(request), request_id=request_id)
        self.started.append(session.id)
        return session.id

    async def watch(
        self, caller: Principal, session_id: str, *, after: int
    ) -> AsyncGenerator[event_pb2.SessionEvent, None]:
        async with aclosing(self.world.sessions.watch(caller.tenant_id, session_id, after=after)) as entries:
            async for entry in entries:
                if self.breaks:
                    raise self.breaks.pop(0)
                if entry:
                    yield event_pb2.SessionEvent.FromString(entry.payload)

    async def cancel(self, caller: Principal, session_id: str) -> None:
        try:
            await self.world.sessions.signal(caller, session_id, "cancel", request_id=None)
        except SessionEnded:
            return

    async def rate(
        self, caller: Principal, agent: str, *, passed: bool, session_id: str, note: str, request_id: str
    ) -> None:
        if self.rating_refusals:
            raise self.rating_refusals.pop(0)
        self.ratings[request_id] = (agent, passed, session_id)


@dataclass(slots=True)
class WordMeaning:
    """A text means the words it has: likeness is that of the bags of words. `sets` are memory's embedding sets."""

    sets: dict[str, list[str]] = field(default_factory=dict)
    away: list[MeshError] = field(default_factory=list)

    async def embed(self, caller: Principal, texts: Sequence[str]) -> list[Vector]:
        if self.away:
            raise self.away.pop(0)
        places = {word: place for place, word in enumerate(sorted({w for text in texts for w in metrics.words(text)}))}
        return [_bag(text, places) for text in texts]

    async def nearness(self, caller: Principal, embedding_set: str, text: str) -> float | None:
        if embedding_set not in self.sets:
            return None
        vectors = await self.embed(caller, [text, *self.sets[embedding_set]])
        return max(metrics.cosine(vectors[0], other) for other in vectors[1:])


def _bag(text: str, places: dict[str, int]) -> Vector:
    vector = [0.0] * len(places)
    for word in metrics.words(text):
        vector[places[word]] += 1
    return vector


@dataclass(slots=True)
class Laboratory:
    """A world with what evaluates it."""

    world: World
    store: MemoryEvaluationStore = field(init=False)
    sessions: LocalSessions = field(init=False)
    meaning: WordMeaning = field(default_factory=WordMeaning)

    def __post_init__(self) -> None:
        self.store = MemoryEvaluationStore(self.world.clock)
        self.sessions = LocalSessions(self.world)

    @property
    def evaluations(self) -> Evaluations:
        return Evaluations(self.store, self.world.clock, self.world.ids)

    @property
    def cases(self) -> Cases:
        return Cases(self.evaluations, self.sessions, self.meaning, MAX_TRIES)

    def worker(self, owner: str = "worker", *, limit: int = 4) -> Worker:
        return Worker(self.store.queue, self.cases, owner, TTL, POLL, limit)
