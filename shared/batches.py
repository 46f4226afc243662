"""Putting together what many ask for at once: while one statement is at work what else is asked waits, and the next
statement carries all of it. Nobody waits for company: what is asked alone goes alone, at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from functools import partial
from typing import Final, Generic, TypeVar

from shared.errors import MeshError, Unavailable
from shared.log import log
from shared.rpc.deadline import without_deadline

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")

_MOST: Final = 256


class Batches(Generic[Asked, Answer]):
    """One kind of statement. `carry` answers many at once, in their order; `place` says what an asked one is about, and
    two about the same place never go together.

    When a batch fails by one of the `faults`, which blame something that was asked, each of it is asked again alone:
    what is wrong with one is no harm to the others. `carry` must bear that, as a transaction does. What is `binding` is
    carried also when its asker is gone before its turn; everything else is left out then.
    """

    def __init__(
        self,
        carry: Callable[[Sequence[Asked]], Awaitable[Sequence[Answer]]],
        *,
        place: Callable[[Asked], Hashable] = id,
        at_once: int = 1,
        most: int = _MOST,
        faults: tuple[type[Exception], ...] = (),
        binding: bool = False,
    ) -> None:
        self._carry = carry
        self._place = place
        self._at_once = at_once
        self._most = most
        self._faults = faults
        self._binding = binding
        self._waiting: deque[tuple[Asked, asyncio.Future[Answer]]] = deque()
        self._workers = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._busy: set[Hashable] = set()

    async def ask(self, asked: Asked) -> Answer:
        """The answer to one. Raises what `carry` raises. What has begun goes on when its asker is cancelled."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append((asked, future))
        if self._workers < self._at_once:
            self._workers += 1
            task = loop.create_task(self._work(), name="batch")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await future

    @property
    def idle(self) -> bool:
        return not self._workers

    async def _work(self) -> None:
        without_deadline()  # which is the first asker's, and this is for all
        try:
            await asyncio.sleep(0)  # what others ask in this turn of the loop comes along
            while batch := self._taken():
                places = {self._place(asked) for asked, _ in batch}
                self._busy |= places
                try:
                    await self._answer(batch)
                finally:
                    self._busy -= places
        finally:
            self._workers -= 1  # at once, and not when the task is done: what is asked in between would wait for ever

    def _taken(self) -> list[tuple[Asked, asyncio.Future[Answer]]]:
        """What goes next, in its order; who gave up meanwhile is left out, unless it binds."""
        taken: list[tuple[Asked, asyncio.Future[Answer]]] = []
        later: list[tuple[Asked, asyncio.Future[Answer]]] = []
        places = set(self._busy)
        while self._waiting and len(taken) < self._most:
            one = self._waiting.popleft()
            if one[1].done() and not self._binding:
                continue
            place = self._place(one[0])
            (later if place in places else taken).append(one)
            places.add(place)
        self._waiting.extendleft(reversed(later))
        return taken

    async def _answer(self, batch: Sequence[tuple[Asked, asyncio.Future[Answer]]]) -> None:
        try:
            answers = await self._carry([asked for asked, _ in batch])
            for (_, future), answer in zip(batch, answers, strict=True):
                if not future.done():
                    future.set_result(answer)
        except self._faults as fault:
            if len(batch) == 1:
                _fail(batch, fault)
            else:
                for one in batch:
                    await self._answer([one])
        except MeshError as error:
            _fail(batch, error)
        except BaseException as error:
            broken = Unavailable("what was asked for together broke off")
            _fail(batch, error if isinstance(error, Exception) else broken)
            if not isinstance(error, Exception):
                raise
            log.error("batch.fault", exc_info=error)  # a fault of ours; what waits behind it is no part of it


class TenantBatches(Generic[Asked, Answer]):
    """One statement at a time for each tenant, binding: many of a tenant share one round trip and one lock of its rows,
    and tenants never wait for each other.
    """

    def __init__(
        self,
        carry: Callable[[str, Sequence[Asked]], Awaitable[Sequence[Answer]]],
        *,
        most: int,
        faults: tuple[type[Exception], ...] = (),
    ) -> None:
        self._carry = carry
        self._most = most
        self._faults = faults
        self._of: dict[str, Batches[Asked, Answer]] = {}

    async def ask(self, tenant: str, asked: Asked) -> Answer:
        """As Batches.ask."""
        if tenant not in self._of:
            carry = partial(self._carry, tenant)
            self._of[tenant] = Batches(carry, most=self._most, faults=self._faults, binding=True)
        batches = self._of[tenant]
        try:
            return await batches.ask(asked)
        finally:
            if batches.idle and self._of.get(tenant) is batches:
                del self._of[tenant]


def _fail(batch: Sequence[tuple[Asked, asyncio.Future[Answer]]], error: Exception) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)
