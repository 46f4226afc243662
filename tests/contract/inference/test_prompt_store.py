"""What the registry of prompts may rely on, whichever store it has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import asyncpg
import pytest

from services.inference.prompts.content import Content, Template, Variable, VariableType, digest
from services.inference.prompts.resolution import Selector, Target
from services.inference.prompts.store import PromptGeneration, PromptStore, PromptVersion
from services.inference.prompts.store_memory import MemoryPromptStore
from services.inference.prompts.store_postgres import PostgresPromptStore
from services.inference.providers.contract import Role
from shared.paging import Page
from shared.postgres import open_database
from tests.support.forged import NUMBERS, PLACES, ROWS, refused

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
NEWEST = Selector()


@pytest.fixture(params=["memory", "postgres"])
def dsn(request: pytest.FixtureRequest) -> str | None:
    return request.getfixturevalue("postgres").dsn("inference") if request.param == "postgres" else None


@pytest.fixture
async def store(dsn: str | None) -> AsyncIterator[PromptStore]:
    if dsn is None:
        yield MemoryPromptStore()
        return
    async with open_database(dsn, pool=4) as database:
        yield PostgresPromptStore(database)


@pytest.fixture
def tenant() -> str:
    return f"tenant-{uuid4()}"


def version(text: str = 'About {{topic}}, ünïcode 💡 \\ "quoted"', name: str = "greeting") -> PromptVersion:
    variables = (
        Variable("options", VariableType.JSON, default={"b": [1, 2.5, None], "a": "ü"}),
        Variable("topic", VariableType.STRING, "what it is about"),
    )
    content = Content(
        (Template(Role.SYSTEM, "Be kind."), Template(Role.USER, text, "Athena")), variables,
        {"temperature": 0.1, "top": {"z": 1, "a": [True, 1e22]}, "big": 2**53},
    )  # fmt: skip
    return PromptVersion(name, digest(content), content, "why", "ada", NOON)


async def added(store: PromptStore, tenant: str, text: str, *labels: str, name: str = "greeting") -> PromptVersion:
    return (await store.add(tenant, version(text, name), labels=labels))[0]


async def test_a_version_comes_back_as_it_was_written(store: PromptStore, tenant: str) -> None:
    wanted = version()
    stored, new = await store.add(tenant, wanted, labels=["staging", "production"])
    found = await store.version(tenant, "greeting", NEWEST)
    assert (stored, new) == (found, True)
    assert (stored.number, stored.labels) == (1, ("production", "staging"))
    assert stored.content == wanted.content
    assert digest(stored.content) == stored.digest == wanted.digest
    assert (stored.comment, stored.author, stored.created_at) == ("why", "ada", NOON)


async def test_the_same_content_is_the_same_version_and_only_labels_move(store: PromptStore, tenant: str) -> None:
    first = await added(store, tenant, "one")
    again, new = await store.add(tenant, version("one"), labels=["production"])
    assert (again.number, again.digest, new, again.labels) == (1, first.digest, False, ("production",))


async def test_a_version_is_selected_by_number_digest_or_age(store: PromptStore, tenant: str) -> None:
    one, two = await added(store, tenant, "one"), await added(store, tenant, "two")
    for selector, expected in (
        (Selector(number=1), one),
        (Selector(digest=two.digest), two),
        (Selector(digest=one.digest[:12]), one),
        (NEWEST, two),
    ):
        found = await store.version(tenant, "greeting", selector)
        assert found
        assert found.digest == expected.digest
    assert await store.version(tenant, "greeting", Selector(number=3)) is None
    assert await store.version(tenant, "greeting", Selector(digest="f" * 64)) is None
    assert await store.version(tenant, "other", NEWEST) is None


async def test_versions_are_listed_newest_first_a_page_at_a_time(store: PromptStore, tenant: str) -> None:
    for text in "abcde":
        await added(store, tenant, text)
    first = await store.versions(tenant, "greeting", Page(2))
    rest = await store.versions(tenant, "greeting", Page(9, ("4",)))
    assert [one.number for one in first] == [5, 4, 3]  # one more than asked tells that there is more
    assert [one.number for one in rest] == [3, 2, 1]
    assert list(await store.versions(tenant, "greeting", Page(9, ("9" * 18,)))) == list(
        await store.versions(tenant, "greeting", Page(9))
    )
    await refused(lambda page: store.versions(tenant, "greeting", page), NUMBERS)


async def test_prompts_are_listed_by_name_each_as_its_newest(store: PromptStore, tenant: str) -> None:
    for name in ("b", "A", "a", "a"):
        await added(store, tenant, f"{name}{uuid4()}", name=name)
    found = await store.newest(tenant, Page(2))
    assert [(one.name, one.number) for one in found] == [("A", 1), ("a", 2), ("b", 1)]
    assert [one.name for one in await store.newest(tenant, Page(2, ("a",)))] == ["b"]
    await refused(lambda page: store.newest(tenant, page), ROWS)


async def test_a_label_moves_splits_and_goes_away(store: PromptStore, tenant: str) -> None:
    one, two = await added(store, tenant, "one", "production"), await added(store, tenant, "two")
    split = [Target(two.digest, 3), Target(one.digest, 7)]
    await store.point(tenant, "greeting", "production", split)
    assert dict(await store.labels(tenant, "greeting")) == {"production": tuple(split)}
    found = await store.version(tenant, "greeting", NEWEST)
    assert found
    assert found.labels == ("production",)
    await store.point(tenant, "greeting", "production", [])
    await store.point(tenant, "greeting", "never-there", [])
    assert dict(await store.labels(tenant, "greeting")) == {}


async def test_the_first_tie_of_a_generation_stays(store: PromptStore, tenant: str) -> None:
    one, two = await added(store, tenant, "one"), await added(store, tenant, "two")
    first = PromptGeneration("gen_1", "greeting", one.digest, "production", NOON)
    assert await store.tied(tenant, "gen_1") is None
    assert await store.tie(tenant, first) == first
    assert await store.tie(tenant, PromptGeneration("gen_1", "greeting", two.digest, "", NOON)) == first
    assert await store.tied(tenant, "gen_1") == first


async def test_generations_are_listed_by_version_newest_first(store: PromptStore, tenant: str) -> None:
    one, two = await added(store, tenant, "one"), await added(store, tenant, "two")
    for number in range(5):
        which = one if number % 2 else two
        at = NOON + timedelta(seconds=number // 2)
        await store.tie(tenant, PromptGeneration(f"gen_{number}", "greeting", which.digest, "", at))
    every = await store.generations(tenant, "greeting", digest="", page=Page(10))
    assert [tied.generation_id for tied in every] == ["gen_4", "gen_3", "gen_2", "gen_1", "gen_0"]
    mine = await store.generations(tenant, "greeting", digest=one.digest, page=Page(10))
    assert [tied.generation_id for tied in mine] == ["gen_3", "gen_1"]
    cursor = (every[1].created_at.isoformat(), every[1].generation_id)
    rest = await store.generations(tenant, "greeting", digest="", page=Page(1, cursor))
    assert [tied.generation_id for tied in rest] == ["gen_2", "gen_1"]
    await refused(lambda page: store.generations(tenant, "greeting", digest="", page=page), PLACES)


async def test_tenants_do_not_see_each_other(store: PromptStore, tenant: str) -> None:
    one = await added(store, tenant, "one", "production")
    other = f"{tenant}-other"
    assert await store.version(other, "greeting", NEWEST) is None
    assert dict(await store.labels(other, "greeting")) == {}
    theirs = await added(store, other, "one")
    assert (theirs.number, theirs.digest, theirs.labels) == (1, one.digest, ())
    await store.tie(tenant, PromptGeneration("gen_1", "greeting", one.digest, "", NOON))
    assert await store.tied(other, "gen_1") is None
    assert list(await store.generations(other, "greeting", digest="", page=Page())) == []


async def test_many_writers_at_once_count_without_gaps(store: PromptStore, tenant: str) -> None:
    stored = await asyncio.gather(*(store.add(tenant, version(f"{n % 6}"), labels=["production"]) for n in range(24)))
    assert sum(new for _, new in stored) == 6
    assert {one.number for one, _ in stored} == {1, 2, 3, 4, 5, 6}
    assert [len(targets) for targets in (await store.labels(tenant, "greeting")).values()] == [1]


@pytest.fixture
def address(request: pytest.FixtureRequest) -> str:
    dsn: str = request.getfixturevalue("postgres").dsn("inference")
    return dsn


@pytest.mark.parametrize("table", ["prompt_version", "prompt_generation"])
async def test_the_database_itself_keeps_versions_and_ties_as_they_are(address: str, tenant: str, table: str) -> None:
    async with open_database(address, pool=1) as database:
        store = PostgresPromptStore(database)
        one = await added(store, tenant, "one")
        await store.tie(tenant, PromptGeneration("gen_1", "greeting", one.digest, "", NOON))
        async with database.tenant(tenant) as connection:
            assert await connection.execute(f"update {table} set created_at = now()") == "UPDATE 0"
            assert await connection.execute(f"delete from {table}") == "DELETE 0"


async def test_the_database_refuses_a_digest_that_is_not_of_the_content(address: str, tenant: str) -> None:
    async with open_database(address, pool=1) as database:
        with pytest.raises(asyncpg.CheckViolationError):
            async with database.tenant(tenant) as connection:
                await connection.execute(
                    "insert into prompt_version values ($1, 'x', $2, 1, '{}', '', '', now())", tenant, "0" * 64
                )
