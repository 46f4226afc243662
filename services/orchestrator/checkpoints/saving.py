"""Making checkpoints of a graph while it runs: beside the work and never in its way."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from agentnet.orchestrator.v1 import checkpoint_pb2, event_pb2
from services.orchestrator.checkpoints import keeper
from services.orchestrator.checkpoints.keeper import Checkpoints, Mark
from services.orchestrator.record import GraphLog
from shared.errors import MeshError
from shared.log import log

Event = event_pb2.SessionEvent


@dataclass(slots=True)
class Saving:
    """The checkpoints of one graph being driven. One is written at a time; what ends meanwhile shares the next.

    A place that cannot be written to stops no graph: its log brings it back whatever happens.
    """

    checkpoints: Checkpoints
    record: GraphLog
    done: Mark
    _writing: asyncio.Task[checkpoint_pb2.Checkpoint] | None = None

    def look(self) -> None:
        """Puts the checkpoint that has been written in the log, and starts the next when one is due."""
        if self._writing is not None and self._writing.done():
            self._written(self._writing)
            self._writing = None
        if self._writing is None and keeper.due(self.record.state, self.done):
            self._start()

    async def last(self, *, always: bool) -> None:
        """Before the graph ends: waits for the one being written, and makes one more when it is due, or `always`."""
        if self._writing is not None:
            await asyncio.wait({self._writing})
        self.look()
        if self._writing is None and always and self.record.state.results:
            self._start()
        if self._writing is not None:
            await asyncio.wait({self._writing})
            self._written(self._writing)
            self._writing = None

    async def stop(self) -> None:
        """Leaves what is being written."""
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)

    def _start(self) -> None:
        state = self.record.state
        self.done = keeper.mark(state)
        self._writing = asyncio.create_task(self.checkpoints.save(self.record.lease.tenant, state))

    def _written(self, task: asyncio.Task[checkpoint_pb2.Checkpoint]) -> None:
        try:
            saved = event_pb2.CheckpointSaved(checkpoint_id=task.result().id)
        except MeshError as error:
            log.warning("checkpoint.not_saved", reason=error.reason_name)
            return
        self.record.stage([Event(checkpoint_saved=saved)])
