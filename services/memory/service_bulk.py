"""BulkService: convert in, one call of the domain, convert out."""

from __future__ import annotations

from typing import Any

from agentnet.memory.v1 import bulk_service_pb2 as pb
from agentnet.memory.v1 import bulk_service_pb2_grpc as rpc
from agentnet.memory.v1 import change_pb2
from services.memory import convert_bulk as convert
from services.memory.bounds import Kind
from services.memory.consolidate import Consolidation
from services.memory.conversation import Conversations
from services.memory.forgetting import Forgetting
from services.memory.receipts import Receipts
from services.memory.remember import Remembering
from services.memory.retention import Retention
from services.memory.upkeep import Upkeep
from shared.clock import Clock
from shared.identity import current


class BulkService(rpc.BulkServiceServicer):
    """Many memories at once."""

    def __init__(
        self, remembering: Remembering, upkeep: Upkeep, retention: Retention, consolidation: Consolidation,
        conversations: Conversations, *, forgetting: Forgetting, receipts: Receipts, clock: Clock,
    ) -> None:  # fmt: skip
        self._receipts = receipts
        self._forgetting = forgetting
        self._remembering = remembering
        self._conversations = conversations
        self._retention = retention
        self._upkeep = upkeep
        self._consolidation = consolidation
        self._clock = clock

    async def RememberMany(self, request: pb.RememberManyRequest, context: Any) -> pb.RememberManyResponse:
        many = convert.new_memories(request, self._clock)
        return convert.remembered(await self._remembering.remember_many(current().tenant_id, many))

    async def ForgetMany(self, request: pb.ForgetManyRequest, context: Any) -> pb.ForgetManyResponse:
        caller = current()
        chosen, by = convert.forgotten(request), caller.subject
        receipts, more = await self._forgetting.forget_many(caller.tenant_id, chosen, requested_by=by)
        said = await self._conversations.forget(caller.tenant_id, chosen, requested_by=by)
        return convert.receipts([*receipts, *said], more=more)

    async def GetMemoryUsage(self, request: pb.GetMemoryUsageRequest, context: Any) -> pb.GetMemoryUsageResponse:
        tenant = current().tenant_id
        return convert.usage(await self._upkeep.pressure(tenant), await self._retention.usage(tenant))

    async def SetRetention(self, request: pb.SetRetentionRequest, context: Any) -> pb.SetRetentionResponse:
        wanted, tenant = convert.bounds(request), current().tenant_id
        if isinstance(wanted.of, Kind):
            await self._retention.set_bounds(tenant, wanted.of, wanted.bounds)
        else:
            many, days = wanted.bounds.at_most, wanted.bounds.days
            await self._upkeep.set_retention(tenant, wanted.of, max_memories=many, max_days=days)
        return pb.SetRetentionResponse()

    async def PruneMemories(self, request: pb.PruneMemoriesRequest, context: Any) -> pb.PruneMemoriesResponse:
        tenant, dry_run = current().tenant_id, request.dry_run
        memories = await self._upkeep.prune(tenant, dry_run=dry_run)
        return convert.pruned(memories, await self._retention.prune(tenant, dry_run=dry_run))

    async def GetReceipt(self, request: change_pb2.GetReceiptRequest, context: Any) -> change_pb2.GetReceiptResponse:
        found = await self._receipts.find(current().tenant_id, convert.receipt_id(request))
        return convert.one_receipt(found)

    async def ListReceipts(
        self, request: change_pb2.ListReceiptsRequest, context: Any
    ) -> change_pb2.ListReceiptsResponse:
        asked = convert.list_receipts(request)
        return convert.receipt_page(await self._receipts.every(current().tenant_id, asked.chosen, asked.page), asked)

    async def ConsolidateMemories(
        self, request: pb.ConsolidateMemoriesRequest, context: Any
    ) -> pb.ConsolidateMemoriesResponse:
        wanted = convert.consolidation(request)
        found = await self._consolidation.consolidate(
            current().tenant_id, wanted.session_id, agent=wanted.agent, max_tokens=wanted.max_tokens
        )
        return convert.consolidated(found)

    async def ReembedMemories(self, request: pb.ReembedMemoriesRequest, context: Any) -> pb.ReembedMemoriesResponse:
        done, left = await self._remembering.reembed(current().tenant_id, limit=convert.reembedding(request))
        return pb.ReembedMemoriesResponse(reembedded=done, remaining=left)
