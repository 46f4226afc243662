"""cost over the mesh: what generations ask of it at the same moment goes in one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import grpc

from agentnet.common.v1 import usage_pb2
from agentnet.cost.v1 import cost_pb2
from agentnet.cost.v1 import cost_service_pb2 as pb
from agentnet.cost.v1 import cost_service_pb2_grpc as rpc
from agentnet.cost.v1 import till_service_pb2 as till_pb
from agentnet.cost.v1 import till_service_pb2_grpc as till_rpc
from services.inference.peers import NOTHING_ELSE, Cost, Ending, Leased, Metered, Notice, Payer, Settlement, sounds
from services.inference.peers_grpc import MESH, OnBehalf, called
from services.inference.providers.contract import Usage
from shared.batches import Batches
from shared.errors import MeshError, from_status
from shared.identity import Principal, Signer

SERVICES: Final = ("agentnet.cost.v1.CostService", "agentnet.cost.v1.TillService")
_MOST: Final = 128
_AT_ONCE: Final = 1
_OUTCOMES: Final = {
    Ending.COMPLETED: cost_pb2.OUTCOME_COMPLETED,
    Ending.CANCELLED: cost_pb2.OUTCOME_CANCELLED,
    Ending.FAILED_OVER: cost_pb2.OUTCOME_FAILED_OVER,
    Ending.CUT: cost_pb2.OUTCOME_CUT,
    Ending.STOPPED: cost_pb2.OUTCOME_STOPPED,
}


@dataclass(frozen=True, slots=True)
class _Asked:
    """One transaction of a payer's: `kind` names it in the contract."""

    payer: Principal
    generation_id: str
    kind: str
    request: Any


class _Refused(Exception):
    """The call for many failed as a whole, in a way that trying it again would not mend."""


class GrpcCost(OnBehalf):
    """agentnet.cost.v1."""

    def __init__(self, channel: grpc.aio.Channel, signer: Signer) -> None:
        super().__init__(signer)
        stub = rpc.CostServiceStub(channel)
        self._alone: dict[str, Any] = {"reserve": stub.Reserve, "extend": stub.ExtendLease, "settle": stub.Settle}
        self._till = till_rpc.TillServiceStub(channel)
        self._asked: Batches[_Asked, Any] = Batches(
            self._carry, place=_whose, at_once=_AT_ONCE, most=_MOST, faults=(_Refused,)
        )

    async def reserve(
        self, payer: Payer, *, input_tokens: int, output_tokens: int, metered: Metered = NOTHING_ELSE
    ) -> Leased:
        request = pb.ReserveRequest(
            generation_id=payer.generation_id,
            provider=payer.provider,
            model=payer.model,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            session_id=payer.session_id,
            agent=payer.agent,
            team=payer.team,
            sub_agent=payer.sub_agent,
            metered=_metered(metered),
            tier=payer.tier,
        )
        answer: pb.ReserveResponse = await self._ask(payer, "reserve", request)
        return _leased(answer)

    async def extend(self, payer: Payer, *, output_tokens: int, spent: Usage) -> None:
        request = pb.ExtendLeaseRequest(generation_id=payer.generation_id, output_tokens=output_tokens)
        await self._ask(payer, "extend", request)

    async def settle(self, settlement: Settlement) -> Cost:
        payer, usage = settlement.payer, settlement.usage
        metered, heard = settlement.metered, sounds(usage)
        if heard:
            metered = replace(metered, audio_input=metered.audio_input + heard)
        request = pb.SettleRequest(
            generation_id=payer.generation_id,
            provider=payer.provider,
            model=payer.model,
            session_id=payer.session_id,
            agent=payer.agent,
            team=payer.team,
            sub_agent=payer.sub_agent,
            turn_id=payer.turn_id,
            attempt=payer.attempt,
            outcome=_OUTCOMES[settlement.outcome],
            metered=_metered(metered),
            tier=payer.tier,
            usage=usage_pb2.Usage(
                input_tokens=usage.input_tokens - heard,
                output_tokens=usage.output_tokens,
                cached_input_tokens=usage.cached_input_tokens,
                reasoning_tokens=usage.reasoning_tokens,
                estimated=usage.estimated,
            ),
        )
        if settlement.ended_at:
            request.end_time.FromDatetime(settlement.ended_at)
        answer: pb.SettleResponse = await self._ask(payer, "settle", request)
        return Cost(answer.cost_event.cost.micros_usd, answer.cost_event.cost.price_version)

    async def _ask(self, payer: Payer, kind: str, request: Any) -> Any:
        """The answer of its kind. Raises the service's MeshError."""
        answer = await self._asked.ask(_Asked(payer.principal, payer.generation_id, kind, request))
        if isinstance(answer, MeshError):
            raise answer
        return answer

    async def _carry(self, asked: Sequence[_Asked]) -> Sequence[Any]:
        """An answer or an error for each. One alone goes by itself: as well as what failed in company."""
        if len(asked) > 1:
            return await self._together(asked)
        (one,) = asked
        return [await called(self._alone[one.kind](one.request, metadata=self.metadata(one.payer)))]

    async def _together(self, asked: Sequence[_Asked]) -> Sequence[Any]:
        request = till_pb.TransactRequest(
            transactions=[
                till_pb.Transaction(identity=self.header(one.payer), **{one.kind: one.request}) for one in asked
            ]
        )
        try:
            answer = await called(self._till.Transact(request, metadata=self.metadata(MESH)))
        except MeshError as error:
            if error.retryable:
                raise
            raise _Refused from error
        return [_answered(outcome) for outcome in answer.outcomes]


def _whose(asked: _Asked) -> tuple[str, str]:
    """What is asked for one generation keeps its order."""
    return asked.payer.tenant_id, asked.generation_id


def _answered(outcome: till_pb.TransactionOutcome) -> Any:
    kind = outcome.WhichOneof("outcome")
    return from_status(outcome.refused) if kind == "refused" else getattr(outcome, kind or "refused")


def _metered(metered: Metered) -> cost_pb2.Metered | None:
    if metered == NOTHING_ELSE:
        return None
    return cost_pb2.Metered(
        images=metered.images,
        audio_input_tokens=metered.audio_input,
        audio_output_tokens=metered.audio_output,
        embedding_tokens=metered.embedding_tokens,
    )


def _leased(answer: pb.ReserveResponse) -> Leased:
    prices = answer.metered_prices
    return Leased(
        [_notice(notice) for notice in answer.notices],
        answer.input_micros_usd_per_million,
        answer.output_micros_usd_per_million,
        prices.audio_input_micros_usd_per_million,
        prices.audio_output_micros_usd_per_million,
        prices.embedding_micros_usd_per_million,
        prices.image_micros_usd,
    )


def _notice(notice: cost_pb2.Notice) -> Notice:
    return Notice(notice.explanation, cheaper=notice.action == cost_pb2.SOFT_ACTION_DOWNGRADE)
