"""What a worker asks of the rest of the mesh."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from agentnet.orchestrator.v1 import event_pb2
from services.orchestrator.evaluation.metrics import Vector
from services.orchestrator.evaluation.suite import Scenario
from shared.identity import Principal


class SessionsPeer(Protocol):
    """Sessions, and the agents that speak in them, on behalf of who started the evaluation."""

    async def start(self, caller: Principal, scenario: Scenario, *, request_id: str) -> str:
        """The session's id; a request_id starts one and no more. Raises what the mesh refuses with."""

    def watch(self, caller: Principal, session_id: str, *, after: int) -> AsyncGenerator[event_pb2.SessionEvent, None]:
        """Its events to its end. Raises the service's MeshError."""

    async def cancel(self, caller: Principal, session_id: str) -> None:
        """Calls it off; one that has ended is fine."""

    async def rate(
        self, caller: Principal, agent: str, *, passed: bool, session_id: str, note: str, request_id: str
    ) -> None:
        """Says how good an agent's work in a session was; the same request_id counts once. Raises the service's
        MeshError.
        """


class MeaningPeer(Protocol):
    """What texts mean: inference's embeddings and memory's embedding sets."""

    async def embed(self, caller: Principal, texts: Sequence[str]) -> list[Vector]:
        """One vector a text, in order. Raises the service's MeshError."""

    async def nearness(self, caller: Principal, embedding_set: str, text: str) -> float | None:
        """How near a text comes to the nearest one of a set, 0 to 1; None when there is no such set."""
