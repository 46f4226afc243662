"""Runs submitted generations: takes what nobody has, keeps its leases, and writes what came of it while they hold."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final

from agentnet.inference.v1 import generation_pb2
from agentnet.inference.v1 import inference_service_pb2 as pb
from services.inference import convert
from services.inference.admission import Order
from services.inference.engine import Engine
from services.inference.errors import GenerationExpired, GenerationLost, GenerationNotFound
from services.inference.queue.store import Claim, QueueStore, Work
from shared.clock import Clock
from shared.errors import MeshError
from shared.identity import enter
from shared.log import log
from shared.telemetry import meter

LEASE: Final = timedelta(seconds=10)
_LOOK_SECONDS: Final = 1.0
_MEASURED_EVERY: Final = timedelta(seconds=5)
_TRIES: Final = 5
_MOST_RUNS: Final = 20
"""A generation whose processes die again and again, perhaps of it, is not given to another for ever."""
_ended = meter.create_counter("inference_queue_ended_total", description="submitted generations, by outcome")
_waiting = meter.create_gauge("inference_queue_waiting", description="submitted generations nobody runs yet")
_running = meter.create_gauge(
    "inference_queue_running", description="submitted generations that are run, by all processes"
)
_oldest = meter.create_gauge(
    "inference_queue_oldest_seconds", unit="s", description="how long the first to be run has waited"
)
_again = meter.create_counter("inference_queue_again_total", description="runs that were given back")

Read = Callable[[pb.GenerateRequest], Awaitable[Order]]
Events = Sequence[generation_pb2.GenerationEvent]


def run_id(generation_id: str, run: int) -> str:
    """Under which id a run's events are streamed and its attempts are paid."""
    return generation_id if run == 1 else f"{generation_id[:56]}-run{run}"


@dataclass(slots=True)
class Worker:
    """One process at the queue. It keeps nothing that another could not go on with."""

    store: QueueStore
    engine: Engine
    read: Read
    owner: str
    clock: Clock
    places: int
    lease: timedelta = LEASE
    first_pause: timedelta = timedelta(seconds=1)
    """Before what failed in passing is tried again; it doubles."""
    _held: dict[Claim, asyncio.Task[None]] = field(default_factory=dict)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _renewed: timedelta = timedelta()
    _measured: timedelta | None = None

    def wake(self) -> None:
        """There is work: looks at once."""
        self._wake.set()

    async def run(self) -> None:
        """Takes work for as long as the service runs."""
        while True:
            self._wake.clear()
            await self.look()
            await self.measure()
            try:
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def look(self) -> None:
        """Renews its leases and takes what it has places for. Raises Unavailable while the store is away."""
        await self._renew()
        if (free := self.places - len(self._held)) > 0:
            for claim in await self.store.claim(self.owner, lease=self.lease, most=free):
                self._held[claim] = asyncio.create_task(self._do(claim), name=f"submitted {claim.id}")

    async def measure(self) -> None:
        """Tells, now and then, how much there is to do: what processes are added by."""
        now = self.clock.monotonic()
        if self._measured is not None and now - self._measured < _MEASURED_EVERY:
            return
        self._measured, depth = now, await self.store.depth()
        _waiting.set(depth.waiting)
        _running.set(depth.running)
        _oldest.set(depth.oldest.total_seconds())

    async def drain(self) -> None:
        """Gives back what it has; each is settled when this returns."""
        running = list(self._held.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _renew(self) -> None:
        """What it cannot renew in time it stops: another process may have it."""
        now = self.clock.monotonic()
        if not self._held:
            self._renewed = now
            return
        try:
            kept = await self.store.renew(self.owner, list(self._held), lease=self.lease)
        except MeshError:
            if now - self._renewed >= self.lease * 0.8:
                self._stop(set(self._held))
            raise
        self._renewed = now
        self._stop(self._held.keys() - set(kept))

    def _stop(self, lost: set[Claim]) -> None:
        for claim in lost:
            log.warning("queue.lost", generation_id=claim.id)
            self._held[claim].cancel()

    async def _do(self, claim: Claim) -> None:
        try:
            if work := await self.store.begin(claim):
                await self._finish(claim, work)
        except asyncio.CancelledError:
            await asyncio.shield(self.store.again(claim, after=timedelta()))  # nothing where the lease is lost
            raise
        except MeshError as error:  # the store is away: the lease ends, and somebody goes on
            log.warning("queue.left", generation_id=claim.id, error=error.message)
        finally:
            self._held.pop(claim, None)
            self.wake()

    async def _finish(self, claim: Claim, work: Work) -> None:
        enter(work.principal, "")
        try:
            response = await self._answered(claim, work)
        except MeshError as error:
            if error.retryable and work.run < _TRIES:
                _again.add(1)
                pause = max(error.retry_after or timedelta(), self.first_pause * 2 ** (work.run - 1))
                await self.store.again(claim, after=pause)
                return
            succeeded, outcome = False, error.failure().SerializeToString()
        else:
            succeeded, outcome = True, response.SerializeToString()
        if await self.store.end(claim, succeeded=succeeded, outcome=outcome):
            _ended.add(1, {"outcome": "succeeded" if succeeded else "failed"})

    async def _answered(self, claim: Claim, work: Work) -> pb.GenerateTextResponse:
        """The answer, if need be by a call of the model. Raises what a generation fails with."""
        if work.run > 1 and (events := await self._left_behind(claim.tenant, run_id(claim.id, work.run - 1))):
            return convert.whole(events)
        if work.run > _MOST_RUNS:
            raise GenerationLost(f"{_MOST_RUNS} runs of it came to no end", generation_id=claim.id)
        request = pb.GenerateRequest.FromString(work.request)
        request.generation_id = run_id(claim.id, work.run)
        order = replace(await self.read(request), detach_grace=timedelta(), packing=False, gather=timedelta())
        async with aclosing(await self.engine.start(work.principal, order)) as found:
            return convert.whole([pb.GenerateResponse.FromString(data).event async for data in found])

    async def _left_behind(self, tenant: str, name: str) -> Events:
        """The events of a run whose process died, or still works, if they come to an answer; else none."""
        try:
            async with aclosing(self.engine.attach(tenant, name, after=0)) as found:
                events = [pb.GenerateResponse.FromString(data).event async for data in found]
        except (GenerationNotFound, GenerationLost, GenerationExpired):
            return []
        return events if events and events[-1].HasField("finished") else []
