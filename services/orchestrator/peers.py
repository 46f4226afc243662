"""What a turn asks of inference and memory."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from agentnet.inference.v1 import generation_pb2
from agentnet.orchestrator.v1 import agent_pb2
from services.orchestrator.prompts import Known, Line
from shared.identity import Principal


@dataclass(frozen=True, slots=True)
class Utterance:
    """One call of a model for one turn."""

    generation_id: str
    session_id: str
    agent: agent_pb2.Agent
    model: str
    lines: tuple[Line, ...]
    max_output_tokens: int


@dataclass(frozen=True, slots=True)
class TurnMemory:
    """What memory gives a turn. Degraded means memory could not be asked."""

    known: tuple[Known, ...] = ()
    degraded: bool = False


class InferencePeer(Protocol):
    """inference, on behalf of who started the session."""

    def generate(self, caller: Principal, utterance: Utterance) -> AsyncGenerator[generation_pb2.GenerationEvent, None]:
        """Starts, or attaches to, the generation. Raises the service's MeshError."""

    def attach(
        self, caller: Principal, generation_id: str, *, after: int
    ) -> AsyncGenerator[generation_pb2.GenerationEvent, None]:
        """Goes on reading a generation. Raises the service's MeshError."""

    async def cancel(self, caller: Principal, generation_id: str) -> None:
        """Calls a generation off; one that is gone is fine."""


class MemoryPeer(Protocol):
    """memory, on behalf of who started the session. Losing it never stops a turn."""

    async def recall(self, caller: Principal, *, session_id: str, agent: str, query: str) -> TurnMemory:
        """What the agent knows that fits the question."""

    async def append(self, caller: Principal, *, session_id: str, turn_id: str, agent: str, content: str) -> None:
        """Hands a finished turn over to be remembered."""
