"""A second look at what was found: by name, in time, and with parts that add up."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from datetime import timedelta
from importlib.metadata import EntryPoint
from typing import Any

import pytest

from services.memory import rerank
from services.memory.rank import LEARNED, Ranked, Taste, ranked
from services.memory.rerank import SecondLook, reranker_named
from services.memory.store import Corpus, Found, Gathered
from tests.support.memory import NOW, memory

PATIENCE = timedelta(seconds=5)


class Shouting:
    """Helps what is written in capitals, by as much as it is told."""

    def __init__(self, part: float = 5.0) -> None:
        self.part = part

    async def parts(self, query: str, found: Sequence[Ranked]) -> Sequence[float]:
        return [self.part if one.memory.content.isupper() else 0.0 for one in found]


class Asleep:
    async def parts(self, query: str, found: Sequence[Ranked]) -> Sequence[float]:
        await asyncio.sleep(60)
        return []


def candidates(*texts: str) -> list[Ranked]:
    """Nearer ones first."""
    pool = [Found(memory(text, place=at), 0.9 - at / 10) for at, text in enumerate(texts, start=1)]
    return ranked("lunch", Gathered(pool, {}, Corpus(9, 2.0, {})), Taste(), now=NOW, limit=9)


async def reordered(reranker: Any, *texts: str, seen: int = 9, least: int = 1, patience: timedelta = PATIENCE) -> Any:
    look = SecondLook(reranker, seen, patience)
    return await look.reordered("lunch", candidates(*texts), least=least)


async def test_what_the_reranker_helps_rises_and_the_parts_still_add_up() -> None:
    before = candidates("quiet words", "LOUD WORDS")
    best, other = await reordered(Shouting(), "quiet words", "LOUD WORDS")
    assert [one.memory.content for one in before] == ["quiet words", "LOUD WORDS"]
    assert best.memory.content == "LOUD WORDS"
    odds = sum(best.explanation.parts.values()) + LEARNED.base
    assert best.relevance == pytest.approx(1 / (1 + math.exp(-odds)), abs=1e-3)
    assert other.relevance == before[0].relevance


async def test_it_sees_the_first_ones_and_never_fewer_than_are_wanted() -> None:
    texts = ("one", "two", "three", "FOUR")
    assert [one.memory.content for one in await reordered(Shouting(), *texts, seen=2)] == ["one", "two"]
    wanted = await reordered(Shouting(), *texts, seen=2, least=4)
    assert [one.memory.content for one in wanted] == ["FOUR", "one", "two", "three"]
    assert await reordered(Shouting()) == []


async def test_one_that_is_late_changes_nothing() -> None:
    found = await reordered(Asleep(), "one", "two", patience=timedelta(milliseconds=1))
    assert [one.memory.content for one in found] == ["one", "two"]


async def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="nan"):
        await reordered(Shouting(math.nan), "LOUD")


async def test_brief_puts_the_short_one_first_where_both_are_as_near() -> None:
    long = "nothing about that meal was said at noon by anyone who was there " * 3
    pool = [Found(memory(text, place=at), 0.5) for at, text in enumerate((long, "noon meal"), start=1)]
    found = ranked("?", Gathered(pool, {}, Corpus(9, 2.0, {})), Taste(), now=NOW, limit=9)
    short = await SecondLook(reranker_named("brief"), 9, PATIENCE).reordered("?", found, least=2)
    parts = {one.memory.content: one.explanation.parts["reranker"] for one in short}
    assert parts["noon meal"] > 0 > parts[long]


def test_a_package_brings_its_own_and_an_unknown_name_ends_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = EntryPoint("shouting", f"{__name__}:Shouting", rerank.GROUP)
    monkeypatch.setattr(rerank, "entry_points", lambda *, group, name="": [mine] if name in {"", "shouting"} else [])
    assert isinstance(reranker_named("shouting"), Shouting)
    with pytest.raises(ValueError, match="no reranker other; this mesh has brief, shouting"):
        reranker_named("other")
