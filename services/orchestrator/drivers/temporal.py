"""The temporal driver: gives every run that is ready a workflow, and is home to some of them.

Postgres stays the truth: the log, who may write it, and which runs are ready. Temporal keeps what is done about them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import Worker

from services.orchestrator.drivers.homes import Homes
from services.orchestrator.drivers.postgres import listen
from services.orchestrator.drivers.runs import Opener
from services.orchestrator.drivers.workflow import Given, Run, RunWorkflow
from services.orchestrator.leases_postgres import Renewal
from services.orchestrator.settings import OrchestratorSettings
from services.orchestrator.store import LeaseStore
from shared.log import log
from shared.tasks import supervised

# Steps are short and turns mostly wait, so slots bound nothing but mistakes.
_SLOTS_PER_RUN: Final = 110
_AT_ONCE: Final = 16
# A home that beats no more is lost a little before its lease runs out: its writes are shut out by then in any case.
_BEAT_PER_TTL: Final = 2 / 3
# For how long the workflow of a killed replica waits for it before another one may go on with it.
_STICKY: Final = timedelta(milliseconds=500)
# Given, for else the worker hashes every module of the process before it starts.
_BUILD: Final = "agentnet-1"
# When a run that got a workflow and has no home yet is looked at again: its workflow may be gone.
_AGAIN: Final = timedelta(seconds=30)


@dataclass(slots=True)
class TemporalDriver:
    """This replica's part in driving by Temporal."""

    client: Client
    leases: LeaseStore
    homes: Homes
    task_queue: str
    poll: timedelta
    longest_history: int
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _signalled: dict[Run, None] = field(default_factory=dict)

    async def dispatch(self) -> None:
        """Sees to it that every run that is ready has a workflow, for as long as the service runs."""
        while True:
            self._wake.clear()
            await self._signal()
            due = await self.leases.due(until=_AGAIN, limit=_AT_ONCE)
            await asyncio.gather(*(self._see_to(Run(*place)) for place in due))
            await asyncio.gather(*(self._see_to(run) for run in await self.homes.sweep()))
            if not due:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self.poll.total_seconds()):
                        await self._wake.wait()

    def wake(self, session_id: str) -> None:
        """Something changed about a session: a new one, or a signal."""
        if (run := self.homes.signal(session_id)) is not None:
            self._signalled[run] = None
        self._wake.set()

    def wake_all(self) -> None:
        """Something may have changed about any session."""
        for session_id in self.homes.driven():
            self.wake(session_id)
        self._wake.set()

    async def _signal(self) -> None:
        """Has the workflows of signalled runs that are at home here look at them."""
        runs, self._signalled = self._signalled, {}
        await asyncio.gather(*(self._see_to(run) for run in runs))

    async def _see_to(self, run: Run) -> None:
        """A workflow that runs hears of it, else one is started; while Temporal is away everything waits."""
        given = Given(run, self.homes.ttl.total_seconds() * _BEAT_PER_TTL, self.longest_history)
        while True:
            try:
                await self.client.start_workflow(
                    RunWorkflow.run,
                    given,
                    id=f"{self.task_queue}/{run.tenant}/{run.session_id}",
                    task_queue=self.task_queue,
                    start_signal="wake",
                )
            except RPCError as error:
                if error.status not in _PASSING:
                    raise
                log.warning("driver.temporal_away", session_id=run.session_id, error=error.message)
                await asyncio.sleep(self.poll.total_seconds())
            else:
                return


_PASSING: Final = (RPCStatusCode.UNAVAILABLE, RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.RESOURCE_EXHAUSTED)


@asynccontextmanager
async def working(client: Client, homes: Homes, *, task_queue: str) -> AsyncIterator[None]:
    """In the block this replica works: on what is for any home by `task_queue`, on what is at home here by its own."""
    slots = homes.limit * _SLOTS_PER_RUN
    any_home = Worker(
        client,
        task_queue=task_queue,
        workflows=[RunWorkflow],
        activities=[homes.take],
        build_id=_BUILD,
        max_concurrent_activities=homes.limit,
        sticky_queue_schedule_to_start_timeout=_STICKY,
    )
    this_home = Worker(
        client,
        task_queue=homes.queue,
        activities=[homes.go, homes.turn],
        build_id=_BUILD,
        max_concurrent_activities=slots,
        max_heartbeat_throttle_interval=homes.ttl / 2,
        default_heartbeat_throttle_interval=homes.ttl / 2,
    )
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(this_home)
        await stack.enter_async_context(any_home)
        try:
            yield
        finally:
            homes.closing = True
            await homes.stop()


async def start(
    settings: OrchestratorSettings, stack: AsyncExitStack, runs: Opener, leases: LeaseStore, owner: str
) -> None:
    """Drives by Temporal until the stack unwinds. While Temporal is away the service serves, and runs wait."""
    shift = _Shift()
    await stack.enter_async_context(supervised("temporal", lambda: _drive(settings, runs, leases, owner, shift)))
    stack.push_async_callback(shift.end)


@dataclass(slots=True)
class _Shift:
    """How long this replica drives. It is ended by being told, since who is cancelled could not give back."""

    over: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    at_work: bool = False

    async def end(self) -> None:
        self.over.set()
        if self.at_work:
            await self.left.wait()


async def _drive(settings: OrchestratorSettings, runs: Opener, leases: LeaseStore, owner: str, shift: _Shift) -> None:
    key = settings.temporal_api_key.get_secret_value() if settings.temporal_api_key else None
    address, namespace = settings.temporal_address, settings.temporal_namespace
    client = await Client.connect(address, namespace=namespace, tls=settings.temporal_tls, api_key=key)
    queue, dsn = settings.temporal_queue, settings.driver_dsn.get_secret_value()
    homes = Homes(leases, runs, owner, f"{queue}/{owner}", settings.lease_ttl, settings.max_sessions)
    driver = TemporalDriver(client, leases, homes, queue, settings.poll, settings.temporal_history)
    shift.at_work = True
    try:
        async with AsyncExitStack() as stack:
            renewal = stack.enter_context(Renewal(dsn, owner, ttl=homes.ttl, driven=homes.driven))
            await stack.enter_async_context(working(client, homes, task_queue=queue))
            await stack.enter_async_context(supervised("guard", lambda: homes.guard(lambda: renewal.age)))
            await stack.enter_async_context(supervised("listen", lambda: listen(dsn, driver)))
            await stack.enter_async_context(supervised("dispatch", driver.dispatch))
            await shift.over.wait()
    finally:
        shift.at_work = False
        shift.left.set()
