"""Driving one session: fold, decide, do, with any number of turns in flight, until it ends, waits, or is another's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from agentnet.common.v1 import usage_pb2
from agentnet.orchestrator.v1 import event_pb2, progress_pb2, session_pb2
from services.orchestrator import modes
from services.orchestrator.drivers.measuring import ByInference, Measuring
from services.orchestrator.drivers.runs import begin, drive_on, signals_received
from services.orchestrator.drivers.stalls import stalled
from services.orchestrator.peers import Utterance
from services.orchestrator.plan import Await, Begin, Done, EndRound, Finish, Note, Step, Wait, next_step
from services.orchestrator.record import SessionLog
from services.orchestrator.state import SessionState
from services.orchestrator.store import Lease, LogTail, SessionStore
from services.orchestrator.turns import Turns
from shared.clock import Clock
from shared.identity import Principal
from shared.log import log
from shared.risks import Tell, untold
from shared.telemetry import meter

_RESULT_CHARACTERS: Final = 32_768
# The safety net under notifications: hundreds of turns that are under way must not ask all the time.
_SIGNAL_POLL_SECONDS: Final = 5.0
# A generation that was called off is settled and ends at once; a session's end does not hang on it.
_CALLED_OFF_SECONDS: Final = 2.0
_rounds = meter.create_histogram("session_rounds", description="rounds of ended sessions, by mode and converged")

Event = event_pb2.SessionEvent
_ENDS: Final = (Wait, Finish, Done)
Work = asyncio.Task[None]


@dataclass(slots=True)
class SessionDriver:
    """Drives sessions of this replica, one call a session."""

    store: SessionStore
    tail: LogTail
    turns: Turns
    clock: Clock
    max_takeovers: int
    opened: Callable[[Lease, SessionStore, LogTail, Clock], SessionLog] = SessionLog
    measuring: Measuring | None = None
    tell: Tell = untold

    async def drive(self, lease: Lease, signalled: asyncio.Event) -> None:
        """Runs the session as far as it goes. Raises LeaseLost; being cancelled leaves it to the next owner."""
        await drive_on(await self.open(lease, signalled))

    async def open(self, lease: Lease, signalled: asyncio.Event) -> _Drive:
        """A session ready to be driven step by step. Raises LeaseLost."""
        record = self.opened(lease, self.store, self.tail, self.clock)
        return _Drive(self, record, await begin(record), signalled)


@dataclass(slots=True)
class _Drive:
    """One session being driven: the only one who decides, beside the turns at work."""

    driver: SessionDriver
    record: SessionLog
    caller: Principal
    signalled: asyncio.Event
    working: dict[str, Work] = field(default_factory=dict)
    nudge: asyncio.Task[bool] | None = None

    @property
    def finished(self) -> bool:
        return self.record.state.finished

    async def go(self) -> bool:
        """Takes every step that can be taken at once; True when it rests. Raises what a turn could not log."""
        await self._look()
        while True:
            step = next_step(self.record.state, max_takeovers=self.driver.max_takeovers)
            if isinstance(step, Await):
                self._go_on()
                return False
            if not await self.record.went_on():
                await self._take(step)
                if isinstance(step, _ENDS):
                    return True
            if self.signalled.is_set() or self.record.signals_due:
                await self._hear_signals()

    async def _take(self, step: Step) -> None:
        match step:
            case Begin():
                await self._begin(step)
            case Note():
                await self.record.commit(step.events)
            case EndRound():
                self.record.stage(await self._round(step.round))
            case Wait():
                await self._rest()
                waiting = event_pb2.SessionWaiting(status=step.status)
                await self.record.commit([Event(session_waiting=waiting)], release=True)
            case Finish():
                await self._call_off()
                await self._finish(step)

    async def stop(self) -> None:
        """Leaves what is generated to whoever drives next."""
        await _cancelled([*self.working.values(), *filter(None, (self.nudge,))])

    async def _hear_signals(self) -> None:
        self.signalled.clear()
        if received := await signals_received(self.record):
            await self.record.commit(received)

    async def _begin(self, step: Begin) -> None:
        """Turns that start together are in the log together, before any model is asked.

        What a prompt is made of is the log where its turn starts: when the log went on while others were asked, it is
        decided anew.
        """
        preparing, decided_on = self.driver.turns.preparing, self.record.state
        learning = [preparing.learn(self.record, start, self.caller) for start in step.turns]
        learned = [await learning[0]] if len(learning) == 1 else await asyncio.gather(*learning)
        went_on = self.record.state is not decided_on
        if went_on and next_step(self.record.state, max_takeovers=self.driver.max_takeovers) != step:
            return
        prepared = [preparing.prepared(self.record, one) for one in learned]
        await self.record.commit([event for one in prepared for event in one.events])
        for one in prepared:
            self._start(one.turn_id, one.utterance)

    def _go_on(self) -> None:
        """Turns that somebody else began, or that a person's answer moved on."""
        for turn_id, speaking in self.record.state.speaking.items():
            if turn_id not in self.working and not speaking.blocked:
                self._start(turn_id, None)

    def _start(self, turn_id: str, utterance: Utterance | None) -> None:
        work = self.driver.turns.run(self.record, turn_id, self.caller, utterance)
        self.working[turn_id] = asyncio.create_task(work, name=f"turn {turn_id}")

    async def wait(self) -> None:
        """Waits for a turn to end or a signal."""
        if self.nudge is None or self.nudge.done():
            self.nudge = asyncio.create_task(self.signalled.wait())
        await asyncio.wait(
            {self.nudge, *self.working.values()}, timeout=_SIGNAL_POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED
        )

    async def _look(self) -> None:
        ended = [turn_id for turn_id, work in self.working.items() if work.done()]
        for turn_id in ended:
            self.working.pop(turn_id).result()
        if not ended or self.signalled.is_set() or self.record.signals_due:
            await self._hear_signals()

    async def _rest(self) -> None:
        """Turns that wait for a person have put that in the log and end by themselves."""
        waiting, self.working = self.working, {}
        for outcome in await asyncio.gather(*waiting.values(), return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome

    async def _call_off(self) -> None:
        """Ends the turns in flight, which nobody will read. What is generated is called off where it is made, and its
        turn hears what it has cost and writes that down; what else is under way, tools and waits, is left.
        """
        speaking = [one for one in self.record.state.speaking.values() if not one.blocked]
        listening = [self.working.pop(one.turn_id) for one in speaking if one.turn_id in self.working and not one.open]
        await _cancelled(self.working.values())
        self.working.clear()
        await asyncio.gather(*(self.driver.turns.cancel(one, self.caller) for one in speaking))
        if listening:
            await asyncio.wait(listening, timeout=_CALLED_OFF_SECONDS)
        await _cancelled(listening)

    async def _round(self, number: int) -> list[Event]:
        """What there is to say about a round whose parts are all spoken."""
        state = self.record.state
        measuring = self.driver.measuring or ByInference(self.driver.turns.inference)
        done = await measuring.judged(self.caller, state, number)
        mode = modes.mode(state.session.mode)
        own = mode.ending(state, number)
        events = [Event(round_finished=done)]
        if number < state.session.max_rounds and not done.measure and own is None:
            events += self._so_far(state, number, mode.result(state))
        return events

    def _so_far(self, state: SessionState, number: int, result: str) -> list[Event]:
        usage = usage_pb2.Usage(input_tokens=state.input_tokens, output_tokens=state.output_tokens)
        progressed = progress_pb2.Progressed(
            round=number,
            max_rounds=state.session.max_rounds,
            usage=usage,
            cost_micros_usd=state.cost_micros_usd,
        )
        partial = progress_pb2.PartialResult(round=number, content=result[:_RESULT_CHARACTERS])
        return [Event(progressed=progressed), Event(partial_result=partial)]

    async def _finish(self, step: Finish) -> None:
        session = self.record.summary()
        session.status = step.status
        session.stop_reason = step.reason
        session.stop_measure = step.measure
        session.converged = step.reason == session_pb2.STOP_REASON_CONVERGED
        session.topic_final = session.topic_final or session.topic_start
        session.result = modes.mode(session.mode).result(self.record.state)[:_RESULT_CHARACTERS]
        del session.inputs[:]
        session.end_time.FromDatetime(self.record.now())
        if step.failure:
            session.failure.CopyFrom(step.failure)
        finished = event_pb2.SessionFinished(session=session)
        await self.record.commit([Event(session_finished=finished)], release=True)
        labels = {"mode": session.mode, "converged": str(session.converged).lower()}
        _rounds.record(session.rounds_executed, labels)
        if stall := stalled(session):
            self.driver.tell(self.caller.tenant_id, stall, session.id)
        log.info("session.finished", reason=session_pb2.StopReason.Name(step.reason), rounds=session.rounds_executed)


async def _cancelled(left: Iterable[asyncio.Task[Any]]) -> None:
    """Cancels what is under way and waits for it, whatever it ends with."""
    for work in (works := list(left)):
        work.cancel()
    await asyncio.gather(*works, return_exceptions=True)
