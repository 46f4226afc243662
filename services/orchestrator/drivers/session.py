"""Driving one session: fold, decide, do, until it ends, waits, or belongs to someone else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from agentnet.orchestrator.v1 import event_pb2, session_pb2
from services.orchestrator.drivers.runs import begin, signals_received
from services.orchestrator.plan import Done, EndRound, Finish, GoOn, StartTurn, Step, Wait, next_step
from services.orchestrator.record import SessionLog
from services.orchestrator.store import Lease, LogTail, SessionStore
from services.orchestrator.turns import Turns
from shared.clock import Clock
from shared.identity import Principal
from shared.log import log
from shared.telemetry import meter

# The safety net under notifications: hundreds of turns that are under way must not ask all the time.
_SIGNAL_POLL_SECONDS: Final = 5.0
_rounds = meter.create_histogram("session_rounds", description="rounds of ended sessions, by mode and converged")

Event = event_pb2.SessionEvent


@dataclass(slots=True)
class SessionDriver:
    """Drives sessions of this replica, one call a session."""

    store: SessionStore
    tail: LogTail
    turns: Turns
    clock: Clock
    max_takeovers: int
    opened: Callable[[Lease, SessionStore, LogTail, Clock], SessionLog] = SessionLog

    async def drive(self, lease: Lease, signalled: asyncio.Event) -> None:
        """Runs the session as far as it goes. Raises LeaseLost; being cancelled leaves it to the next owner."""
        record = self.opened(lease, self.store, self.tail, self.clock)
        caller = await begin(record)
        while True:
            if record.signals_due or signalled.is_set():
                signalled.clear()
                record.stage(await signals_received(record))
            step = next_step(record.state, max_takeovers=self.max_takeovers)
            if await self._do(record, step, caller, signalled):
                return

    async def _do(self, record: SessionLog, step: Step, caller: Principal, signalled: asyncio.Event) -> bool:
        """Does one step; True when there is nothing more to do."""
        match step:
            case StartTurn() | GoOn():
                await self._turn(record, step, caller, signalled)
            case EndRound():
                done = event_pb2.RoundFinished(round=step.round, similarity=step.similarity, converged=step.converged)
                record.stage([Event(round_finished=done)])
            case Wait():
                waiting = event_pb2.SessionWaiting(status=step.status)
                await record.commit([Event(session_waiting=waiting)], release=True)
                return True
            case Finish():
                await self._finish(record, step)
                return True
            case Done():
                return True
        return False

    async def _turn(
        self, record: SessionLog, step: StartTurn | GoOn, caller: Principal, signalled: asyncio.Event
    ) -> None:
        """A turn runs beside its session's signals: a cancel ends it at once."""
        if isinstance(step, GoOn):
            work = asyncio.create_task(self.turns.go_on(record, step.speaking, caller))
        else:
            work = asyncio.create_task(self.turns.start(record, step, caller))
        try:
            while not await _settled(work, signalled):
                if await self._cancel_asked(record):
                    await self.turns.cancel(record, caller)
                    break
        finally:
            work.cancel()
            (outcome,) = await asyncio.gather(work, return_exceptions=True)
        if isinstance(outcome, Exception):
            raise outcome

    async def _cancel_asked(self, record: SessionLog) -> bool:
        signals = await self.store.signals(record.lease.tenant, record.lease.session_id)
        record.signals_stored = len(signals)
        return any(signal.kind == "cancel" for signal in signals)

    async def _finish(self, record: SessionLog, step: Finish) -> None:
        session = record.summary()
        session.status = step.status
        session.stop_reason = step.reason
        session.topic_final = session.topic_final or session.topic_start
        session.end_time.FromDatetime(self.clock.now())
        if step.failure:
            session.failure.CopyFrom(step.failure)
        finished = event_pb2.SessionFinished(session=session)
        await record.commit([Event(session_finished=finished)], release=True)
        labels = {"mode": session.mode, "converged": str(session.converged).lower()}
        _rounds.record(session.rounds_executed, labels)
        log.info("session.finished", reason=session_pb2.StopReason.Name(step.reason), rounds=session.rounds_executed)


async def _settled(work: asyncio.Task[None], signalled: asyncio.Event) -> bool:
    """Waits for the work to end, but not longer than until a signal may have come."""
    nudge = asyncio.create_task(signalled.wait())
    try:
        await asyncio.wait({work, nudge}, timeout=_SIGNAL_POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    finally:
        nudge.cancel()
    signalled.clear()
    return work.done()
