"""Generations are owned by the service: read again, from anywhere, called off once, and never paid for twice."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import timedelta

import pytest
from google.protobuf.duration_pb2 import Duration
from redis.asyncio import Redis

from agentnet.common.v1 import error_reason_pb2
from agentnet.inference.v1 import generation_pb2
from agentnet.inference.v1 import inference_service_pb2 as pb
from services.inference.generation import Generation
from services.inference.store_memory import MemoryGenerationStore
from services.inference.tail import GenerationTail
from shared.clock import SystemClock
from shared.redis import open_redis
from shared.tasks import stopped
from tests.service.inference.calls import Code, attached, generated, refusal, said, until
from tests.support.identity import Keys
from tests.support.inference import Replica, kinds, replica, request, text_of
from tests.support.valkey import free_port

MINUTE = Duration(seconds=60)


class SteppedClock(SystemClock):
    """Each look at it takes so long."""

    step = timedelta()
    passed = timedelta()

    def monotonic(self) -> timedelta:
        self.passed += self.step
        return self.passed


async def cancel(served: Replica, keys: Keys, tenant: str = "acme") -> bool:
    wanted = pb.CancelGenerationRequest(generation_id="gen_1")
    answer = await served.stub.CancelGeneration(wanted, metadata=keys.metadata(tenant))
    ended: bool = answer.already_ended
    return ended


async def test_the_same_id_again_is_the_same_generation_and_pays_nothing(served: Replica, keys: Keys) -> None:
    served.model.steps = ["One ", "two."]
    first = await generated(served, keys, request())
    again = await generated(served, keys, request("Something else."))
    assert again == first
    assert (len(served.model.calls), len(served.cost.settled)) == (1, 1)


async def test_the_same_id_many_times_at_once_is_one_call(served: Replica, keys: Keys) -> None:
    served.model.steps = ["One ", "two."]
    found = await asyncio.gather(*(generated(served, keys, request()) for _ in range(20)))
    assert all(events == found[0] for events in found)
    assert (len(served.model.calls), len(served.cost.reserved), len(served.cost.settled)) == (1, 1, 1)


async def test_a_claim_without_a_generation_does_not_outlast_its_mark(
    served: Replica, keys: Keys, redis: Redis
) -> None:
    """As one is left by a replica that died, or lost Redis, between claiming and starting."""
    served.model.steps = ["One ", "two."]
    await redis.set("gen-owner:acme:gen_1", b"1", px=300)
    assert text_of(await generated(served, keys, request())) == "One two."
    assert len(served.cost.settled) == 1


async def test_a_late_reader_gets_all_or_what_it_has_not_seen(served: Replica, keys: Keys) -> None:
    served.model.steps = ["One ", "two."]
    first = await generated(served, keys, request())
    assert await attached(served, keys) == first
    assert await attached(served, keys, after=3) == first[3:]
    assert await attached(served, keys, after=4) == []


async def test_a_whole_answer_can_be_read_again_only_by_an_id_its_caller_gave(
    served: Replica, keys: Keys, redis: Redis
) -> None:
    served.model.steps = ["One ", "two."]
    unnamed = pb.GenerateTextRequest(generation=request(generation_id=""))
    answer = await served.stub.GenerateText(unnamed, metadata=keys.metadata())
    reader = attached(served, keys, answer.generation_id)
    assert said(await refusal(reader)) == (Code.OUT_OF_RANGE, "GENERATION_EXPIRED")

    named = pb.GenerateTextRequest(generation=request(generation_id="named"))
    await served.stub.GenerateText(named, metadata=keys.metadata())
    assert text_of(await attached(served, keys, "named")) == "One two."
    await until(lambda: all(found.flushed for found in served.engine.live()))
    assert await redis.keys("gen:*") == [b"gen:acme:named"]


async def test_a_reader_of_a_live_generation_follows_it_to_the_end(served: Replica, keys: Keys) -> None:
    gate = asyncio.Event()
    served.model.steps = ["One ", gate, "two."]
    first = asyncio.create_task(generated(served, keys, request()))
    await until(lambda: served.model.calls)
    second = asyncio.create_task(attached(served, keys))
    await asyncio.sleep(0.05)
    gate.set()
    assert await second == await first


async def test_a_slow_reader_holds_nobody_up(served: Replica, keys: Keys) -> None:
    served.model.steps = ["word " * 200] * 400
    slow = aiter(served.stub.Generate(request(max_output_tokens=1000), metadata=keys.metadata()))
    await anext(slow)
    await until(lambda: served.cost.settled)
    assert len([event async for event in slow]) == 401


async def test_another_tenant_s_generation_does_not_exist(served: Replica, keys: Keys) -> None:
    served.model.steps = ["One."]
    await generated(served, keys, request())
    assert said(await refusal(attached(served, keys, tenant="other"))) == (Code.NOT_FOUND, "GENERATION_NOT_FOUND")
    assert said(await refusal(cancel(served, keys, "other"))) == (Code.NOT_FOUND, "GENERATION_NOT_FOUND")
    await generated(served, keys, request(), tenant="other")
    assert len(served.model.calls) == 2


@pytest.mark.parametrize(("wanted", "after"), [("gen 1", 0), ("", 0), ("gen_1", -1)])
async def test_a_wrong_attach_is_refused(served: Replica, keys: Keys, wanted: str, after: int) -> None:
    assert (await refusal(attached(served, keys, wanted, after=after))).code == Code.INVALID_ARGUMENT


async def test_a_caller_that_cancels_ends_the_call_at_the_provider_and_pays_for_what_came(
    served: Replica, keys: Keys
) -> None:
    served.model.steps = ["One ", "two ", asyncio.Event()]
    call = served.stub.Generate(request(), metadata=keys.metadata())
    for _ in range(3):
        await call.read()
    call.cancel()
    async with asyncio.timeout(1):
        await served.model.closed.wait()
    await until(lambda: served.cost.settled)
    assert [usage.output_tokens for _, usage in served.cost.settled] == [2]
    last = (await attached(served, keys))[-1]
    assert last.failed.failure.reason == error_reason_pb2.ERROR_REASON_GENERATION_CANCELLED


async def test_with_a_grace_it_goes_on_without_a_reader(served: Replica, keys: Keys) -> None:
    gate = asyncio.Event()
    served.model.steps = ["One ", gate, "two."]
    call = served.stub.Generate(request(detach_grace=MINUTE), metadata=keys.metadata())
    await call.read()
    call.cancel()
    await asyncio.sleep(0.05)
    assert not served.model.closed.is_set()
    gate.set()
    assert text_of(await attached(served, keys)) == "One two."


async def test_a_grace_that_passes_ends_it(served: Replica, keys: Keys) -> None:
    served.model.steps = ["One ", asyncio.Event()]
    call = served.stub.Generate(request(detach_grace=Duration(nanos=50_000_000)), metadata=keys.metadata())
    await call.read()
    call.cancel()
    async with asyncio.timeout(1):
        await served.model.closed.wait()


async def test_a_reader_that_comes_in_time_keeps_it_alive(served: Replica, keys: Keys) -> None:
    gate = asyncio.Event()
    served.model.steps = ["One ", gate, "two."]
    call = served.stub.Generate(request(detach_grace=Duration(nanos=200_000_000)), metadata=keys.metadata())
    await call.read()
    call.cancel()
    reader = asyncio.create_task(attached(served, keys))
    await asyncio.sleep(0.4)
    gate.set()
    assert kinds(await reader)[-1] == "finished"


async def test_a_generation_that_is_called_off_ends_for_all_its_readers(served: Replica, keys: Keys) -> None:
    served.model.steps = ["One ", asyncio.Event()]
    readers = [asyncio.create_task(generated(served, keys, request())) for _ in range(3)]
    await until(lambda: served.model.calls)
    assert not await cancel(served, keys)
    for events in await asyncio.gather(*readers):
        assert events[-1].failed.failure.reason == error_reason_pb2.ERROR_REASON_GENERATION_CANCELLED
    assert await cancel(served, keys)
    assert len(served.cost.settled) == 1


async def test_being_called_off_over_and_over_settles_once(served: Replica, keys: Keys) -> None:
    served.model.steps = ["One ", asyncio.Event()]
    reader = asyncio.create_task(generated(served, keys, request()))
    await until(lambda: served.model.calls)
    (generation,) = served.engine.live()
    for _ in range(20):
        generation.cancel()
        await asyncio.sleep(0)
    assert kinds(await reader)[-1] == "failed"
    assert len(served.cost.settled) == 1


async def test_a_replica_that_drains_settles_and_tells_everyone(keys: Keys, redis: Redis) -> None:
    async with replica(keys, redis) as one, replica(keys, redis, store=one.store) as other:
        one.model.steps = ["One ", asyncio.Event()]
        reader = asyncio.create_task(generated(one, keys, request()))
        await until(lambda: one.model.calls)
        await one.engine.drain()
        assert len(one.cost.settled) == 1
        events = await attached(other, keys)
        assert events == await reader
        assert kinds(events)[-1] == "failed"


async def test_a_reader_at_another_replica_gets_signs_of_life_of_a_silent_generation(redis: Redis) -> None:
    clock, hour = SteppedClock(), timedelta(hours=1)
    owner, other = (GenerationTail(redis, ttl=hour, clock=clock) for _ in range(2))
    generation = Generation("acme", "gen_1", grace=timedelta(), clock=clock, noted=owner.note)
    started = generation_pb2.GenerationEvent(started=generation_pb2.GenerationStarted(model="m"))
    assert await owner.claim("acme", "gen_1")
    generation.append(started)
    await owner.flush()
    async with asyncio.timeout(5), aclosing(other.read("acme", "gen_1", 0)) as events:
        read = [pb.AttachResponse.FromString(await anext(events)).event]
        clock.step = timedelta(seconds=4)
        read += [pb.AttachResponse.FromString(await anext(events)).event for _ in range(2)]
    assert [(one.sequence, one.WhichOneof("event")) for one in read] == [
        (1, "started"),
        (1, "heartbeat"),
        (1, "heartbeat"),
    ]


async def test_another_replica_serves_a_live_generation(keys: Keys, redis: Redis) -> None:
    async with replica(keys, redis) as one, replica(keys, redis, store=one.store) as other:
        gate = asyncio.Event()
        one.model.steps = ["One ", gate, "two."]
        first = asyncio.create_task(generated(one, keys, request()))
        await until(lambda: one.model.calls)
        second = asyncio.create_task(attached(other, keys))
        third = asyncio.create_task(generated(other, keys, request()))
        await asyncio.sleep(0.1)
        gate.set()
        assert await first == await second == await third
        assert (other.model.calls, other.cost.reserved) == ([], [])
        assert await attached(other, keys, after=4) == []


async def test_what_another_replica_follows_does_not_wait_for_the_batch(
    keys: Keys, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.inference.tail._FLUSH_SECONDS", 60.0)
    async with replica(keys, redis) as one, replica(keys, redis, store=one.store) as other:
        gates = [asyncio.Event(), asyncio.Event()]
        one.model.steps = ["One ", gates[0], "two ", gates[1], "three."]
        first = asyncio.create_task(generated(one, keys, request()))
        await until(lambda: one.model.calls)
        second = asyncio.create_task(attached(other, keys))
        await until(lambda: one.engine.tail._followed)
        for gate in gates:
            gate.set()
            await asyncio.sleep(0.05)
        async with asyncio.timeout(4):  # before the mark of a dead owner would go
            assert await second == await first


async def test_the_same_id_at_two_replicas_at_once_is_one_call(keys: Keys, redis: Redis) -> None:
    async with replica(keys, redis) as one, replica(keys, redis, store=one.store) as other:
        for served in (one, other):
            served.model.steps = ["One ", "two."]
        first, second = await asyncio.gather(generated(one, keys, request()), generated(other, keys, request()))
        assert first == second
        assert len(one.model.calls) + len(other.model.calls) == 1


async def test_another_replica_calls_it_off_within_a_second(keys: Keys, redis: Redis) -> None:
    async with replica(keys, redis) as one, replica(keys, redis, store=one.store) as other:
        one.model.steps = ["One ", asyncio.Event()]
        reader = asyncio.create_task(generated(one, keys, request()))
        await until(lambda: one.model.calls)
        assert not await cancel(other, keys)
        async with asyncio.timeout(1):
            await one.model.closed.wait()
        assert kinds(await reader)[-1] == "failed"


async def test_a_model_that_thinks_for_long_is_not_taken_for_dead(
    keys: Keys, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.inference.tail._OWNER_SECONDS", 1)
    async with replica(keys, redis) as one, replica(keys, redis, store=one.store) as other:
        gate = asyncio.Event()
        one.model.steps = [gate, "At last."]
        first = asyncio.create_task(generated(one, keys, request()))
        await until(lambda: one.model.calls)
        second = asyncio.create_task(attached(other, keys))
        await asyncio.sleep(1.6)
        gate.set()
        assert await second == await first


async def test_when_the_owner_died_what_it_wrote_comes_and_then_that_it_is_lost(keys: Keys, redis: Redis) -> None:
    async with replica(keys, redis) as one, replica(keys, redis) as other:
        one.model.steps = ["One ", "two ", asyncio.Event()]
        reader = asyncio.create_task(generated(one, keys, request()))
        await until(lambda: one.engine.live() and next(iter(one.engine.live())).flushed == 3)
        await stopped(one.tail_task)
        await redis.delete("gen-owner:acme:gen_1")
        for call in (attached(other, keys), generated(other, keys, request())):
            error = await refusal(call)
            assert said(error) == (Code.ABORTED, "GENERATION_LOST")
        request_seen = pb.AttachRequest(generation_id="gen_1")
        seen = other.stub.Attach(request_seen, metadata=keys.metadata())
        assert [(await seen.read()).event.sequence for _ in range(3)] == [1, 2, 3]
        assert other.model.calls == []
        reader.cancel()


async def test_what_ended_and_expired_is_out_of_range_and_what_never_was_is_not_found(keys: Keys, redis: Redis) -> None:
    store = MemoryGenerationStore()
    async with replica(keys, redis, store=store) as one:
        one.model.steps = ["One."]
        await generated(one, keys, request())
    await redis.flushall()
    async with replica(keys, redis, store=store) as other:
        assert said(await refusal(attached(other, keys))) == (Code.OUT_OF_RANGE, "GENERATION_EXPIRED")
        assert said(await refusal(generated(other, keys, request()))) == (Code.OUT_OF_RANGE, "GENERATION_EXPIRED")
        assert said(await refusal(attached(other, keys, "gen_9"))) == (Code.NOT_FOUND, "GENERATION_NOT_FOUND")
        assert await cancel(other, keys)


async def test_losing_redis_does_not_stop_generating(keys: Keys) -> None:
    async with open_redis(f"redis://127.0.0.1:{free_port()}/0") as nowhere, replica(keys, nowhere) as served:
        served.model.steps = ["One ", "two."]
        events = await generated(served, keys, request())
        assert kinds(events)[-1] == "finished"
        assert await attached(served, keys) == events
        assert said(await refusal(attached(served, keys, "gen_9"))) == (Code.UNAVAILABLE, "DEPENDENCY_UNAVAILABLE")


async def test_an_event_that_two_flushes_wrote_is_read_once(keys: Keys, redis: Redis) -> None:
    async with replica(keys, redis) as one, replica(keys, redis, store=one.store) as other:
        one.model.steps = [f"{number} " for number in range(20)]
        plain = await generated(one, keys, request(detach_grace={"seconds": 5}))
        (generation,) = one.engine.live()
        await one.engine.tail.flush()
        for place in (0, 5, 12):
            entries = {str(at): generation.events[at] for at in range(place, len(generation.events))}
            await redis.xadd(f"gen:acme:{generation.id}", entries, id=f"{len(generation.events) + place + 1}-0")  # type: ignore[arg-type]
        assert await attached(other, keys) == plain


async def test_what_is_written_between_two_looks_is_read(
    keys: Keys, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with replica(keys, redis) as one, replica(keys, redis, store=one.store) as other:
        gate, looked, newest = asyncio.Event(), asyncio.Event(), other.engine.tail._newest
        one.model.steps = ["One ", gate, "two."]
        first = asyncio.create_task(generated(one, keys, request()))
        await until(lambda: one.engine.live() and next(iter(one.engine.live())).flushed == 2)

        async def after_the_end(tenant: str, generation_id: str) -> bytes | None:
            gate.set()
            await first
            await one.engine.tail.flush()
            looked.set()
            return await newest(tenant, generation_id)

        monkeypatch.setattr(GenerationTail, "_newest", staticmethod(after_the_end))
        assert await attached(other, keys) == await first
        assert looked.is_set()
