"""Logs that moved to the object store are read, watched, exported, replayed and judged as before, on every store."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agentnet.orchestrator.v1 import event_pb2
from services.orchestrator.archives import Archive, Archivist
from services.orchestrator.histories import Histories
from services.orchestrator.store import Entry, SessionFilter
from services.orchestrator.tail_memory import MemoryTail
from services.orchestrator.watch import Watcher
from shared.clock import FakeClock
from shared.errors import MeshError
from shared.objects import FolderObjects, objects
from shared.paging import Page
from tests.contract.orchestrator.conftest import Stores
from tests.contract.orchestrator.test_checkpoints import s3_url
from tests.contract.orchestrator.test_kills import drive, driver, started
from tests.support.orchestrator import TENANT, World

__all__ = ("s3_url",)

DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Kept:
    """A store with an archive in a folder, and a session of it that ended."""

    stores: Stores
    world: World
    archive: Archive
    folder: Path

    async def tenants(self) -> list[str]:
        return [TENANT, "other"]

    async def move(self, *, after: timedelta) -> int:
        """Archives what ended so long ago; how many logs those were."""
        clock = FakeClock(datetime.now(UTC) + DAY)
        archivist = Archivist(self.stores.sessions, self.archive, self, clock, after, DAY)
        return await archivist.move()

    async def log(self, after: int = 0) -> list[Entry]:
        return list(await self.stores.sessions.read(TENANT, "ses_1", after, limit=1000))

    @property
    def histories(self) -> Histories:
        return Histories(self.stores.sessions, self.world.agents, self.world.clock, self.world.ids, 5)


@pytest.fixture
async def kept(stores: Stores, tmp_path: Path) -> Kept:
    archive, sessions = Archive(FolderObjects(tmp_path)), stores.sessions
    sessions._archive = archive  # type: ignore[attr-defined] # both have one
    world = World()
    await started(world, stores, "ses_1")
    assert await drive(driver(world, sessions, MemoryTail()), stores, "one")
    return Kept(stores, world, archive, tmp_path)


async def test_a_log_that_moved_is_read_from_any_place_byte_for_byte(kept: Kept) -> None:
    before = await kept.log()
    assert await kept.move(after=timedelta()) == 1
    assert [path.name for path in kept.folder.rglob("*.json")] == ["ses_1.json"]
    assert [(one.sequence, one.payload) for one in await kept.log()] == [(one.sequence, one.payload) for one in before]
    assert [one.sequence for one in await kept.log(after=5)] == [one.sequence for one in before[5:]]
    assert await kept.log(after=len(before)) == []


async def test_a_log_moves_to_a_bucket_as_to_a_folder(kept: Kept, s3_url: str) -> None:
    bucket = Archive(objects(f"s3://runs/{kept.folder.name}?endpoint={s3_url}", what="the archive"))
    kept.stores.sessions._archive = bucket  # type: ignore[attr-defined] # both have one
    before = [one.payload for one in await kept.log()]
    assert await replace(kept, archive=bucket).move(after=timedelta()) == 1
    bucket._read.clear()
    assert [one.payload for one in await kept.log()] == before
    assert (await kept.histories.audit(TENANT, "ses_1")).chain.intact
    assert not list(kept.folder.rglob("*.json"))


async def test_sessions_are_listed_by_where_their_log_lies(kept: Kept) -> None:
    await started(kept.world, kept.stores, "ses_2")

    async def listed(archived: bool | None) -> list[str]:
        chosen = SessionFilter(archived=archived, newest_first=False)
        return sorted(one.id for one in await kept.stores.sessions.every(TENANT, chosen, page=Page()))

    assert await listed(archived=True) == []
    await kept.move(after=timedelta())
    assert [await listed(one) for one in (True, False, None)] == [["ses_1"], ["ses_2"], ["ses_1", "ses_2"]]


async def test_what_moved_is_gone_from_the_store_and_moves_once(kept: Kept) -> None:
    await kept.move(after=timedelta())
    (path,) = kept.folder.rglob("*.json")
    path.rename(path.with_suffix(".away"))
    kept.archive._read.clear()
    with pytest.raises(MeshError):
        await kept.log()
    assert await kept.move(after=timedelta()) == 0


async def test_what_has_not_ended_long_enough_ago_or_not_at_all_stays(kept: Kept) -> None:
    await started(kept.world, kept.stores, "ses_2")
    assert await kept.move(after=100 * 365 * DAY) == 0
    assert await kept.move(after=timedelta()) == 1
    await kept.stores.sessions.let_go(TENANT, "ses_2")
    assert [one.sequence for one in await kept.stores.sessions.read(TENANT, "ses_2", 0, limit=9)] == [1]


async def test_a_log_that_moved_is_exported_replayed_and_judged_as_before(kept: Kept) -> None:
    histories = kept.histories
    document, report = await histories.export(TENANT, "ses_1"), await histories.audit(TENANT, "ses_1")
    await kept.move(after=timedelta())
    assert (await histories.export(TENANT, "ses_1")).log_hash == document.log_hash
    assert (await histories.replay(TENANT, "ses_1")).identical
    again = await histories.audit(TENANT, "ses_1")
    assert (again.chain.intact, again.chain.events) == (True, report.chain.events)


async def test_an_edited_archive_is_found_out(kept: Kept) -> None:
    await kept.move(after=timedelta())
    sealed = list(await kept.archive.log(TENANT, "ses_1"))
    other = event_pb2.SessionEvent.FromString(sealed[3].payload)
    other.actor = "mallory"
    sealed[3] = type(sealed[3])(sealed[3].sequence, sealed[3].kind, other.SerializeToString(), sealed[3].mac)
    await kept.archive.put(TENANT, "ses_1", sealed)
    kept.archive._read.clear()
    report = await kept.stores.sessions.check_chain(TENANT, "ses_1")
    assert (report.intact, report.sequence, report.fault) == (False, 4, "edited")


async def test_a_reader_of_a_log_that_moved_sees_it_to_its_end(kept: Kept) -> None:
    await kept.move(after=timedelta())
    watcher = Watcher(kept.stores.sessions, MemoryTail(), poll=timedelta(seconds=1))
    async with asyncio.timeout(5), aclosing(watcher.watch(TENANT, "ses_1", after=3, heartbeat=DAY)) as entries:
        seen: list[Any] = [entry async for entry in entries]
    assert seen[0].sequence == 4
    assert seen[-1].kind == "session_finished"


async def test_another_tenant_reads_nothing_of_the_archive(kept: Kept) -> None:
    await kept.move(after=timedelta())
    assert await kept.stores.sessions.read("other", "ses_1", 0, limit=9) == []
