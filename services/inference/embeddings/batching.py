"""Dynamic batching: texts of many requests share a run of the model, those of like length together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import accumulate
from typing import Final, TypeVar

from services.inference.embeddings.contract import Computed, Embedded, TokenIds, Tokenised, VectorModel
from shared.errors import Internal, MeshError, ResourceExhausted
from shared.log import log
from shared.tasks import supervised
from shared.telemetry import meter

_RETRY: Final = timedelta(seconds=1)
Given = TypeVar("Given")
Made = TypeVar("Made")
_sizes = meter.create_histogram("embedding_batch_size", description="texts in one run of an embedding model")


@dataclass(frozen=True, slots=True)
class Limits:
    """How much shares one run, and how much may wait. The defaults are a CPU's."""

    texts: int = 32
    tokens: int = (
        192  # with padding; a longer text runs alone. More are hardly cheaper, and who comes next waits for them
    )
    padding: int = (
        16  # tokens whose time equals a run's own: a text joins when it pads less, else it costs more than it saves
    )
    pending: int = 8192  # texts; more are told to come back
    wait: timedelta = timedelta(milliseconds=3)  # for company, when the last run had some


@dataclass(slots=True, eq=False)
class _Request:
    """One caller's texts."""

    done: asyncio.Future[None]
    left: int
    computed: dict[int, Computed] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Waiting:
    """One text that waits. The lowest rank is next: the runs before it came, and those its request takes up to it."""

    ids: TokenIds
    rank: float
    place: int
    request: _Request


def next_batch(waiting: Sequence[Waiting], limits: Limits) -> list[Waiting]:
    """The text whose turn it is and those nearest to it in length, where one run is cheaper than two.

    A request's later texts rank behind newcomers and a short text before long ones that came a moment sooner, so that a
    question never waits for another caller's hundreds.
    """
    first = min(waiting, key=lambda text: text.rank)
    batch, longest = [first], len(first.ids)
    for text in sorted(waiting, key=lambda text: (abs(len(text.ids) - len(first.ids)), text.rank)):
        width = max(longest, len(text.ids))
        padding = width * (len(batch) + 1) - longest * len(batch) - len(text.ids)
        fits = len(batch) < limits.texts and width * (len(batch) + 1) <= limits.tokens
        if text is not first and fits and padding <= limits.padding:
            batch.append(text)
            longest = width
    return batch


class BatchingEmbedder:
    """One model, one run at a time, in a thread; the loop never waits for arithmetic."""

    def __init__(self, model: VectorModel, limits: Limits) -> None:
        self._model = model
        self._limits = limits
        self._waiting: list[Waiting] = []
        self._arrived, self._full = asyncio.Event(), asyncio.Event()
        self._runs, self._company = 0, False
        self._tokenising = ThreadPoolExecutor(1, thread_name_prefix="tokenise")
        self._computing = ThreadPoolExecutor(1, thread_name_prefix="embed")

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """One vector a text. Cancelled, its texts leave the queue. Raises ResourceExhausted when too many wait and
        Internal when the model fails.
        """
        if len(self._waiting) + len(texts) > self._limits.pending:
            raise ResourceExhausted(
                "too many texts wait to be embedded", retry_after=_RETRY, limit=str(self._limits.pending)
            )
        tokenised = await self._in(self._tokenising, self._model.tokenise, texts)
        request = _Request(asyncio.get_running_loop().create_future(), len(texts))
        self._add(request, tokenised)
        try:
            await request.done
        finally:
            if request.left:
                self._waiting = [text for text in self._waiting if text.request is not request]
        computed = [request.computed[place] for place in range(len(texts))]
        return Embedded(
            vectors=tuple(one.vector for one in computed),
            tokens=sum(len(text.ids) for text in tokenised),
            truncated=sum(text.cut for text in tokenised),
            cut=tuple(place for place, text in enumerate(tokenised) if text.cut),
            token_vectors=tuple(one.token_vectors for one in computed),
        )

    async def run(self) -> None:
        """Serves the queue, for as long as the service runs."""
        while True:
            await self._arrived.wait()
            if self._company and not self._full.is_set():
                await self._linger()
            if self._waiting:
                await self._compute(next_batch(self._waiting, self._limits))
            self._note()

    def close(self) -> None:
        self._tokenising.shutdown(wait=True)
        self._computing.shutdown(wait=True)

    def _add(self, request: _Request, texts: Sequence[Tokenised]) -> None:
        before = accumulate(self._part(text) for text in texts)
        for place, (text, runs) in enumerate(zip(texts, before, strict=True)):
            self._waiting.append(Waiting(text.ids, self._runs + runs, place, request))
        self._note()

    def _part(self, text: Tokenised) -> float:
        """Of a run."""
        return max(1 / self._limits.texts, len(text.ids) / self._limits.tokens)

    def _note(self) -> None:
        for event, holds in ((self._arrived, self._waiting), (self._full, len(self._waiting) >= self._limits.texts)):
            if holds:
                event.set()
            else:
                event.clear()

    async def _linger(self) -> None:
        try:
            async with asyncio.timeout(self._limits.wait.total_seconds()):
                await self._full.wait()
        except TimeoutError:
            return

    async def _compute(self, batch: Sequence[Waiting]) -> None:
        """Runs one batch and hands out what came of it: vectors, or its failure to every caller in it."""
        taken = set(batch)
        self._waiting = [text for text in self._waiting if text not in taken]
        try:
            computed = await self._in(self._computing, self._model.vectors, [text.ids for text in batch])
        except Internal as failure:
            for text in batch:
                _fail(text.request, failure)
        else:
            for text, one in zip(batch, computed, strict=True):
                _hand_out(text, one)
        self._runs += 1
        self._company = len({id(text.request) for text in batch}) > 1
        _sizes.record(len(batch), {"model": self._model.name})

    async def _in(self, thread: Executor, work: Callable[[Given], Made], given: Given) -> Made:
        """What the model makes of it. Raises Internal, with the model's own error as the cause."""
        run = asyncio.get_running_loop().run_in_executor(thread, work, given)
        run.add_done_callback(_heard)
        await asyncio.wait({run})
        if error := run.exception():
            log.error("embedding.failed", model=self._model.name, exc_info=error)
            raise Internal("the embedding model failed", model=self._model.name) from error
        return run.result()


@asynccontextmanager
async def batching(model: VectorModel, limits: Limits) -> AsyncIterator[BatchingEmbedder]:
    """An embedder that serves in the block."""
    embedder = BatchingEmbedder(model, limits)
    try:
        async with supervised("embeddings", embedder.run):
            yield embedder
    finally:
        embedder.close()


def _heard(run: asyncio.Future[Made]) -> None:
    """Its caller may have left."""
    if not run.cancelled():
        run.exception()


def _hand_out(text: Waiting, computed: Computed) -> None:
    request = text.request
    request.computed[text.place] = computed
    request.left -= 1
    if not request.left and not request.done.done():
        request.done.set_result(None)


def _fail(request: _Request, error: MeshError) -> None:
    if not request.done.done():
        request.done.set_exception(error)
