"""Making checkpoints of a graph while it runs: beside the work and never in its way."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from agentnet.orchestrator.v1 import event_pb2
from services.orchestrator.checkpoints import form, keeper
from services.orchestrator.checkpoints.keeper import Checkpoints, Mark
from services.orchestrator.checkpoints.store import Data
from services.orchestrator.record import GraphLog
from shared.errors import MeshError
from shared.log import log

# How many times as long as a checkpoint took none is written.
_REST: Final = 100
_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)

Event = event_pb2.SessionEvent


@dataclass(slots=True)
class Saving:
    """The checkpoints of one graph being driven. One is written at a time, and after it none for a hundred times as
    long, so that saving costs one part in a hundred at most; what ends meanwhile shares the next.

    A place that cannot be written to stops no graph: its log brings it back whatever happens.
    """

    checkpoints: Checkpoints
    record: GraphLog
    done: Mark
    _plain: form.Plain = field(default_factory=form.Plain)
    _began: datetime = _LONG_AGO
    _not_before: datetime = _LONG_AGO
    _writing: asyncio.Task[Data] | None = None

    def look(self) -> None:
        """Puts the checkpoint that has been written in the log, and starts the next when one is due."""
        if self._writing is not None and self._writing.done():
            self._written(self._writing)
            self._writing = None
        if self._writing is None and self._may() and keeper.due(self.record.state, self.done):
            self._start()

    async def last(self, *, always: bool) -> None:
        """Before the graph ends: waits for the one being written, and makes one more when it is due, or `always`."""
        if self._writing is not None:
            await asyncio.wait({self._writing})
        self._not_before = self._began
        self.look()
        if self._writing is None and always:
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

    def _may(self) -> bool:
        return self.record.clock.now() >= self._not_before

    def _start(self) -> None:
        state = self.record.state
        self.done = keeper.mark(state)
        self._began = self.record.clock.now()
        saving = self.checkpoints.save(self.record.lease.tenant, state, plain=self._plain)
        self._writing = asyncio.create_task(saving)
        self._writing.add_done_callback(lambda _: self._rest())

    def _rest(self) -> None:
        now = self.record.clock.now()
        self._not_before = now + (now - self._began) * _REST

    def _written(self, task: asyncio.Task[Data]) -> None:
        try:
            saved = event_pb2.CheckpointSaved(checkpoint_id=task.result()["id"])
        except MeshError as error:
            log.warning(
                "checkpoint.not_saved", reason=error.reason_name, why=error.message, cause=error.facts.get("cause")
            )
            return
        self.record.stage([Event(checkpoint_saved=saved)])
