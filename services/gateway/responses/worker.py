"""Drives responses on: takes what nobody has, in the name of who asked, until it ends."""

from __future__ import annotations

import asyncio
from contextvars import Context
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from services.gateway.facades import openai_responses
from services.gateway.responses import driven
from services.gateway.responses.kept import Responses, response_of
from services.gateway.responses.store import Due, Record
from shared.clock import Clock
from shared.errors import Aborted, MeshError, Reason
from shared.identity import Principal, Signer, enter
from shared.log import log

_LEASE: Final = timedelta(seconds=10)
_LOOK_SECONDS: Final = 1.0
_PLACES: Final = 256
_MOST_CLAIMS: Final = 20
_IDENTITY: Final = timedelta(minutes=5)


class ResponseLost(Aborted):
    """Replicas died over it again and again. Ask again."""

    reason = Reason.ERROR_REASON_GENERATION_LOST


@dataclass(frozen=True, slots=True)
class _Held:
    """One that is driven on here: by which task, in whose name. The task's context has the header that says so."""

    task: asyncio.Task[None]
    context: Context
    principal: Principal


@dataclass(slots=True)
class Worker:
    """One replica. It keeps nothing that another could not go on with."""

    responses: Responses
    signer: Signer
    clock: Clock
    _held: dict[Due, _Held] = field(default_factory=dict)

    async def run(self) -> None:
        """Drives for as long as the service runs; what is left others take at once."""
        try:
            while True:
                self.responses.work.clear()
                await self._look()
                try:
                    async with asyncio.timeout(_LOOK_SECONDS):
                        await self.responses.work.wait()
                except TimeoutError:
                    continue
        finally:
            left = list(self._held)
            await self._stop(*left)
            await self.responses.store.renew(left, self.clock.now())

    async def _look(self) -> None:
        """While the store is away all goes on: two that drive the same do nothing twice."""
        try:
            await self._renew()
            if (free := _PLACES - len(self._held)) > 0:
                now = self.clock.now()
                for due in await self.responses.store.claim(now, now + _LEASE, most=free):
                    await self._begin(due)
        except MeshError as error:
            log.warning("responses.waiting", error=error.message)

    async def _renew(self) -> None:
        for due, held in list(self._held.items()):
            if held.task.done():
                del self._held[due]
                _told(due, held.task)
            else:
                held.context.run(enter, held.principal, self.signer.sign(held.principal, _IDENTITY))
        if self._held:
            kept = await self.responses.store.renew(list(self._held), self.clock.now() + _LEASE)
            await self._stop(*(self._held.keys() - set(kept)))

    async def _begin(self, due: Due) -> None:
        chain = await self.responses.store.chain(due.tenant, due.id)
        if not chain or due in self._held:
            return
        principal, context = driven.caller(due.tenant, chain[-1]), Context()
        context.run(enter, principal, self.signer.sign(principal, _IDENTITY))
        work = self._drive(chain[-1], due.claims)
        task = asyncio.get_running_loop().create_task(work, name=f"response {due.id}", context=context)
        self._held[due] = _Held(task, context, principal)
        task.add_done_callback(lambda _: self.responses.work.set())

    async def _drive(self, record: Record, claims: int) -> None:
        response = response_of(record, driven.read(record)[1])
        try:
            if claims > _MOST_CLAIMS:
                raise ResponseLost(f"{_MOST_CLAIMS} replicas came to no end with it")
            await openai_responses.complete(response, self.responses.driven.pieces(record))
        except MeshError as error:
            response.fail(error)
        await driven.patiently(lambda: self.responses.write(response))

    async def _stop(self, *dues: Due) -> None:
        held = [self._held.pop(due).task for due in dues]
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)


def _told(due: Due, task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        log.warning("response.left", response_id=due.id, error=f"{type(error).__name__}: {error}")
