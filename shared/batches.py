"""Questions of one asker, mostly a tenant, that wait while an earlier batch is answered go to the database together."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeAlias, TypeVar

import asyncpg

from shared.rpc.deadline import without_deadline

Q = TypeVar("Q")
A = TypeVar("A")
Answer: TypeAlias = Callable[[str, Sequence[Q]], Awaitable[Sequence[A]]]


class Batches(Generic[Q, A]):
    """One batch a tenant is under way at a time: alone a question waits for nothing, many share one round trip and one
    lock of the tenant's counters.
    """

    def __init__(self, answer: Answer[Q, A], *, most: int) -> None:
        self._answer = answer
        self._most = most
        self._waiting: defaultdict[str, deque[tuple[Q, asyncio.Future[A]]]] = defaultdict(deque)
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def ask(self, tenant: str, question: Q) -> A:
        """The answer. The question goes on when its asker is cancelled: it may have been answered already."""
        future: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting[tenant].append((question, future))
        if tenant not in self._tasks:
            self._tasks[tenant] = asyncio.create_task(self._drain(tenant), name=f"batches of {tenant}")
        return await future

    async def _drain(self, tenant: str) -> None:
        without_deadline()
        waiting = self._waiting[tenant]
        try:
            while waiting:
                batch = [waiting.popleft() for _ in range(min(self._most, len(waiting)))]
                await self._one(tenant, batch)
        finally:
            del self._tasks[tenant], self._waiting[tenant]

    async def _one(self, tenant: str, batch: list[tuple[Q, asyncio.Future[A]]]) -> None:
        work = asyncio.ensure_future(self._answer(tenant, [question for question, _ in batch]))  # noqa: RUF006 - awaited below
        await asyncio.wait({work})
        error = work.exception()
        if isinstance(error, asyncpg.PostgresError) and len(batch) > 1:  # one bad question must not fail the others
            for one in batch:
                await self._one(tenant, [one])
            return
        answers = [None] * len(batch) if error else work.result()
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():
                continue  # its asker is gone
            if error:
                future.set_exception(error)
            else:
                future.set_result(answer)  # type: ignore[arg-type] # None only beside an error
