"""The worker: takes cases from the queue, runs each in a task of its own, gives back what it could not end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from services.orchestrator.errors import LeaseLost
from services.orchestrator.evaluation.running import Cases
from services.orchestrator.evaluation.store import CaseLease, CaseQueue
from shared.errors import MeshError
from shared.log import log

_RENEWALS_PER_TTL: Final = 4


@dataclass(slots=True)
class Worker:
    """All cases this process runs: `limit` at once."""

    queue: CaseQueue
    cases: Cases
    owner: str
    ttl: timedelta
    poll: timedelta
    limit: int
    _running: dict[str, tuple[CaseLease, asyncio.Task[None]]] = field(default_factory=dict)
    _ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def claim(self) -> None:
        """Takes what waits, for as long as the process runs."""
        while True:
            self._ended.clear()
            free = self.limit - len(self._running)
            claimed = await self.queue.claim(self.owner, ttl=self.ttl, limit=free) if free > 0 else []
            for lease in claimed:
                self._run(lease)
            if not claimed:
                await self._until_one_ended()

    async def renew(self) -> None:
        """Keeps the leases of what runs; a case whose lease was lost is left to whoever has it now."""
        while True:
            await asyncio.sleep(self.ttl.total_seconds() / _RENEWALS_PER_TTL)
            mine = list(self._running)
            held = await self.queue.renew(self.owner, mine, ttl=self.ttl) if mine else set()
            for case_id in set(mine) - held:
                if case_id in self._running:
                    log.warning("evaluation.lease_lost", case_id=case_id)
                    self._running[case_id][1].cancel()

    async def drain(self) -> None:
        """Stops; what runs is free for another worker at once."""
        running = list(self._running.values())
        for _, task in running:
            task.cancel()
        await asyncio.gather(*(task for _, task in running), return_exceptions=True)
        for lease, _ in running:
            await self.queue.give_back(lease)

    def _run(self, lease: CaseLease) -> None:
        task = asyncio.create_task(self._case(lease), name=f"case {lease.case_id}")
        self._running[lease.case_id] = (lease, task)
        task.add_done_callback(lambda done: self._done(lease.case_id, done))

    async def _case(self, lease: CaseLease) -> None:
        try:
            await self.cases.run(lease)
        except LeaseLost:
            log.warning("evaluation.lease_lost", case_id=lease.case_id)
        except (MeshError, TimeoutError) as error:
            log.warning("evaluation.case_failed", case_id=lease.case_id, error=str(error))
            if isinstance(error, MeshError) and error.retryable:
                # The mesh does not answer now, by no fault of the case. Else its lease runs out, and the try counts.
                await asyncio.sleep(self.ttl.total_seconds() / _RENEWALS_PER_TTL)
                await self.queue.give_back(lease)

    def _done(self, case_id: str, task: asyncio.Task[None]) -> None:
        self._running.pop(case_id, None)
        self._ended.set()
        if not task.cancelled() and (error := task.exception()):
            log.error("evaluation.fault", case_id=case_id, exc_info=error)

    async def _until_one_ended(self) -> None:
        try:
            async with asyncio.timeout(self.poll.total_seconds()):
                await self._ended.wait()
        except TimeoutError:
            return
