"""Checkpoints as callers know them, and when they are made without being asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agentnet.orchestrator.v1 import checkpoint_pb2, task_graph_pb2
from services.orchestrator.checkpoints import form
from services.orchestrator.checkpoints.store import CheckpointFilter, CheckpointStore, Data
from services.orchestrator.errors import CheckpointNotFound
from services.orchestrator.graphs.state import GraphState
from shared.clock import Clock
from shared.ids import Ids
from shared.paging import Page


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a graph was at its last checkpoint."""

    ended: int = 0
    calls: int = 0


def mark(state: GraphState) -> Mark:
    return Mark(len(state.results), state.calls)


def due(state: GraphState, last: Mark) -> bool:
    """Whether the graph's own policy wants a checkpoint now."""
    match state.graph.checkpoint_policy.frequency:
        case task_graph_pb2.CHECKPOINT_FREQUENCY_STEP:
            return len(state.results) > last.ended
        case task_graph_pb2.CHECKPOINT_FREQUENCY_ITERATION:
            return len(state.results) > last.ended and not state.trying and not state.interrupted
        case task_graph_pb2.CHECKPOINT_FREQUENCY_TOOL_CALL:
            return state.calls > last.calls
        case _:
            return False


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """The checkpoints of all tenants, one tenant a call."""

    store: CheckpointStore
    clock: Clock
    ids: Ids

    async def save(
        self, tenant: str, state: GraphState, *, notes: Data | None = None, plain: form.Plain | None = None
    ) -> Data:
        """Keeps the graph as it stands. Raises Unavailable."""
        checkpoint_id = self.ids.new("chk")
        made = form.of_graph(state, checkpoint_id, now=self.clock.now(), notes=notes, plain=plain)
        await self.store.save(tenant, checkpoint_id, made)
        return made

    async def find(self, tenant: str, checkpoint_id: str) -> checkpoint_pb2.Checkpoint:
        """Raises CheckpointNotFound and CheckpointIncompatible."""
        stored = await self.store.load(tenant, checkpoint_id)
        if stored is None:
            raise CheckpointNotFound(f"no checkpoint {checkpoint_id}", checkpoint_id=checkpoint_id)
        return form.read(stored)

    async def every(self, tenant: str, chosen: CheckpointFilter, *, page: Page) -> Sequence[checkpoint_pb2.Checkpoint]:
        """Newest first, at most `page.size` + 1; of those that cannot be read only what they are."""
        return [form.listed(stored) for stored in await self.store.every(tenant, chosen, page=page)]

    async def delete(self, tenant: str, checkpoint_id: str) -> None:
        """Raises CheckpointNotFound."""
        if not await self.store.delete(tenant, checkpoint_id):
            raise CheckpointNotFound(f"no checkpoint {checkpoint_id}", checkpoint_id=checkpoint_id)

    async def resumption(
        self, tenant: str, checkpoint_id: str, wanted: task_graph_pb2.TaskGraph | None
    ) -> form.Resumption:
        """What a run begins with that goes on from here. Raises CheckpointNotFound and CheckpointIncompatible."""
        return form.resumption(await self.find(tenant, checkpoint_id), wanted)
