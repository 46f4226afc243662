"""What a log's live end holds to, in memory and in Redis."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from services.orchestrator.errors import LeaseLost
from services.orchestrator.store import Entry, Lease, LogTail
from services.orchestrator.tail import RedisTail
from shared.errors import Unavailable
from shared.redis import open_redis

OLD = Lease("acme", "ses_1", "one", fence=1, takeovers=0)
NEW = Lease("acme", "ses_1", "two", fence=2, takeovers=1)


def entries(*sequences: int, by: str = "") -> list[Entry]:
    return [Entry(sequence, "", f"{by}{sequence}".encode()) for sequence in sequences]


async def read(tail: LogTail, after: int = 0) -> list[Entry]:
    return list(await tail.read("acme", "ses_1", after))


async def test_what_was_written_is_read_after_any_place(tail: LogTail) -> None:
    await tail.append(OLD, entries(1, 2))
    await tail.append(OLD, [Entry(3, "", b"\x00\xff\r\n")])
    assert await read(tail) == [*entries(1, 2), Entry(3, "", b"\x00\xff\r\n")]
    assert await read(tail, 2) == [Entry(3, "", b"\x00\xff\r\n")]
    assert await read(tail, 3) == []


async def test_nothing_is_read_across_a_gap(tail: LogTail) -> None:
    await tail.append(OLD, entries(1, 2, 4))
    assert await read(tail) == entries(1, 2)
    assert await read(tail, 2) == []


async def test_another_tenant_reads_nothing(tail: LogTail) -> None:
    await tail.append(OLD, entries(1))
    assert await tail.read("other", "ses_1", 0) == []


async def test_a_repeated_write_changes_nothing(tail: LogTail) -> None:
    await tail.append(OLD, entries(1, 2))
    assert await tail.append(OLD, entries(1, 2, by="again")) is not None
    assert await read(tail) == entries(1, 2)


async def test_a_lower_fence_is_refused_after_a_take_over(tail: LogTail) -> None:
    await tail.append(OLD, entries(1))
    assert await tail.take_over(NEW, 0) == entries(1)

    assert await tail.append(OLD, entries(2, by="late")) is None
    with pytest.raises(LeaseLost):
        await tail.take_over(OLD, 0)

    assert await read(tail) == entries(1)


async def test_a_take_over_adopts_what_follows_without_a_gap_and_forgets_the_rest(tail: LogTail) -> None:
    await tail.append(OLD, entries(2, 3, 5))

    adopted = await tail.take_over(NEW, 1)
    await tail.append(NEW, entries(4, 5, by="new"))

    assert adopted == entries(2, 3)
    assert await read(tail, 1) == [*entries(2, 3), *entries(4, 5, by="new")]


async def test_a_new_owner_that_never_took_over_starts_anew(tail: LogTail) -> None:
    await tail.append(OLD, entries(2, 3, 4, by="old"))
    await tail.append(NEW, entries(2, by="new"))
    assert await read(tail, 1) == entries(2, by="new")


async def test_committed_events_are_let_go(tail: LogTail) -> None:
    await tail.append(OLD, entries(*range(1, 6)))
    await tail.append(OLD, entries(6), keep_from=4)
    assert await read(tail) == []
    assert await read(tail, 3) == entries(4, 5, 6)


async def test_it_tells_whether_an_event_is_there(tail: LogTail) -> None:
    await tail.append(OLD, entries(1, 2))
    assert [await tail.holds("acme", "ses_1", sequence) for sequence in (2, 3)] == [True, False]


async def test_readers_in_redis_are_woken_by_any_writer(redis: Redis) -> None:
    reader, writer = (RedisTail(redis, ttl=timedelta(minutes=1)) for _ in range(2))
    listening = asyncio.create_task(reader.listen())
    try:
        with reader.woken("acme", "ses_1") as first, reader.woken("acme", "ses_1") as second:
            await _subscribed(redis, "log:acme:ses_1", 1)
            await writer.append(OLD, entries(1))
            await asyncio.wait_for(asyncio.gather(first.wait(), second.wait()), 2)
        await _subscribed(redis, "log:acme:ses_1", 0)
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


async def test_who_begins_to_read_elsewhere_is_woken_though_the_writer_says_nothing(redis: Redis) -> None:
    reader, writer = (RedisTail(redis, ttl=timedelta(minutes=1)) for _ in range(2))
    listening = [asyncio.create_task(one.listen()) for one in (reader, writer)]
    try:
        await _subscribed(redis, "log:came", 2)
        came = writer.reader_came("acme", "ses_1")
        with reader.woken("acme", "ses_1") as woken:
            await asyncio.wait_for(asyncio.gather(came.wait(), woken.wait()), 2)
    finally:
        for one in listening:
            one.cancel()
        await asyncio.gather(*listening, return_exceptions=True)


async def test_it_tells_whether_somebody_reads_here_or_elsewhere(redis: Redis) -> None:
    reader, writer = (RedisTail(redis, ttl=timedelta(minutes=1)) for _ in range(2))
    listening = asyncio.create_task(reader.listen())
    try:
        assert await writer.readers("acme", "ses_1") == 0
        with reader.woken("acme", "ses_1"):
            await _subscribed(redis, "log:acme:ses_1", 1)
            assert [await tail.readers("acme", "ses_1") for tail in (reader, writer)] == [1, 1]
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


async def test_readers_where_a_log_is_written_hear_nothing_of_it_from_redis(redis: Redis) -> None:
    tail = RedisTail(redis, ttl=timedelta(minutes=1))
    listening = asyncio.create_task(tail.listen())
    async with redis.pubsub() as other:
        await other.psubscribe("log:acme:*")
        try:
            with tail.woken("acme", "ses_1") as woken:
                await _subscribed(redis, "log:acme:ses_1", 1)
                came = tail.reader_came("acme", "ses_2")  # what is told later is heard later
                await redis.publish("log:came", "log:acme:ses_2")
                await asyncio.wait_for(came.wait(), 2)
                assert await tail.append(OLD, entries(1)) == 1
                tail.wake(OLD, entries(2))
                assert woken.is_set()
                await redis.flushall()
                assert await read(tail) == entries(1, 2)
                told = [await other.get_message(timeout=0.05) for _ in range(3)]
                assert [one["type"] for one in told if one] == ["psubscribe"]
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)


async def test_a_writer_goes_on_when_its_connection_breaks_or_the_script_is_gone(redis: Redis) -> None:
    tail = RedisTail(redis, ttl=timedelta(minutes=1))
    assert await tail.append(OLD, entries(1)) == 0
    await redis.client_kill_filter(_type="normal", skipme=True)
    assert await tail.append(OLD, entries(2)) == 0
    await redis.script_flush()
    assert await tail.append(OLD, entries(3)) == 0
    assert await read(tail) == entries(1, 2, 3)


async def test_live_events_end_with_their_time_to_live(redis: Redis) -> None:
    await RedisTail(redis, ttl=timedelta(seconds=90)).append(OLD, entries(1))
    assert 85 < await redis.ttl("log:acme:ses_1") <= 90
    assert 85 < await redis.ttl("log:acme:ses_1:fence") <= 90


async def test_without_redis_writing_goes_on_and_only_certainty_is_refused() -> None:
    async with open_redis("redis://127.0.0.1:1/0") as nowhere:
        gone = RedisTail(nowhere, ttl=timedelta(minutes=1))
        assert await gone.append(OLD, entries(1)) == 0
        assert await gone.take_over(NEW, 0) == []
        assert await read(gone) == []
        with pytest.raises(Unavailable):
            await gone.holds("acme", "ses_1", 1)


async def _subscribed(redis: Any, channel: str, count: int) -> None:
    async with asyncio.timeout(2):
        while (await redis.pubsub_numsub(channel))[0][1] != count:
            await asyncio.sleep(0.01)
