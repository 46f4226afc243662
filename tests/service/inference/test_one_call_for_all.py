"""The same request at several replicas at once: one call of the model, and what follows when it does not end well."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis

from agentnet.inference.v1 import generation_pb2
from agentnet.inference.v1 import inference_service_pb2 as pb
from services.inference.peers import Notice
from shared.errors import Reason, ResourceExhausted
from shared.tasks import stopped
from tests.service.inference.calls import generated, until
from tests.service.inference.test_answers_at_hand import asked
from tests.support.identity import Keys
from tests.support.inference import Event, Replica, kinds, replica, text_of

SHARED = generation_pb2.ANSWER_SOURCE_SHARED
FROM_MODEL = generation_pb2.ANSWER_SOURCE_MODEL


@asynccontextmanager
async def leading(keys: Keys, redis: Redis) -> AsyncIterator[tuple[Replica, asyncio.Event, asyncio.Task[list[Event]]]]:
    """A replica in the middle of an answer, the event that lets it go on, and its caller."""
    async with replica(keys, redis) as one:
        gate = asyncio.Event()
        one.model.steps = ["One ", gate, "two."]
        caller = asyncio.create_task(generated(one, keys, asked()))
        await until(lambda: any(found.flushed >= 2 for found in one.engine.live()))
        yield one, gate, caller
        caller.cancel()


async def whole(served: Replica, keys: Keys, text: str = "Hello?") -> pb.GenerateTextResponse:
    request = pb.GenerateTextRequest(generation=asked(text, ""))
    answer: pb.GenerateTextResponse = await served.stub.GenerateText(request, metadata=keys.metadata())
    return answer


async def test_identical_requests_at_two_replicas_share_one_call(keys: Keys, redis: Redis) -> None:
    async with leading(keys, redis) as (one, gate, caller), replica(keys, redis) as other:
        followers = [asyncio.create_task(generated(other, keys, asked(generation_id=f"gen_{n}"))) for n in (2, 3)]
        await until(lambda: [len(found.events) for found in other.engine.live()] == [2, 2])
        gate.set()
        for events in await asyncio.gather(*followers):
            assert text_of(events) == "One two."
            assert (events[-1].finished.source, events[-1].finished.cost.micros_usd) == (SHARED, 0)
        assert (await caller)[-1].finished.source == FROM_MODEL
        assert len(one.model.calls) == 1
        assert other.model.calls == other.cost.reserved == other.cost.settled == []


async def test_whole_answers_that_nobody_can_attach_to_are_shared_too(keys: Keys, redis: Redis) -> None:
    async with replica(keys, redis) as one, replica(keys, redis) as other:
        gate = asyncio.Event()
        one.model.steps = ["One ", gate, "two."]
        first = asyncio.create_task(whole(one, keys))
        await until(lambda: one.model.calls)
        await whole(other, keys, "Another?")  # ids here are numbers: the next is not the leader's
        second = asyncio.create_task(whole(other, keys))
        await until(lambda: other.engine._running)
        gate.set()
        assert (await second).text == (await first).text == "One two."
        assert (await second).finished.source == SHARED
        assert len(other.model.calls) == 1


async def test_another_tenant_s_same_request_is_a_call_of_its_own(keys: Keys, redis: Redis) -> None:
    async with leading(keys, redis), replica(keys, redis) as other:
        other.model.steps = ["Mine."]
        events = await generated(other, keys, asked(generation_id="gen_2"), tenant="umbrella")
        assert (text_of(events), events[-1].finished.source) == ("Mine.", FROM_MODEL)


async def test_when_the_replica_that_leads_dies_who_waited_goes_on_and_pays_for_itself(
    keys: Keys, redis: Redis
) -> None:
    async with leading(keys, redis) as (one, _, _caller), replica(keys, redis) as other:
        other.model.steps = ["Whole."]
        follower = asyncio.create_task(generated(other, keys, asked(generation_id="gen_2")))
        await until(lambda: other.engine.live() and len(next(iter(other.engine.live())).events) == 2)
        await stopped(one.tail_task)
        await redis.delete("gen-owner:acme:gen_1")
        events = await follower
        assert kinds(events) == ["started", "text", "failover", "text", "finished"]
        assert events[2].failover.restarted
        assert text_of(events[3:]) == "Whole."
        assert len(other.cost.reserved) == len(other.cost.settled) == 1


async def test_who_is_refused_leads_nobody(keys: Keys, redis: Redis) -> None:
    async with replica(keys, redis) as one, replica(keys, redis) as other:
        one.cost.refusals = [ResourceExhausted("no money", reason=Reason.ERROR_REASON_BUDGET_EXHAUSTED)]
        other.model.steps = ["Mine."]
        with pytest.raises(Exception, match="no money"):
            await generated(one, keys, asked())
        assert await redis.keys("gen-leader:*") == []
        async with asyncio.timeout(2):
            events = await generated(other, keys, asked(generation_id="gen_2"))
        assert events[-1].finished.source == FROM_MODEL


async def test_it_leads_as_long_as_it_runs_and_no_longer(
    keys: Keys, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.inference.tail._OWNER_SECONDS", 1)
    monkeypatch.setattr("services.inference.tail._LEADER_SECONDS", 1)
    async with leading(keys, redis) as (_one, gate, caller):
        await asyncio.sleep(1.3)
        (leader,) = await redis.keys("gen-leader:*")
        assert await redis.get(leader) == b"gen_1"
        gate.set()
        await caller
        async with asyncio.timeout(0.5):
            while await redis.exists(leader):
                await asyncio.sleep(0.01)


async def test_a_cheaper_model_that_cost_asked_for_answers_its_caller_alone(keys: Keys, redis: Redis) -> None:
    async with replica(keys, redis) as one, replica(keys, redis) as other:
        one.cost.notices = [Notice("80 % of the budget is spent", cheaper=True)]
        one.others["backup"].steps, other.model.steps = ["Cheap."], ["Dear."]
        assert text_of(await generated(one, keys, asked())) == "Cheap."
        await until(lambda: not one.engine.admission._keeping)
        events = await generated(other, keys, asked(generation_id="gen_2"))
        assert (text_of(events), events[-1].finished.source) == ("Dear.", FROM_MODEL)
