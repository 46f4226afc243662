"""The load of the benchmark of sessions, and who they talk to: a model that speaks by the clock, no tools, no memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

from agentnet.inference.v1 import generation_pb2, message_pb2
from services.orchestrator.peers import ToolAnswer, TurnMemory, Utterance
from services.orchestrator.speech import Call
from shared.errors import NotFound, Reason
from shared.identity import Principal

AGENTS: Final = 4
ROUNDS: Final = 4
_WORD: Final = " word"


@dataclass(frozen=True, slots=True)
class Load:
    """So many sessions at once, so many tokens a turn, so many seconds between two. `readers` sessions are watched."""

    sessions: int
    tokens: int
    gap: float
    readers: int = 0

    @property
    def turns(self) -> int:
        return self.sessions * AGENTS * ROUNDS

    @property
    def model_seconds(self) -> float:
        """What one session waits for the model at least."""
        return AGENTS * ROUNDS * self.tokens * self.gap


async def words(load: Load, began: float, after: int = 0) -> AsyncGenerator[int, None]:
    """Tokens by the clock: one that is late is followed at once, as a model server's are."""
    for place in range(after, load.tokens):
        late = began + (place + 1) * load.gap - time.perf_counter()
        if late > 0:
            await asyncio.sleep(late)
        yield place


@cache
def _token(place: int) -> generation_pb2.GenerationEvent:
    """One token of any generation."""
    text = generation_pb2.TextProduced(text=_WORD, token_count=1)
    return generation_pb2.GenerationEvent(sequence=place + 2, text=text)


@dataclass(slots=True)
class Model:
    """Speaks at its pace and notes when each token left it, by session and turn's place in it. It keeps text back from
    the start on for whom nobody waits behind, as inference does. Each token is taken at its time all the same, and made once for all.
    """

    load: Load
    began: dict[str, tuple[str, float]] = field(default_factory=dict)
    left_at: dict[tuple[str, int], float] = field(default_factory=dict)
    watched: set[str] = field(default_factory=set)

    async def generate(self, caller: Principal, utterance: Utterance) -> AsyncGenerator[Any, None]:
        self.began[utterance.generation_id] = utterance.session_id, time.perf_counter()
        async for event in self._said(utterance.generation_id, 0, utterance.gather):
            yield event

    async def attach(self, caller: Principal, generation_id: str, *, after: int) -> AsyncGenerator[Any, None]:
        async for event in self._said(generation_id, after, 0.0):
            yield event

    async def _said(self, generation_id: str, after: int, gather: float) -> AsyncGenerator[Any, None]:
        session_id, began = self.began[generation_id]
        watched = session_id in self.watched
        kept: list[generation_pb2.GenerationEvent] = []
        if not after:
            yield generation_pb2.GenerationEvent(sequence=1, started=generation_pb2.GenerationStarted())
        due = began + gather
        async for place in words(self.load, began, max(after - 1, 0)):
            now = time.perf_counter()
            if watched and not gather:
                self.left_at[generation_id, place + 2] = now
            kept.append(_token(place))
            if now < due:
                continue
            for event in kept:
                yield event
            kept, due = [], now + gather
        for event in kept:
            yield event
        del self.began[generation_id]
        finished = generation_pb2.GenerationFinished()
        finished.usage.output_tokens = self.load.tokens
        yield generation_pb2.GenerationEvent(sequence=self.load.tokens + 2, finished=finished)

    async def cancel(self, caller: Principal, generation_id: str) -> None:
        return None

    async def embed(self, caller: Principal, texts: Sequence[str]) -> list[Sequence[float]]:
        return [(1.0,) for _ in texts]

    async def context_tokens(self, caller: Principal, model: str) -> int:
        return 0


class Toolless:
    """Has no tools."""

    async def describe(self, caller: Principal, names: Sequence[str]) -> tuple[message_pb2.ToolDefinition, ...]:
        return ()

    async def invoke(self, caller: Principal, call: Call, **_: Any) -> ToolAnswer:
        raise NotFound(f"there is no tool {call.tool}", reason=Reason.ERROR_REASON_TOOL_NOT_FOUND)

    async def stream(self, caller: Principal, call: Call, **_: Any) -> AsyncGenerator[Any, None]:
        yield await self.invoke(caller, call)


class Unheld:
    """A policy that holds nothing."""

    async def shown(self, caller: Principal, arguments: str, **_: Any) -> str:
        return arguments

    async def decide(self, person: Principal, asked: object, **_: Any) -> str:
        return ""

    async def token(self, caller: Principal, override_id: str) -> str:
        return ""


class Forgetful:
    """A memory that knows nothing."""

    async def recall(self, caller: Principal, **_: Any) -> TurnMemory:
        return TurnMemory()

    async def append(self, caller: Principal, **_: Any) -> None:
        return None


async def model_alone(load: Load) -> float:
    """CPU seconds of the model itself: what neither side can be blamed for."""

    async def session() -> None:
        for _ in range(AGENTS * ROUNDS):
            async for _place in words(load, time.perf_counter()):
                pass

    began = time.process_time()
    await asyncio.gather(*(session() for _ in range(load.sessions)))
    return time.process_time() - began
