"""What driving any kind of run has in common: who drives which, how a drive begins, how signals reach the log."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Protocol

from agentnet.orchestrator.v1 import event_pb2, input_pb2
from services.orchestrator.narrowing import acting
from services.orchestrator.record import RunLog, State
from services.orchestrator.store import EXPIRE, Lease, Signal
from shared.identity import Principal
from shared.log import log
from shared.rpc.log import enter_session

_GUARD_SECONDS: Final = 0.2
_GIVE_UP_AT: Final = 0.8

Event = event_pb2.SessionEvent
Driven = Callable[[], Sequence[str]]
Stop = Callable[[], Awaitable[None]]


class Driver(Protocol):
    """Drives runs, one call a run."""

    async def drive(self, lease: Lease, signalled: asyncio.Event) -> None:
        """Runs it as far as it goes. Raises LeaseLost; being cancelled leaves it to the next owner."""


class Drive(Protocol):
    """One run being driven by one owner, step by step. `working` is its work in flight, by turn or node."""

    @property
    def working(self) -> Mapping[str, asyncio.Task[Any]]: ...
    @property
    def finished(self) -> bool: ...

    async def go(self) -> bool:
        """Takes every step that can be taken at once; True when the run rests: it ended or waits. Raises LeaseLost."""

    async def wait(self) -> None:
        """Waits for work to end or a signal."""

    async def stop(self) -> None:
        """Leaves what is generated to whoever drives next."""


class Opener(Protocol):
    """Makes runs ready to be driven step by step."""

    async def open(self, lease: Lease, signalled: asyncio.Event) -> Drive:
        """Raises LeaseLost."""


async def drive_on(drive: Drive) -> None:
    """Drives until the run rests."""
    try:
        while not await drive.go():
            await drive.wait()
    finally:
        await drive.stop()


class Steps(Driver, Opener, Protocol):
    """Drives a kind of run, at one go or step by step."""


@dataclass(frozen=True, slots=True)
class Runs:
    """Every kind of run with its driver."""

    by_kind: Mapping[str, Steps]

    async def drive(self, lease: Lease, signalled: asyncio.Event) -> None:
        await self.by_kind[lease.kind].drive(lease, signalled)

    async def open(self, lease: Lease, signalled: asyncio.Event) -> Drive:
        return await self.by_kind[lease.kind].open(lease, signalled)


async def guard(age: Callable[[], timedelta], *, ttl: timedelta, driven: Driven, stop: Stop) -> None:
    """Stops driving when the leases were not renewed for almost their length: before anyone else may take them."""
    while True:
        await asyncio.sleep(_GUARD_SECONDS)
        if age() > ttl * _GIVE_UP_AT and (held := driven()):
            log.error("driver.cannot_renew", sessions=len(held))
            await stop()


async def begin(record: RunLog[State]) -> Principal:
    """Loads the log, says so when it was taken over, and tells who started the run. Raises LeaseLost."""
    lease = record.lease
    enter_session(lease.session_id, request=lease.session_id)
    await record.load()
    if lease.takeovers > record.state.takeovers:
        taken = event_pb2.SessionTakenOver(takeovers=lease.takeovers)
        await record.commit([Event(session_taken_over=taken)])
    starter = lease.begun.starter if lease.begun else await record.store.starter(lease.tenant, lease.session_id)
    return acting(starter, record.state.session)


async def signals_received(record: RunLog[State]) -> list[Event]:
    """Signals that are not in the log yet, as its events; each acts once."""
    signals = await record.store.signals(record.lease.tenant, record.lease.session_id)
    new = [signal for signal in signals if signal.id not in record.state.signals]
    return [event for signal in new for event in _events(signal)]


def _events(signal: Signal) -> list[Event]:
    """A signal as the log has it; what a person says also as an event of its own."""
    actor = "mesh" if signal.kind == EXPIRE else f"user:{signal.sender}"
    received = event_pb2.SignalReceived(signal=signal.kind, signal_id=signal.id, target=signal.target)
    events = [Event(signal_received=received, actor=actor)]
    if signal.kind in ("input", EXPIRE):
        given = event_pb2.InputGiven(
            input_id=signal.target, answer=signal.content, approved=signal.approved, override_id=signal.override_id,
            expired=signal.kind == EXPIRE,
        )  # fmt: skip
        events.append(Event(input_given=given, actor=actor))
    elif signal.kind == "message":
        said = input_pb2.MessageInjected(message_id=signal.id, sender=signal.sender, content=signal.content)
        events.append(Event(message_injected=said, actor=actor))
    return events
