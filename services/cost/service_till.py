"""TillService: what many payers ask at once, each as CostService does it alone."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from agentnet.cost.v1 import till_service_pb2 as pb
from agentnet.cost.v1 import till_service_pb2_grpc as rpc
from services.cost.service import CostService
from shared import fields, identity
from shared.errors import FieldRequired, MeshError

_MOST: Final = 256


class TillService(rpc.TillServiceServicer):
    """Many at a time, so that the ledger has them in one statement."""

    def __init__(self, cost: CostService, verifier: identity.Verifier) -> None:
        self._verifier = verifier
        self._alone: dict[str, Any] = {"reserve": cost.Reserve, "extend": cost.ExtendLease, "settle": cost.Settle}

    async def Transact(self, request: pb.TransactRequest, context: Any) -> pb.TransactResponse:
        fields.at_most(len(request.transactions), "transactions", limit=_MOST)
        work = (self._outcome(transaction, context) for transaction in request.transactions)
        return pb.TransactResponse(outcomes=await asyncio.gather(*work))

    async def _outcome(self, transaction: pb.Transaction, context: Any) -> pb.TransactionOutcome:
        """Runs in a task of its own, and so under an identity of its own."""
        asked = transaction.WhichOneof("asked")
        try:
            identity.enter(self._verifier.verify(transaction.identity), transaction.identity)
            if asked is None:
                raise FieldRequired("asked")
            answer: Any = await self._alone[asked](getattr(transaction, asked), context)
        except MeshError as error:
            return pb.TransactionOutcome(refused=error.status())
        return pb.TransactionOutcome(**{asked: answer})
