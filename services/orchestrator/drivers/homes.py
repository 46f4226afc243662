"""The runs that this replica is home to, as activities of Temporal: taken, driven step by step, given back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, TypeVar

from temporalio import activity
from temporalio.exceptions import ApplicationError

from services.orchestrator.drivers.runs import Drive, Opener, guard
from services.orchestrator.drivers.workflow import NOT_HELD, Asked, Home, Run, Stand
from services.orchestrator.errors import LeaseLost
from services.orchestrator.store import Lease, LeaseStore
from shared.errors import MeshError
from shared.log import log

_BEATS_PER_TTL: Final = 4
# A run that nobody asks of for so many lease times may have no workflow any more, or a slow one: it is seen to. One
# that was seen to so often in vain is given back; doing so at once made an overloaded Temporal slower still.
_FORSAKEN_TTLS: Final = 10
_SEEN_TO: Final = 10

T = TypeVar("T")


@dataclass(slots=True)
class _Held:
    """A run at home here."""

    lease: Lease
    drive: Drive
    signalled: asyncio.Event
    steps: asyncio.Lock = field(default_factory=asyncio.Lock)
    asking: int = 0
    asked_at: float = field(default_factory=time.monotonic)
    seen_to: int = 0

    @asynccontextmanager
    async def asked(self) -> AsyncIterator[None]:
        self.asking += 1
        self.seen_to = 0
        try:
            yield
        finally:
            self.asking -= 1
            self.asked_at = time.monotonic()


@dataclass(slots=True)
class Homes:
    """All runs at home here. `queue` is read by this replica alone."""

    leases: LeaseStore
    runs: Opener
    owner: str
    queue: str
    ttl: timedelta
    limit: int
    closing: bool = False
    _held: dict[str, _Held] = field(default_factory=dict)
    _opening: int = 0
    _doing: set[asyncio.Future[Any]] = field(default_factory=set)

    def driven(self) -> list[str]:
        """Asked for by the thread that renews leases."""
        return list(self._held)

    def signal(self, session_id: str) -> Run | None:
        """Tells a run that is at home here of a signal; None when it is not."""
        held = self._held.get(session_id)
        if held is None:
            return None
        held.signalled.set()
        return Run(held.lease.tenant, session_id)

    @activity.defn(name="take")
    async def take(self, run: Run) -> Home | None:
        """Takes a run from whoever had it; None when it ended or waits. Its writes shut all earlier homes out."""
        if self.closing or len(self._held) + self._opening >= self.limit:
            raise ApplicationError("this replica takes no more", type="Full")
        self._opening += 1
        try:
            return await self._beating(self._taken(run))
        finally:
            self._opening -= 1

    async def _taken(self, run: Run) -> Home | None:
        await self._drop(run.session_id)
        lease = await self.leases.take(run.tenant, run.session_id, self.owner, ttl=self.ttl)
        if lease is None:
            return None
        signalled = asyncio.Event()
        held = self._held[run.session_id] = _Held(lease, await self.runs.open(lease, signalled), signalled)
        if self.closing:
            await self._give_back(held)  # it was taken while this replica stopped
            raise ApplicationError("this replica stops", type="Full")
        return Home(self.queue, lease.fence)

    @activity.defn(name="go")
    async def go(self, asked: Asked) -> Stand:
        """Has a run take all steps that can be taken now; they are in the log when this returns."""
        held = self._find(asked)
        async with held.asked():
            return await self._beating(self._steps(held))

    @activity.defn(name="turn")
    async def turn(self, asked: Asked) -> Stand:
        """Waits for a turn, or a node's try, to its end, then has the run take the steps that follow from it."""
        held = self._find(asked)
        async with held.asked():
            if (work := held.drive.working.get(asked.work)) is not None:
                await self._beating(asyncio.wait({work}))
            return await self._beating(self._steps(held))

    async def sweep(self) -> list[Run]:
        """Runs to be seen to, whose workflow may be gone: it was terminated, or Temporal lost it."""
        longest = self.ttl.total_seconds() * _FORSAKEN_TTLS
        forsaken: list[Run] = []
        for held in list(self._held.values()):
            if held.asking or time.monotonic() - held.asked_at <= longest:
                continue
            held.asked_at, held.seen_to = time.monotonic(), held.seen_to + 1
            log.warning("driver.forsaken", session_id=held.lease.session_id, seen_to=held.seen_to)
            if held.seen_to > _SEEN_TO:
                await self._give_back(held)
            else:
                forsaken.append(Run(held.lease.tenant, held.lease.session_id))
        return forsaken

    async def stop(self) -> None:
        """Gives everything back."""
        await asyncio.gather(*(self._give_back(held) for held in list(self._held.values())))

    async def guard(self, age: Callable[[], timedelta]) -> None:
        """Stops driving when the leases could not be renewed: before anyone else may take them."""
        await guard(age, ttl=self.ttl, driven=self.driven, stop=self.crash)

    async def crash(self) -> None:
        """Stops driving without giving back: what is left runs out and is taken over."""
        await asyncio.gather(*(self._drop(session_id) for session_id in list(self._held)))

    async def _beating(self, waited: Awaitable[T]) -> T:
        """Tells Temporal that an activity lives, for as long as it takes. When the activity is cancelled what it began
        goes on: whoever asks next finds it done.
        """
        task = asyncio.ensure_future(waited)
        self._doing.add(task)
        task.add_done_callback(self._done)
        while not task.done():
            activity.heartbeat()
            await asyncio.wait({task}, timeout=self.ttl.total_seconds() / _BEATS_PER_TTL)
        return task.result()

    def _done(self, task: asyncio.Future[Any]) -> None:
        self._doing.discard(task)
        if not task.cancelled():
            task.exception()

    def _find(self, asked: Asked) -> _Held:
        held = self._held.get(asked.run.session_id)
        if held is None or held.lease.fence != asked.fence:
            raise _not_held("the run is not at home here")
        return held

    async def _steps(self, held: _Held) -> Stand:
        driven = False
        try:
            async with held.steps:
                self._find(Asked(Run(held.lease.tenant, held.lease.session_id), held.lease.fence))
                resting = await held.drive.go()
            driven = True
        except LeaseLost as error:
            raise _not_held(error.message) from None
        except MeshError as error:
            log.warning("driver.failed", session_id=held.lease.session_id, error=error.message)
            raise ApplicationError(error.message, type=error.reason_name) from None
        finally:
            if not driven:
                await self._drop(held.lease.session_id, held)
        if not resting:
            return Stand([name for name, work in held.drive.working.items() if not work.done()])
        waiting = not held.drive.finished
        await self._drop(held.lease.session_id, held)
        return Stand([], resting=True, waiting=waiting)

    async def _give_back(self, held: _Held) -> None:
        await self._drop(held.lease.session_id, held)
        await self.leases.give_back(held.lease)

    async def _drop(self, session_id: str, held: _Held | None = None) -> None:
        """It is not at home here any more. Given `held`, only when it still is that one."""
        known = self._held.get(session_id)
        if known is not None and held in (None, known):
            del self._held[session_id]
            await known.drive.stop()


def _not_held(message: str) -> ApplicationError:
    return ApplicationError(message, type=NOT_HELD, non_retryable=True)
