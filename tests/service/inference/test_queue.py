"""Generations that nobody waits for: any process runs them, death of one included, and each is paid once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import grpc
import pytest
from redis.asyncio import Redis

from agentnet.inference.v1 import inference_service_pb2 as inference
from agentnet.inference.v1 import queue_service_pb2 as pb
from services.inference.errors import ProviderRejected, ProviderUnavailable
from services.inference.providers.contract import Usage
from services.inference.queue.store_memory import MemoryQueueStore
from services.inference.store_memory import MemoryGenerationStore
from shared.clock import SystemClock
from shared.errors import Reason
from tests.service.inference.calls import generated, refusal, said, until
from tests.support.identity import Keys
from tests.support.inference import Replica, replica, request, text_of

Code = grpc.StatusCode


@pytest.fixture
async def pods(keys: Keys, redis: Redis) -> AsyncIterator[tuple[Replica, Replica]]:
    """Two processes with one queue; nothing runs until one looks."""
    jobs, store = MemoryQueueStore(SystemClock()), MemoryGenerationStore()
    async with AsyncExitStack() as stack:
        yield (
            await stack.enter_async_context(replica(keys, redis, store=store, jobs=jobs)),
            await stack.enter_async_context(replica(keys, redis, store=store, jobs=jobs)),
        )


async def submit(pod: Replica, keys: Keys, generation_id: str = "gen_1", **changes: Any) -> None:
    asked = pb.SubmitGenerationRequest(generation=request(generation_id=generation_id, **changes))
    await pod.queue.SubmitGeneration(asked, metadata=keys.metadata())


async def found(pod: Replica, keys: Keys, generation_id: str = "gen_1") -> pb.GetSubmittedGenerationResponse:
    asked = pb.GetSubmittedGenerationRequest(generation_id=generation_id)
    answer: pb.GetSubmittedGenerationResponse = await pod.queue.GetSubmittedGeneration(asked, metadata=keys.metadata())
    return answer


async def ended(pod: Replica, keys: Keys) -> pb.GetSubmittedGenerationResponse:
    """Looks until it has ended."""
    async with asyncio.timeout(5):
        while True:
            await pod.worker.look()
            answer = await found(pod, keys)
            if answer.HasField("end_time"):
                return answer
            await asyncio.sleep(0.02)


async def dies(pod: Replica) -> None:
    """Takes the work, begins and is heard of no more."""
    (claim,) = await pod.worker.store.claim("dead", lease=timedelta(milliseconds=50), most=1)
    assert await pod.worker.store.begin(claim)
    await asyncio.sleep(0.1)


async def test_any_process_runs_what_another_was_given(pods: tuple[Replica, Replica], keys: Keys) -> None:
    front, back = pods
    back.model.steps = ["Hello", " there"]
    await submit(front, keys)
    await submit(front, keys)
    assert (await found(front, keys)).state == pb.SUBMITTED_STATE_QUEUED
    answer = await ended(back, keys)
    assert (answer.state, answer.response.text, answer.runs) == (pb.SUBMITTED_STATE_SUCCEEDED, "Hello there", 1)
    assert (await found(front, keys)).response == answer.response
    assert [name for name, _ in back.cost.settled] == ["gen_1"]
    principal = back.cost.settlements[0].payer.principal
    assert (principal.tenant_id, principal.subject) == ("acme", "ada")


async def test_streamed_whole_or_submitted_the_same_request_says_the_same(
    pods: tuple[Replica, Replica], keys: Keys
) -> None:
    front, _ = pods
    front.model.steps, front.model.usage = ["Hello", " there"], Usage(9, 2)
    streamed = await generated(front, keys, request(generation_id="gen_streamed"))
    asked = inference.GenerateTextRequest(generation=request(generation_id="gen_whole"))
    whole = await front.stub.GenerateText(asked, metadata=keys.metadata())
    await submit(front, keys)
    later = (await ended(front, keys)).response
    assert text_of(streamed) == whole.text == later.text == "Hello there"
    ends = [streamed[-1].finished, whole.finished, later.finished]
    assert [(end.finish_reason, end.usage, end.cost, end.attempts) for end in ends] == [
        (ends[0].finish_reason, ends[0].usage, ends[0].cost, 1)
    ] * 3
    assert [usage for _, usage in front.cost.settled] == [Usage(9, 2)] * 3


async def test_the_answer_of_a_process_that_died_after_it_is_not_paid_again(
    pods: tuple[Replica, Replica], keys: Keys
) -> None:
    dead, heir = pods
    dead.model.steps = ["Done."]
    await submit(dead, keys)
    await dies(dead)
    await generated(dead, keys, request())  # the answer stands in the live tail; nobody wrote it down
    await dead.engine.tail.flush()
    answer = await ended(heir, keys)
    assert (answer.response.text, answer.runs, answer.running_id) == ("Done.", 2, "gen_1-run2")
    assert len(dead.cost.settled) == 1
    assert (heir.model.calls, heir.cost.settled) == ([], [])


async def test_what_died_in_the_middle_is_run_anew_under_another_id(pods: tuple[Replica, Replica], keys: Keys) -> None:
    dead, heir = pods
    heir.model.steps = ["Done."]
    await submit(dead, keys)
    await dies(dead)
    answer = await ended(heir, keys)
    assert (answer.state, answer.response.text, answer.runs) == (pb.SUBMITTED_STATE_SUCCEEDED, "Done.", 2)
    assert [name for name, _ in heir.cost.settled] == ["gen_1-run2"]


async def test_whose_lease_is_lost_stops_and_writes_nothing(pods: tuple[Replica, Replica], keys: Keys) -> None:
    slow, heir = pods
    slow.model.steps, heir.model.steps = ["Half", asyncio.Event()], ["Done."]
    slow.worker.lease = timedelta(milliseconds=50)
    await submit(slow, keys)
    await slow.worker.look()
    await until(lambda: slow.model.calls)
    await asyncio.sleep(0.1)
    (claim,) = await heir.worker.store.claim("other", lease=timedelta(milliseconds=200), most=1)
    assert claim.fence == 2
    await slow.worker.look()
    await until(lambda: slow.cost.settled)  # the provider's call is closed and paid
    assert slow.model.closed.is_set()
    await asyncio.sleep(0.2)
    assert (await ended(heir, keys)).response.text == "Done."


async def test_a_failure_that_passes_is_tried_later_and_one_that_does_not_is_final(
    pods: tuple[Replica, Replica], keys: Keys
) -> None:
    pod = pods[0]
    pod.worker.first_pause = timedelta(milliseconds=10)
    pod.model.scripts = [[ProviderUnavailable("away")]] * 3 + [["Hello"]]
    await submit(pod, keys, no_fallback=True)
    answer = await ended(pod, keys)
    assert (answer.response.text, answer.runs) == ("Hello", 2)
    pod.model.steps = [ProviderRejected("no")]
    await submit(pod, keys, "gen_2")
    await until_ended(pod, keys, "gen_2")
    refused = await found(pod, keys, "gen_2")
    assert (refused.state, refused.failure.reason, refused.runs) == (
        pb.SUBMITTED_STATE_FAILED, Reason.ERROR_REASON_PROVIDER_REJECTED, 1,
    )  # fmt: skip


async def until_ended(pod: Replica, keys: Keys, generation_id: str) -> None:
    async with asyncio.timeout(5):
        while not (await found(pod, keys, generation_id)).HasField("end_time"):
            await pod.worker.look()
            await asyncio.sleep(0.02)


async def cancelled(pod: Replica, keys: Keys) -> bool:
    asked = pb.CancelSubmittedGenerationRequest(generation_id="gen_1")
    answer = await pod.queue.CancelSubmittedGeneration(asked, metadata=keys.metadata())
    return bool(answer.already_ended)


async def test_what_waits_is_called_off_before_it_begins(pods: tuple[Replica, Replica], keys: Keys) -> None:
    pod = pods[0]
    await submit(pod, keys)
    assert [await cancelled(pod, keys), await cancelled(pod, keys)] == [False, True]
    answer = await ended(pod, keys)
    assert answer.failure.reason == Reason.ERROR_REASON_GENERATION_CANCELLED
    assert (pod.model.calls, pod.cost.reserved) == ([], [])


async def test_what_runs_elsewhere_is_called_off_and_settled(pods: tuple[Replica, Replica], keys: Keys) -> None:
    front, back = pods
    back.model.steps = ["Half", asyncio.Event()]
    await submit(front, keys)
    await back.worker.look()
    await until(lambda: back.engine.live())
    await asyncio.sleep(0.1)
    assert not await cancelled(front, keys)
    answer = await ended(back, keys)
    assert answer.failure.reason == Reason.ERROR_REASON_GENERATION_CANCELLED
    assert len(back.cost.settled) == 1


async def test_a_process_that_stops_gives_its_work_back(pods: tuple[Replica, Replica], keys: Keys) -> None:
    stopping, heir = pods
    stopping.model.steps, heir.model.steps = ["Half", asyncio.Event()], ["Done."]
    await submit(stopping, keys)
    await stopping.worker.look()
    await until(lambda: stopping.model.calls)
    await stopping.worker.drain()
    await until(lambda: stopping.cost.settled)
    assert (await ended(heir, keys)).response.text == "Done."


async def test_what_cannot_be_is_refused_at_the_door(pods: tuple[Replica, Replica], keys: Keys) -> None:
    pod = pods[0]
    asked = pb.SubmitGenerationRequest(generation=inference.GenerateRequest())
    assert (await refusal(pod.queue.SubmitGeneration(asked, metadata=keys.metadata()))).field == "messages"
    asked = pb.SubmitGenerationRequest(generation=request(model="nobody"))
    error = await refusal(pod.queue.SubmitGeneration(asked, metadata=keys.metadata()))
    assert said(error) == (Code.NOT_FOUND, "MODEL_NOT_FOUND")
    await submit(pod, keys)
    other = pb.GetSubmittedGenerationRequest(generation_id="gen_1")
    error = await refusal(pod.queue.GetSubmittedGeneration(other, metadata=keys.metadata("other")))
    assert said(error) == (Code.NOT_FOUND, "GENERATION_NOT_FOUND")


async def test_what_was_submitted_is_listed_with_its_state_by_pages(pods: tuple[Replica, Replica], keys: Keys) -> None:
    front, back = pods
    back.model.steps = ["Hello"]
    await submit(front, keys)
    await ended(back, keys)
    await submit(front, keys, "gen_2")
    asked = pb.ListSubmittedGenerationsRequest(page_size=1)
    first = await front.queue.ListSubmittedGenerations(asked, metadata=keys.metadata())
    assert [(one.generation_id, one.state, one.runs) for one in first.generations] == [
        ("gen_2", pb.SUBMITTED_STATE_QUEUED, 0)
    ]
    asked.page_token = first.next_page_token
    rest = await front.queue.ListSubmittedGenerations(asked, metadata=keys.metadata())
    assert [(one.generation_id, one.state, one.runs) for one in rest.generations] == [
        ("gen_1", pb.SUBMITTED_STATE_SUCCEEDED, 1)
    ]
    assert (rest.generations[0].HasField("end_time"), rest.next_page_token) == (True, "")
    asked.open = True  # another list: its tokens are others
    error = await refusal(front.queue.ListSubmittedGenerations(asked, metadata=keys.metadata()))
    assert said(error) == (Code.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID")
    nobody = await front.queue.ListSubmittedGenerations(
        pb.ListSubmittedGenerationsRequest(), metadata=keys.metadata("globex")
    )
    assert not nobody.generations


async def test_what_no_process_survives_is_not_run_for_ever(pods: tuple[Replica, Replica], keys: Keys) -> None:
    pod = pods[0]
    await submit(pod, keys)
    for _ in range(20):
        (claim,) = await pod.worker.store.claim("dead", lease=timedelta(seconds=9), most=1)
        assert await pod.worker.store.begin(claim)
        await pod.worker.store.again(claim, after=timedelta())
    answer = await ended(pod, keys)
    assert (answer.failure.reason, answer.runs, pod.model.calls) == (Reason.ERROR_REASON_GENERATION_LOST, 21, [])
