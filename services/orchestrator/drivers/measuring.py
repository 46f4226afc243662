"""Judging a round that is over, with what its turns mean when a measure asks for that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from agentnet.orchestrator.v1 import event_pb2
from services.orchestrator import convergence
from services.orchestrator.convergence.contract import UNASKED, Meaning
from services.orchestrator.peers import InferencePeer
from services.orchestrator.state import SessionState
from shared.errors import MeshError
from shared.identity import Principal
from shared.log import log


class Measuring(Protocol):
    """Says how close a session is to its end."""

    async def judged(self, caller: Principal, state: SessionState, number: int) -> event_pb2.RoundFinished:
        """The round as it goes into the log."""


@dataclass(frozen=True, slots=True)
class ByInference:
    """Takes vectors from inference; while it is away, what needs them does not count."""

    inference: InferencePeer

    async def judged(self, caller: Principal, state: SessionState, number: int) -> event_pb2.RoundFinished:
        return convergence.judged(state, number, meaning=await self._meaning(caller, state, number))

    async def _meaning(self, caller: Principal, state: SessionState, number: int) -> Meaning:
        if number == 1 or not convergence.by_meaning(state.session.convergence_policy):
            return UNASKED
        talk = [turn for turn in state.spoken if not turn.formal and not turn.by_person and turn.content.strip()]
        earlier, last = ([turn.content for turn in talk if turn.round == one] for one in (number - 1, number))
        try:
            vectors = await self.inference.embed(caller, [*earlier, *last])
        except MeshError as error:
            log.warning("convergence.no_embeddings", reason=error.reason_name)
            return Meaning(degraded=True)
        return Meaning(tuple(vectors[: len(earlier)]), tuple(vectors[len(earlier) :]))
