"""Recalling from several clusters: each is asked in its own terms, and the best of all come back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Final

import grpc
from google.protobuf import json_format

from agentnet.memory.v1 import memory_pb2, recall_pb2
from agentnet.memory.v1 import memory_service_pb2 as pb
from agentnet.memory.v1.memory_service_pb2_grpc import MemoryServiceStub
from services.memory.policy import labels_told
from shared import fields
from shared.errors import InvalidArgument
from shared.log import log
from shared.rpc import deadline
from shared.rpc.channel import mesh_channel

SERVICES: Final = ("agentnet.memory.v1.MemoryService",)
_ALL: Final = "*"
# What is left of a caller's deadline for the answer itself.
_TO_ANSWER_SECONDS: Final = 0.2


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """What other clusters know, and which of them did not say."""

    matches: Sequence[pb.ScoredMemory] = ()
    missing: Sequence[str] = ()
    degraded: bool = False
    withheld: int = 0


class Federation:
    """The other clusters, by name. Calls carry the caller's identity, which they check by the keys they trust."""

    def __init__(self, clusters: Mapping[str, MemoryServiceStub], *, patience: timedelta) -> None:
        self._clusters = clusters
        self._patience = patience

    @classmethod
    async def of(
        cls, addresses: Mapping[str, str], stack: AsyncExitStack, *, patience: timedelta, tls: Path | None = None
    ) -> Federation:
        """Channels to all of them, for as long as the stack stands."""
        channels = {
            name: await stack.enter_async_context(mesh_channel(address, services=SERVICES, tls=tls))
            for name, address in addresses.items()
        }
        return cls({name: MemoryServiceStub(channel) for name, channel in channels.items()}, patience=patience)

    async def recall(self, request: pb.RecallRequest) -> Elsewhere:
        """What the clusters named in the request find. Raises InvalidArgument for one that nobody named."""
        asked = self._asked(request)
        if not asked:
            return Elsewhere()
        own = pb.RecallRequest()
        own.CopyFrom(request)
        # Another cluster may embed with another model: it makes the query's vector itself, and asks nobody further.
        own.ClearField("embedding")
        own.ClearField("clusters")
        answers = await asyncio.gather(*(self._answer(name, own) for name in asked))
        known = [(name, answer) for name, answer in zip(asked, answers, strict=True) if answer]
        for name, answer in known:
            for match in answer.matches:
                match.memory.cluster = name
        return Elsewhere(
            [match for _, answer in known for match in answer.matches],
            [name for name, answer in zip(asked, answers, strict=True) if answer is None],
            any(answer.degraded for _, answer in known),
            sum(answer.coverage.withheld for _, answer in known),
        )

    def _asked(self, request: pb.RecallRequest) -> Sequence[str]:
        fields.at_most(len(request.clusters), "clusters", limit=16)
        if _ALL in request.clusters:
            return sorted(self._clusters)
        for name in request.clusters:
            if name not in self._clusters:
                known = ", ".join(sorted(self._clusters)) or "none"
                raise InvalidArgument(f"there is no cluster {name}; this mesh knows {known}", field="clusters")
        return sorted(set(request.clusters))

    async def _answer(self, name: str, request: pb.RecallRequest) -> pb.RecallResponse | None:
        """None when it does not answer: what is known here is worth more than a failure."""
        try:
            found: pb.RecallResponse = await self._clusters[name].Recall(request, timeout=self._seconds())
        except grpc.aio.AioRpcError as error:
            log.warning("recall.cluster_missing", cluster=name, code=error.code().name)
            return None
        return found

    def _seconds(self) -> float:
        left = deadline.remaining()
        patience = self._patience.total_seconds()
        return patience if left is None else max(min(patience, left - _TO_ANSWER_SECONDS), 0.001)


def governed(found: Elsewhere, told: Callable[[str], str | None]) -> Elsewhere:
    """As the policy of this cluster lets it be shown too: what others let through may be forbidden here."""
    shown = [match for match in found.matches if _shown(match.memory, told)]
    for match in shown:
        near = [one for one in match.neighbours if _shown(one, told)]
        del match.neighbours[:]
        match.neighbours.extend(near)
    return replace(found, matches=shown, withheld=found.withheld + len(found.matches) - len(shown))


def _shown(memory: memory_pb2.Memory, told: Callable[[str], str | None]) -> bool:
    """Whether it may be shown, and as what."""
    text = told(memory.content)
    memory.content = text or ""
    tags, metadata = labels_told(memory.tags, json_format.MessageToDict(memory.metadata), told)
    memory.tags[:] = tags
    memory.metadata.CopyFrom(fields.struct(dict(metadata)))
    return text is not None


def merged(own: pb.RecallResponse, others: Elsewhere, *, limit: int) -> pb.RecallResponse:
    """The best of all. What two clusters both keep is there once, as the one that knows it better has it."""
    best = sorted((*own.matches, *others.matches), key=lambda match: -match.relevance)
    once = {match.memory.content: match for match in reversed(best)}
    chosen = [match for match in best if once[match.memory.content] is match][:limit]
    withheld = own.coverage.withheld + others.withheld
    return pb.RecallResponse(
        matches=chosen,
        degraded=own.degraded or others.degraded,
        coverage=recall_pb2.RecallCoverage(missing_clusters=others.missing, withheld=withheld),
    )
