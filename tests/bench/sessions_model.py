"""The load of the benchmark of sessions, and who they talk to: a model that speaks by the clock, no tools, no memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
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


async def words(load: Load) -> AsyncGenerator[int, None]:
    """Tokens by the clock: one that is late is followed at once, as a model server's are."""
    began = time.perf_counter()
    for place in range(load.tokens):
        late = began + (place + 1) * load.gap - time.perf_counter()
        if late > 0:
            await asyncio.sleep(late)
        yield place


@dataclass(slots=True)
class Model:
    """Speaks at its pace and notes when each token left it, by session and turn's place in it."""

    load: Load
    left_at: dict[tuple[str, int], float] = field(default_factory=dict)
    watched: set[str] = field(default_factory=set)

    async def generate(self, caller: Principal, utterance: Utterance) -> AsyncGenerator[Any, None]:
        watched = utterance.session_id in self.watched
        async for place in words(self.load):
            if watched:
                self.left_at[utterance.generation_id, place + 1] = time.perf_counter()
            text = generation_pb2.TextProduced(text=_WORD, token_count=1)
            yield generation_pb2.GenerationEvent(sequence=place + 1, text=text)
        finished = generation_pb2.GenerationFinished()
        finished.usage.output_tokens = self.load.tokens
        yield generation_pb2.GenerationEvent(sequence=self.load.tokens + 1, finished=finished)

    async def attach(self, caller: Principal, generation_id: str, *, after: int) -> AsyncGenerator[Any, None]:
        async for event in self.generate(caller, None):  # type: ignore[arg-type] # nothing breaks here
            yield event

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
            async for _place in words(load):
                generation_pb2.TextProduced(text=_WORD, token_count=1)

    began = time.process_time()
    await asyncio.gather(*(session() for _ in range(load.sessions)))
    return time.process_time() - began
