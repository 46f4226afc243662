"""Sessions, embeddings and embedding sets over the mesh."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from datetime import timedelta
from typing import Any, Final

import grpc

from agentnet.inference.v1 import inference_service_pb2 as inference
from agentnet.inference.v1 import inference_service_pb2_grpc as inference_rpc
from agentnet.memory.v1 import embedding_set_service_pb2 as sets
from agentnet.memory.v1 import embedding_set_service_pb2_grpc as sets_rpc
from agentnet.orchestrator.v1 import agent_history_service_pb2 as histories
from agentnet.orchestrator.v1 import agent_history_service_pb2_grpc, event_pb2, session_service_pb2_grpc
from agentnet.orchestrator.v1 import session_service_pb2 as sessions
from services.orchestrator.errors import SessionEnded
from services.orchestrator.evaluation.metrics import Vector
from services.orchestrator.evaluation.suite import Scenario
from shared import identity
from shared.errors import NotFound, Reason
from shared.identity import Principal, Signer
from shared.rpc.status import from_rpc

SERVICES: Final = (
    "agentnet.orchestrator.v1.SessionService",
    "agentnet.orchestrator.v1.AgentHistoryService",
    "agentnet.inference.v1.InferenceService",
    "agentnet.memory.v1.EmbeddingSetService",
)
_TTL: Final = timedelta(minutes=5)
_SECONDS: Final = 30.0
# A case counts as much as a finished turn.
_CASE: Final = 1.0
_TEXTS: Final = 256
_LONGEST: Final = 32_768


class GrpcSessions:
    """agentnet.orchestrator.v1.SessionService and AgentHistoryService."""

    def __init__(self, channel: grpc.aio.Channel, signer: Signer) -> None:
        self._stub = session_service_pb2_grpc.SessionServiceStub(channel)
        self._histories = agent_history_service_pb2_grpc.AgentHistoryServiceStub(channel)
        self._signer = signer

    async def start(self, caller: Principal, scenario: Scenario, *, request_id: str) -> str:
        request = sessions.StartSessionRequest(
            topic=scenario.topic,
            agents=scenario.agents,
            mode=scenario.mode,
            max_rounds=scenario.max_rounds,
            convergence=True,
            request_id=request_id,
        )
        answer = await _called(self._stub.StartSession(request, metadata=self._as(caller), timeout=_SECONDS))
        return str(answer.session.id)

    async def watch(
        self, caller: Principal, session_id: str, *, after: int
    ) -> AsyncGenerator[event_pb2.SessionEvent, None]:
        request = sessions.WatchSessionRequest(session_id=session_id, after_sequence=after)
        call = self._stub.WatchSession(request, metadata=self._as(caller))
        try:
            async for answer in call:
                if answer.HasField("event"):
                    yield answer.event
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error) from None
        finally:
            call.cancel()

    async def cancel(self, caller: Principal, session_id: str) -> None:
        request = sessions.CancelSessionRequest(session_id=session_id)
        call = self._stub.CancelSession(request, metadata=self._as(caller), timeout=_SECONDS)
        try:
            await call
        except grpc.aio.AioRpcError as error:
            refused = from_rpc(error)
            if refused.reason not in {SessionEnded.reason, Reason.ERROR_REASON_SESSION_NOT_FOUND}:
                raise refused from None

    async def rate(
        self, caller: Principal, agent: str, *, passed: bool, session_id: str, note: str, request_id: str
    ) -> None:
        request = histories.RateAgentRequest(
            name=agent, score=float(passed), source="evaluation", weight=_CASE, subject=session_id, note=note,
            request_id=request_id,
        )  # fmt: skip
        await _called(self._histories.RateAgent(request, metadata=self._as(caller), timeout=_SECONDS))

    def _as(self, caller: Principal) -> tuple[tuple[str, str], ...]:
        return ((identity.HEADER, self._signer.sign(caller, _TTL)),)


class GrpcMeaning:
    """agentnet.inference.v1 and agentnet.memory.v1.EmbeddingSetService."""

    def __init__(self, channel: grpc.aio.Channel, signer: Signer) -> None:
        self._inference = inference_rpc.InferenceServiceStub(channel)
        self._sets = sets_rpc.EmbeddingSetServiceStub(channel)
        self._signer = signer

    async def embed(self, caller: Principal, texts: Sequence[str]) -> list[Vector]:
        found: list[Vector] = []
        for first in range(0, len(texts), _TEXTS):
            request = inference.EmbedRequest(texts=[text[:_LONGEST] for text in texts[first : first + _TEXTS]])
            call = self._inference.Embed(request, metadata=self._as(caller), timeout=_SECONDS)
            found += [list(embedding.values) for embedding in (await _called(call)).embeddings]
        return found

    async def nearness(self, caller: Principal, embedding_set: str, text: str) -> float | None:
        request = sets.CompareWithEmbeddingSetRequest(name=embedding_set, text=text[:_LONGEST])
        call = self._sets.CompareWithEmbeddingSet(request, metadata=self._as(caller), timeout=_SECONDS)
        try:
            return float((await _called(call)).score)
        except NotFound:
            return None

    def _as(self, caller: Principal) -> tuple[tuple[str, str], ...]:
        return ((identity.HEADER, self._signer.sign(caller, _TTL)),)


async def _called(call: Any) -> Any:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise from_rpc(error) from None
