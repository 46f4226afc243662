"""What agents know: memories and facts of a tenant, and how much of them is kept."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from google.protobuf import json_format, struct_pb2, timestamp_pb2

from agentnet.client.calls import unary
from agentnet.client.transport import Transport
from agentnet.memory.v1 import (
    bulk_service_pb2,
    bulk_service_pb2_grpc,
    change_pb2,
    fact_pb2,
    fact_service_pb2,
    fact_service_pb2_grpc,
    memory_pb2,
    memory_service_pb2,
    memory_service_pb2_grpc,
)

SEMANTIC = memory_pb2.MEMORY_TYPE_SEMANTIC


class Memories:
    """Stores, finds and forgets. Every method raises AgentNetError."""

    def __init__(self, transport: Transport) -> None:
        self._stub = memory_service_pb2_grpc.MemoryServiceStub(transport.channel)
        self._bulk = bulk_service_pb2_grpc.BulkServiceStub(transport.channel)
        self._facts = fact_service_pb2_grpc.FactServiceStub(transport.channel)
        self._call = transport.options

    async def remember(
        self,
        content: str,
        *,
        agent: str = "",
        tags: Sequence[str] = (),
        memory_type: memory_pb2.MemoryType.ValueType = SEMANTIC,
        importance: float = 0.5,
        session_id: str = "",
        metadata: Mapping[str, Any] | None = None,
        expire_time: datetime | None = None,
    ) -> memory_pb2.Memory:
        """Stores a memory; the same content is stored once, and one that is there stays as it is. It ends by itself at
        `expire_time`.
        """
        request = memory_service_pb2.RememberRequest(
            content=content, agent=agent, tags=tags, memory_type=memory_type, importance=importance,
            session_id=session_id, metadata=struct(metadata or {}),
            expire_time=stamp(expire_time) if expire_time else None,
        )  # fmt: skip
        return (await unary(self._stub.Remember(request, **self._call()))).memory

    async def remember_many(
        self, memories: Sequence[memory_service_pb2.RememberRequest]
    ) -> Sequence[memory_service_pb2.RememberResponse]:
        """Stores up to 1,000, all or none, and tells of each whether it is new."""
        request = bulk_service_pb2.RememberManyRequest(memories=memories)
        return (await unary(self._bulk.RememberMany(request, **self._call(timeout=60)))).memories

    async def update(
        self,
        memory_id: str,
        *,
        content: str | None = None,
        tags: Sequence[str] | None = None,
        importance: float | None = None,
        metadata: Mapping[str, Any] | None = None,
        expire_time: datetime | None = None,
        forever: bool = False,
    ) -> memory_pb2.Memory:
        """Changes what is given of a memory, and nothing else. `forever`: it no longer ends by itself."""
        named = {
            "content": content is not None, "tags": tags is not None, "importance": importance is not None,
            "metadata": metadata is not None, "expire_time": forever or expire_time is not None,
        }  # fmt: skip
        changed = memory_pb2.Memory(
            content=content or "", tags=tags or (), importance=importance, metadata=struct(metadata or {}),
            expire_time=stamp(expire_time) if expire_time and not forever else None,
        )  # fmt: skip
        request = change_pb2.UpdateMemoryRequest(memory_id=memory_id, memory=changed)
        request.update_mask.paths.extend(name for name, given in named.items() if given)
        return (await unary(self._stub.UpdateMemory(request, **self._call()))).memory

    async def every(
        self,
        *,
        agent: str = "",
        tags: Sequence[str] = (),
        memory_type: memory_pb2.MemoryType.ValueType = memory_pb2.MEMORY_TYPE_UNSPECIFIED,
    ) -> AsyncIterator[memory_pb2.Memory]:
        """All that fit, without search, those stored last first."""
        request = memory_service_pb2.ListMemoriesRequest(agent=agent, tags=tags, memory_type=memory_type)
        while True:
            page = await unary(self._stub.ListMemories(request, **self._call()))
            for found in page.memories:
                yield found
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def recall(
        self, query: str, *, limit: int = 5, agent: str = "", min_score: float = 0.0
    ) -> Sequence[memory_service_pb2.ScoredMemory]:
        """Finds memories by meaning and words, best first."""
        request = memory_service_pb2.RecallRequest(query=query, limit=limit, agent=agent, min_score=min_score)
        return (await self.search(request)).matches

    async def search(self, request: memory_service_pb2.RecallRequest) -> memory_service_pb2.RecallResponse:
        """Finds memories by all that a request may say: filters, strategy, time, explanation."""
        return await unary(self._stub.Recall(request, **self._call()))

    async def get(self, memory_id: str) -> memory_pb2.Memory:
        """One memory."""
        request = memory_service_pb2.GetMemoryRequest(memory_id=memory_id)
        return (await unary(self._stub.GetMemory(request, **self._call()))).memory

    async def forget(self, memory_id: str) -> change_pb2.ForgetReceipt:
        """Deletes a memory for good. The receipt proves it without saying what it was."""
        request = memory_service_pb2.ForgetRequest(memory_id=memory_id)
        return (await unary(self._stub.Forget(request, **self._call()))).receipt

    async def forget_many(
        self, *, session_id: str = "", agent: str = "", tags: Sequence[str] = ()
    ) -> AsyncIterator[change_pb2.ForgetReceipt]:
        """Deletes for good what fits all that is named, in steps of 1,000, and gives the receipts. Of a session that is
        named alone what was said goes too.
        """
        request = bulk_service_pb2.ForgetManyRequest(session_id=session_id, agent=agent, tags=tags)
        more = True
        while more:
            answer = await unary(self._bulk.ForgetMany(request, **self._call()))
            for receipt in answer.receipts:
                yield receipt
            more = answer.more

    async def receipts(
        self, *, subject_id: str = "", requested_by: str = ""
    ) -> AsyncIterator[change_pb2.ForgetReceipt]:
        """The proofs of what was deleted, the last deleted first: of one thing, or by whom, where that is named."""
        request = change_pb2.ListReceiptsRequest(subject_id=subject_id, requested_by=requested_by)
        while True:
            page = await unary(self._bulk.ListReceipts(request, **self._call()))
            for receipt in page.receipts:
                yield receipt
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def receipt(self, receipt_id: str) -> change_pb2.ForgetReceipt:
        """The proof of one deletion."""
        request = change_pb2.GetReceiptRequest(receipt_id=receipt_id)
        return (await unary(self._bulk.GetReceipt(request, **self._call()))).receipt

    async def facts(
        self, subject: str = "", *, relation: str = "", history: bool = False, as_of: datetime | None = None
    ) -> AsyncIterator[fact_pb2.Fact]:
        """What is so now, those recorded last first; with `history` what has ended too; `as_of`: as known then."""
        request = fact_service_pb2.ListFactsRequest(subject=subject, relation=relation, history=history)
        if as_of:
            request.as_of.FromDatetime(as_of)
        while True:
            page = await unary(self._facts.ListFacts(request, **self._call()))
            for fact in page.facts:
                yield fact
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def record(
        self, subject: str, relation: str, value: str, *, several: bool = False
    ) -> fact_service_pb2.RecordFactsResponse:
        """Records a fact, and gives those it ended. Unless `several` may hold at once, it ends the one before."""
        fact = fact_pb2.Fact(subject=subject, relation=relation, object=value)
        request = fact_service_pb2.RecordFactsRequest(facts=[fact], several=several)
        return await unary(self._facts.RecordFacts(request, **self._call()))

    async def forget_facts(self, subject: str) -> Sequence[change_pb2.ForgetReceipt]:
        """Deletes all facts of a subject for good, history included, and gives the receipts."""
        request = fact_service_pb2.ForgetFactsRequest(subject=subject)
        return (await unary(self._facts.ForgetFacts(request, **self._call()))).receipts

    async def usage(self) -> bulk_service_pb2.GetMemoryUsageResponse:
        """What is kept, by type and kind, the bounds of each, and how near the tenant's limit it is."""
        return await unary(self._bulk.GetMemoryUsage(bulk_service_pb2.GetMemoryUsageRequest(), **self._call()))

    async def retain(self, request: bulk_service_pb2.SetRetentionRequest) -> None:
        """Bounds a type of memory, conversations or facts."""
        await unary(self._bulk.SetRetention(request, **self._call()))

    async def reembed(self, *, limit: int = 0, dry_run: bool = False) -> bulk_service_pb2.ReembedMemoriesResponse:
        """Gives `limit` (0: 200, at most 1,000) memories vectors of the embedding model of now, or only tells how many
        lack them. Call it until nothing remains.
        """
        request = bulk_service_pb2.ReembedMemoriesRequest(limit=limit, dry_run=dry_run)
        return await unary(self._bulk.ReembedMemories(request, **self._call(timeout=120)))

    async def prune(self, *, dry_run: bool = False) -> bulk_service_pb2.PruneMemoriesResponse:
        """Deletes now what is beyond its bounds, or only tells how much that is."""
        request = bulk_service_pb2.PruneMemoriesRequest(dry_run=dry_run)
        return await unary(self._bulk.PruneMemories(request, **self._call(timeout=60)))


def struct(values: Mapping[str, Any]) -> struct_pb2.Struct:
    """Plain JSON data as the contract has it."""
    return json_format.ParseDict(dict(values), struct_pb2.Struct())


def stamp(moment: datetime) -> timestamp_pb2.Timestamp:
    """An instant as the contract has it."""
    made = timestamp_pb2.Timestamp()
    made.FromDatetime(moment)
    return made
