"""A call that its caller named is done once: reserved, started, done. What was started and not done is unknown."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from typing import Final

from services.tools.answer import Outcome, Status
from services.tools.errors import RequestIdReused, ToolCallInProgress, ToolOutcomeUnknown
from services.tools.store import Effect, ToolStore
from shared.clock import Clock

REMEMBERED: Final = timedelta(hours=24)
# Between two steps of a call; a replica that needs longer has died.
_STEP: Final = timedelta(seconds=30)
_SWEEP: Final = timedelta(hours=1)


class Step(StrEnum):
    RESERVED = "reserved"
    STARTED = "started"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Named:
    """Which call it is."""

    request_id: str
    digest: bytes
    invocation_id: str
    repeatable: bool


class Effects:
    """The steps of named calls, written before each is taken."""

    def __init__(self, store: ToolStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._swept: dict[str, timedelta] = {}

    async def reserve(self, tenant: str, named: Named) -> Effect | Outcome:
        """The right to do it, or the outcome of the call that did.

        Raises RequestIdReused, ToolCallInProgress, and ToolOutcomeUnknown when it may have happened.
        """
        await self._forget(tenant)
        now = self._clock.now()
        mine = Effect(named.request_id, named.digest, named.invocation_id, Step.RESERVED, now + _STEP, None, now)
        found = await self._store.reserve(tenant, mine)
        if found.invocation_id == named.invocation_id:
            return found
        if found.digest != named.digest:
            raise RequestIdReused("this request_id came with another call", field="request_id")
        if found.outcome is not None:
            return replace(Outcome.from_data(found.outcome), replayed=True)
        if found.leased_until > now:
            raise ToolCallInProgress("a call with this request_id is running", retry_after=found.leased_until - now)
        if found.step == Step.STARTED and not named.repeatable:
            raise unknown(found.invocation_id)
        taken = replace(mine, created_at=found.created_at)
        if not await self._store.take_over(tenant, found, taken):
            raise ToolCallInProgress("a call with this request_id is running", retry_after=_STEP)
        return taken

    async def start(self, tenant: str, effect: Effect, *, longest: timedelta) -> Effect:
        """From here on it may have happened. Raises ToolCallInProgress when another caller took it over."""
        started = replace(effect, step=Step.STARTED, leased_until=self._clock.now() + longest + _STEP)
        if not await self._store.advance(tenant, started):
            raise ToolCallInProgress("another replica took this call over")
        return started

    async def finish(self, tenant: str, effect: Effect, outcome: Outcome) -> None:
        """Writes the outcome down for whoever asks again; an unknown one is no outcome, and who was not reached did
        nothing: then whoever asks again makes the call.
        """
        if outcome.status in (Status.UNKNOWN, Status.UNREACHABLE):
            await self.leave(tenant, effect, happened=outcome.status is Status.UNKNOWN)
        else:
            await self._store.advance(tenant, replace(effect, step=Step.DONE, outcome=outcome.as_data()))

    async def leave(self, tenant: str, effect: Effect, *, happened: bool) -> None:
        """Gives it up at once; `happened` when it may have."""
        step = Step.STARTED if happened else Step.RESERVED
        await self._store.advance(tenant, replace(effect, step=step, leased_until=self._clock.now()))

    async def _forget(self, tenant: str) -> None:
        """Drops what is older than the memory that the contract promises, once an hour for each tenant that calls."""
        now = self._clock.monotonic()
        if now - self._swept.get(tenant, -_SWEEP) >= _SWEEP:
            self._swept[tenant] = now
            await self._store.forget_effects(tenant, self._clock.now() - REMEMBERED)


def unknown(invocation_id: str) -> ToolOutcomeUnknown:
    return ToolOutcomeUnknown(
        "the call began and its outcome is unknown; it is not repeated", invocation_id=invocation_id
    )
