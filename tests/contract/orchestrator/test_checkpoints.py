"""What checkpoints may rely on, wherever they are kept: memory, files, Postgres, an S3 server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from services.orchestrator.checkpoints.places import checkpoint_store
from services.orchestrator.checkpoints.store import CheckpointFilter, CheckpointStore
from services.orchestrator.checkpoints.store_file import FileCheckpointStore
from services.orchestrator.checkpoints.store_memory import MemoryCheckpointStore
from services.orchestrator.checkpoints.store_s3 import S3CheckpointStore
from shared.errors import Unavailable
from shared.paging import Page
from shared.postgres import open_database

ALL = CheckpointFilter()
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "tests", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    """A local S3 server with one bucket."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        url = f"http://{host}:{port}"
        boto3.client("s3", endpoint_url=url).create_bucket(Bucket="runs")
        yield url
    server.stop()


@pytest.fixture(params=["memory", "file", "postgres", "s3"])
async def kept(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[CheckpointStore]:
    match request.param:
        case "memory":
            yield MemoryCheckpointStore()
        case "file":
            yield FileCheckpointStore(tmp_path / "checkpoints")
        case "s3":
            yield S3CheckpointStore("runs", prefix=f"{tmp_path.name}/", endpoint=request.getfixturevalue("s3_url"))
        case _:
            cluster = request.getfixturevalue("postgres")
            async with open_database(cluster.dsn("orchestrator"), pool=2) as database:
                yield checkpoint_store("postgres", database)
                async with database.tenant("acme") as connection:
                    await connection.execute("delete from checkpoint")


def data(number: int, *, agent: str = "Athena", run: str = "tgr_1", **parts: Any) -> dict[str, Any]:
    made = {"id": f"chk_{number}", "agent_name": agent, "run_id": run, "version": "1.1"}
    return {**made, "messages": [{"role": "assistant", "content": "Größe ✓"}], "total_cost_micros_usd": "7", **parts}


async def filled(kept: CheckpointStore) -> None:
    for number, agent, run in (
        (1, "Athena", "tgr_1"),
        (2, "Apollo", "tgr_1"),
        (3, "Athena", "tgr_2"),
        (4, "Apollo, Athena", "tgr_1"),
    ):
        await kept.save("acme", f"chk_{number}", data(number, agent=agent, run=run))


async def test_a_checkpoint_comes_back_as_it_was_saved(kept: CheckpointStore) -> None:
    await kept.save("acme", "chk_1", data(1))
    assert await kept.load("acme", "chk_1") == data(1)
    assert await kept.load("acme", "chk_2") is None


async def test_a_checkpoint_saved_again_is_replaced(kept: CheckpointStore) -> None:
    await kept.save("acme", "chk_1", data(1))
    await kept.save("acme", "chk_1", data(1, iteration_count=2))
    assert await kept.load("acme", "chk_1") == data(1, iteration_count=2)
    assert len(await kept.every("acme", ALL, page=Page())) == 1


async def test_checkpoints_are_listed_newest_first_by_agent_and_by_run(kept: CheckpointStore) -> None:
    await filled(kept)

    async def ids(**chosen: str) -> list[str]:
        found = await kept.every("acme", CheckpointFilter(**chosen), page=Page())
        return [one["id"] for one in found]

    assert await ids() == ["chk_4", "chk_3", "chk_2", "chk_1"]
    assert await ids(agent_name="Athena") == ["chk_4", "chk_3", "chk_1"]
    assert await ids(agent_name="Apollo") == ["chk_4", "chk_2"]
    assert await ids(run_id="tgr_1") == ["chk_4", "chk_2", "chk_1"]
    assert await ids(agent_name="Athena", run_id="tgr_1") == ["chk_4", "chk_1"]
    assert await ids(agent_name="Hermes") == []


async def test_a_list_goes_on_after_the_last_one_seen(kept: CheckpointStore) -> None:
    await filled(kept)
    first = await kept.every("acme", ALL, page=Page(size=2))
    rest = await kept.every("acme", ALL, page=Page(size=2, cursor=(first[1]["id"],)))
    assert [one["id"] for one in first] == ["chk_4", "chk_3", "chk_2"]
    assert [one["id"] for one in rest] == ["chk_2", "chk_1"]


async def test_a_deleted_checkpoint_is_gone_for_good(kept: CheckpointStore) -> None:
    await filled(kept)
    assert await kept.delete("acme", "chk_2")
    assert not await kept.delete("acme", "chk_2")
    assert await kept.load("acme", "chk_2") is None
    assert [one["id"] for one in await kept.every("acme", ALL, page=Page())] == ["chk_4", "chk_3", "chk_1"]


async def test_another_tenant_sees_and_deletes_nothing(kept: CheckpointStore) -> None:
    await filled(kept)
    assert await kept.load("other", "chk_1") is None
    assert await kept.every("other", ALL, page=Page()) == []
    assert not await kept.delete("other", "chk_1")
    assert await kept.load("acme", "chk_1") is not None


async def test_a_place_that_does_not_answer_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    blocked = tmp_path / "a file"
    blocked.write_text("")
    gone = S3CheckpointStore("runs", endpoint="http://127.0.0.1:1")
    for place in (FileCheckpointStore(blocked), gone):
        with pytest.raises(Unavailable):
            await place.save("acme", "chk_1", data(1))


async def test_an_object_store_that_refuses_is_unavailable(s3_url: str) -> None:
    with pytest.raises(Unavailable, match="refuses") as raised:
        await S3CheckpointStore("no-such-bucket", endpoint=s3_url).save("acme", "chk_1", data(1))
    assert raised.value.facts["cause"] == "NoSuchBucket"
    with pytest.raises(Unavailable):
        await S3CheckpointStore("no-such-bucket", endpoint=s3_url).load("acme", "chk_1")


def test_a_setting_names_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    nowhere: Any = None
    assert isinstance(checkpoint_store("file:///var/checkpoints", nowhere), FileCheckpointStore)
    found = checkpoint_store("s3://runs/deep/er?endpoint=http://127.0.0.1:9000", nowhere)
    assert isinstance(found, S3CheckpointStore)
    assert (found._bucket, found._prefix, found._client.meta.endpoint_url) == (
        "runs",
        "deep/er/",
        "http://127.0.0.1:9000",
    )
    assert isinstance(checkpoint_store("s3://runs", nowhere), S3CheckpointStore)
    for wrong in ("", "file://", "ftp://host", "s3:///prefix"):
        with pytest.raises(ValueError, match="checkpoints are kept in"):
            checkpoint_store(wrong, nowhere)
