"""What an attempt whose replica died had said: its live tail tells, so that what was delivered is settled."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from agentnet.inference.v1 import inference_service_pb2 as pb
from services.inference.counting import TokenCounter
from services.inference.peers import Settlement
from services.inference.providers.contract import ModelCall, Sampling
from services.inference.route import Router
from services.inference.tail import GenerationTail
from services.inference.transcript import Written
from shared.errors import MeshError
from shared.log import log

_UNKNOWN: Final = ModelCall("", (), Sampling(), 0)


@dataclass(frozen=True, slots=True)
class Remains:
    """Of the generations of replicas that are no more."""

    tail: GenerationTail
    router: Router
    counter: TokenCounter

    async def counted(self, settlement: Settlement) -> Settlement:
        """The settlement with at least the tokens that were shown; as it was noted where nothing is left of them."""
        payer, noted = settlement.payer, settlement.usage
        if not payer.turn_id:
            return settlement
        try:
            shown, pieces = await self._shown(payer.principal.tenant_id, payer.turn_id)
            asked = replace(noted, output_tokens=0, estimated=True)
            written = Written(shown, pieces, asked)
            usage = await self.counter.spent(self.router.resolve(payer.model), _UNKNOWN, written)
        except MeshError as error:
            log.warning("attempt.not_counted", generation_id=payer.generation_id, error=error.message)
            return settlement
        return replace(settlement, usage=replace(usage, output_tokens=max(usage.output_tokens, noted.output_tokens)))

    async def _shown(self, tenant: str, generation_id: str) -> tuple[str, int]:
        """What its last attempt said, and in how many pieces. Raises Unavailable."""
        said, pieces = list[str](), 0
        for data in await self.tail.left(tenant, generation_id):
            event = pb.GenerateResponse.FromString(data).event
            if event.HasField("failover"):
                said, pieces = [], 0
            called = event.tool_call.tool_call
            said += (event.reasoning.text, event.text.text, called.name, called.arguments)
            pieces += event.reasoning.token_count + event.text.token_count
        return "".join(said), pieces
