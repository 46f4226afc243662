"""A provider's model, asked for many callers at once: what a tenant's callers want at a time goes in one request.

Never that of two tenants: what a provider refuses, counts or keeps of a request is one tenant's.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import accumulate, pairwise
from typing import Final

from services.inference.embeddings.contract import Embedded, Embedder
from services.inference.embeddings.openai_compatible import MAX_BYTES, MAX_INPUTS
from services.inference.errors import ContentFiltered, ContextTooLong, ProviderRejected
from services.inference.tokenizers import Estimator
from shared.errors import Internal, MeshError
from shared.log import log
from shared.telemetry import meter

_MANY: Final = 4  # requests of a tenant's under way: the next ones are to be fewer and larger
_LONGER: Final = 10
_sizes = meter.create_histogram("embedding_request_callers", description="callers that shared a request to a provider")


@dataclass(slots=True, eq=False)
class _Asked:
    """One caller's texts."""

    texts: Sequence[str]
    done: asyncio.Future[Embedded]

    @property
    def weight(self) -> int:
        """About the tokens of it."""
        estimator = Estimator()
        return sum(estimator.count(text) + 1 for text in self.texts)


@dataclass(slots=True, eq=False)
class _Request:
    """What goes together."""

    asked: list[_Asked] = field(default_factory=list)
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    inputs: int = 0
    size: int = 0
    task: asyncio.Task[None] | None = None

    def took(self, one: _Asked) -> bool:
        """Whether there is room for it; then it is in."""
        inputs, size = len(one.texts), sum(len(text.encode()) for text in one.texts)
        if self.asked and (self.inputs + inputs > MAX_INPUTS or self.size + size > MAX_BYTES):
            return False
        self.asked.append(one)
        self.inputs, self.size = self.inputs + inputs, self.size + size
        return True

    @property
    def wanted(self) -> list[_Asked]:
        """That of callers who have not left."""
        return [one for one in self.asked if not one.done.done()]


class GatheringEmbedder:
    """Who is alone is served at once. While a request of the tenant's is under way, who comes next waits a moment for
    company, ten times as long while there are many. What one caller's texts are refused for is no other's fault: then
    each is asked for alone.
    """

    def __init__(self, embedder: Embedder, *, wait: timedelta, tenant: Callable[[], str]) -> None:
        self._embedder = embedder
        self._wait = wait.total_seconds()
        self._tenant = tenant
        self._open: dict[str, _Request] = {}
        self._under_way = Counter[str]()

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """As the embedder does; of the tokens of a shared request the caller's part, estimated by the texts."""
        one = _Asked(texts, asyncio.get_running_loop().create_future())
        request = self._joined(self._tenant(), one)
        try:
            return await one.done
        finally:
            if request.task and not request.wanted:
                request.task.cancel()

    def _joined(self, tenant: str, one: _Asked) -> _Request:
        request = self._open.get(tenant)
        if request and request.took(one):
            return request
        if request:
            request.closed.set()
        request = self._open[tenant] = _Request()
        request.took(one)
        request.task = asyncio.create_task(self._serve(tenant, request), name="embeddings of a provider")
        request.task.add_done_callback(_heard)
        return request

    async def _serve(self, tenant: str, request: _Request) -> None:
        try:
            if self._under_way[tenant]:
                busy = self._under_way[tenant] >= _MANY
                with suppress(TimeoutError):
                    await asyncio.wait_for(request.closed.wait(), self._wait * (_LONGER if busy else 1))
        finally:
            if self._open.get(tenant) is request:
                del self._open[tenant]
        self._under_way[tenant] += 1
        try:
            await self._ask(request.wanted)
        finally:
            self._under_way[tenant] -= 1
            if not self._under_way[tenant]:
                del self._under_way[tenant]
            for one in request.wanted:
                one.done.set_exception(Internal("the embedding request failed"))

    async def _ask(self, asked: Sequence[_Asked]) -> None:
        _sizes.record(len(asked))
        try:
            found = await self._embedder.embed([text for one in asked for text in one.texts])
        except (ProviderRejected, ContextTooLong, ContentFiltered) as error:
            if len(asked) > 1:
                await asyncio.gather(*(self._ask([one]) for one in asked))
            else:
                _fail(asked, error)
        except MeshError as error:
            _fail(asked, error)
        else:
            for one, part in zip(asked, _parts(found, asked), strict=True):
                if not one.done.done():
                    one.done.set_result(part)


def _heard(task: asyncio.Task[None]) -> None:
    """Its callers were told that it failed, and not of what."""
    if not task.cancelled() and (error := task.exception()):
        log.error("embedding.failed", exc_info=error)


def _fail(asked: Sequence[_Asked], error: MeshError) -> None:
    for one in asked:
        if not one.done.done():
            one.done.set_exception(error)


def _parts(found: Embedded, asked: Sequence[_Asked]) -> list[Embedded]:
    """Each caller's vectors and tokens; these are found's in all."""
    if len(asked) == 1:
        return [found]
    places = list(accumulate((len(one.texts) for one in asked), initial=0))
    weights = list(accumulate((one.weight for one in asked), initial=0))
    tokens = [found.tokens * weight // weights[-1] for weight in weights]
    parts: list[Embedded] = []
    for (start, end), (before, after) in zip(pairwise(places), pairwise(tokens), strict=True):
        cut = tuple(place - start for place in found.cut if start <= place < end)
        parts.append(Embedded(found.vectors[start:end], after - before, len(cut), cut, estimated=True))
    return parts
