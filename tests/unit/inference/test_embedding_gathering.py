"""Texts of a tenant's callers share requests to a provider; each has its own vectors, tokens and failures."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from services.inference.embeddings import gathering
from services.inference.embeddings.contract import Embedded
from services.inference.embeddings.gathering import GatheringEmbedder
from services.inference.errors import ProviderRejected, ProviderUnavailable
from shared.errors import Internal, MeshError

TENANT = ContextVar("tenant", default="acme")
LONG = timedelta(seconds=20)


@dataclass(slots=True)
class Model:
    """The length of a text as its vector, and a token a letter; waits while it is held."""

    free: asyncio.Event = field(default_factory=asyncio.Event)
    heard: list[list[str]] = field(default_factory=list)
    left: int = 0
    failure: Exception | None = None

    async def embed(self, texts: Sequence[str]) -> Embedded:
        self.heard.append(list(texts))
        try:
            await self.free.wait()
        except asyncio.CancelledError:
            self.left += 1
            raise
        if self.failure:
            raise self.failure
        if "bad" in texts:
            raise ProviderRejected("a text is refused")
        cut = tuple(place for place, text in enumerate(texts) if len(text) > 5)
        return Embedded(tuple((float(len(text)),) for text in texts), sum(map(len, texts)), len(cut), cut)


@pytest.fixture
async def model() -> Model:
    return Model()


@pytest.fixture
def gathered(model: Model) -> GatheringEmbedder:
    return GatheringEmbedder(model, wait=timedelta(milliseconds=30), tenant=TENANT.get)


async def called(embedder: GatheringEmbedder, *texts: str, tenant: str = "acme") -> asyncio.Task[Embedded]:
    TENANT.set(tenant)
    task = asyncio.create_task(embedder.embed(texts))
    await asyncio.sleep(0)
    return task


def together(embedder: GatheringEmbedder, *texts: str) -> list[asyncio.Task[Embedded]]:
    return [asyncio.create_task(embedder.embed([text])) for text in texts]


async def heard(model: Model, count: int) -> None:
    async with asyncio.timeout(5):
        while len(model.heard) < count:
            await asyncio.sleep(0.001)


async def test_who_is_alone_is_served_at_once_and_by_the_providers_count(model: Model) -> None:
    model.free.set()
    async with asyncio.timeout(5):
        found = await GatheringEmbedder(model, wait=LONG, tenant=TENANT.get).embed(["abc"])
    assert found == Embedded(((3.0,),), 3, 0)


async def test_callers_of_one_moment_share_a_request_and_pay_for_their_own_part(
    model: Model, gathered: GatheringEmbedder
) -> None:
    alone = await called(gathered, "a")
    await heard(model, 1)
    asked = [("four",), ("eleven", "four"), ("x" * 400,)]
    sharing = [await called(gathered, *texts) for texts in asked]
    await heard(model, 2)
    model.free.set()
    found = await asyncio.gather(alone, *sharing)
    assert model.heard == [["a"], ["four", "eleven", "four", "x" * 400]]
    assert [one.vectors for one in found[1:]] == [((4.0,),), ((6.0,), (4.0,)), ((400.0,),)]
    assert [(one.truncated, one.cut) for one in found[1:]] == [(0, ()), (1, (0,)), (1, (0,))]
    tokens = [one.tokens for one in found[1:]]
    assert sum(tokens) == 414
    assert tokens == sorted(tokens)
    assert [one.estimated for one in found] == [False, True, True, True]


async def test_while_many_requests_are_under_way_the_next_waits_longer_for_company(model: Model) -> None:
    embedder = GatheringEmbedder(model, wait=timedelta(milliseconds=100), tenant=TENANT.get)
    calls = list[asyncio.Task[Embedded]]()
    for place in range(4):
        calls.append(await called(embedder, str(place)))
        await heard(model, place + 1)
    for late in ("five", "six"):
        calls.append(await called(embedder, late))
        await asyncio.sleep(0.2)
    await heard(model, 5)
    model.free.set()
    await asyncio.gather(*calls)
    assert model.heard[4:] == [["five", "six"]]


async def test_texts_of_two_tenants_never_leave_together(model: Model, gathered: GatheringEmbedder) -> None:
    for name in ("acme", "umbra"):
        await called(gathered, "first", tenant=name)
    await heard(model, 2)
    calls = [await called(gathered, f"{name}{place}", tenant=name) for name in ("acme", "umbra") for place in range(2)]
    await heard(model, 4)
    model.free.set()
    await asyncio.gather(*calls)
    assert model.heard[2:] == [["acme0", "acme1"], ["umbra0", "umbra1"]]


async def test_one_bad_text_fails_its_own_caller_alone(model: Model, gathered: GatheringEmbedder) -> None:
    first = await called(gathered, "first")
    await heard(model, 1)
    calls = [await called(gathered, text) for text in ("one", "bad", "three")]
    model.free.set()
    found = await asyncio.gather(first, *calls, return_exceptions=True)
    assert [type(one) for one in found] == [Embedded, Embedded, ProviderRejected, Embedded]
    assert model.heard == [["first"], ["one", "bad", "three"], ["one"], ["bad"], ["three"]]


@pytest.mark.parametrize(
    ("failure", "seen"),
    [(ProviderUnavailable("away"), ProviderUnavailable), (ZeroDivisionError(), Internal)],
    ids=["of the provider", "a fault of ours"],
)
async def test_any_other_failure_is_everybodys_and_nobody_waits_for_ever(
    model: Model, gathered: GatheringEmbedder, failure: Exception, seen: type[MeshError]
) -> None:
    model.failure = failure
    calls = together(gathered, "one", "two")
    model.free.set()
    async with asyncio.timeout(5):
        found = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(one) for one in found] == [seen, seen]
    assert model.heard == [["one", "two"]]


async def test_what_nobody_waits_for_any_more_is_not_asked_or_called_off(
    model: Model, gathered: GatheringEmbedder
) -> None:
    one, two = together(gathered, "one", "two")
    await heard(model, 1)
    one.cancel()
    late = await called(gathered, "late")
    late.cancel()
    await asyncio.wait({one, late})
    assert model.left == 0
    two.cancel()
    await asyncio.wait({two})
    await asyncio.sleep(0.05)
    assert (model.left, model.heard) == (1, [["one", "two"]])
    model.free.set()
    assert (await gathered.embed(["after"])).tokens == 5


async def test_a_request_is_no_larger_than_the_provider_takes(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "MAX_INPUTS", 3)
    monkeypatch.setattr(gathering, "MAX_BYTES", 8)
    embedder = GatheringEmbedder(model, wait=timedelta(milliseconds=30), tenant=TENANT.get)
    await called(embedder, "first")
    await heard(model, 1)
    calls = [await called(embedder, *texts) for texts in (("a", "b"), ("c", "d"), ("eeeeeee",), ("far too long",))]
    await heard(model, 5)
    model.free.set()
    await asyncio.gather(*calls)
    assert sorted(model.heard[1:]) == [["a", "b"], ["c", "d"], ["eeeeeee"], ["far too long"]]
