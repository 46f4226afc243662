"""A case survives what happens to its worker and to the mesh."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agentnet.orchestrator.v1 import evaluation_service_pb2 as pb
from services.orchestrator.drivers.postgres import PostgresDriver
from services.orchestrator.evaluation import document
from services.orchestrator.evaluation.evaluations import Wanted
from services.orchestrator.evaluation.worker import Worker
from shared.errors import FailedPrecondition, Unavailable
from shared.tasks import stopped
from tests.support.evaluation import MAX_TRIES, TTL, Laboratory
from tests.support.orchestrator import ADA, POLL, TENANT, World
from tests.support.orchestrator import TTL as SESSION_TTL

SUITE = "{suite: s, scenarios: [{name: one, agents: [Athena], topic: Edge, repeats: %d, timeout_seconds: %d}]}"


@asynccontextmanager
async def sessions_run(world: World) -> AsyncIterator[None]:
    driver = PostgresDriver(world.leases, world.runs(), "one", SESSION_TTL, POLL, 9)
    world.leases.hear.append(driver.wake)
    task = asyncio.create_task(driver.claim())
    try:
        yield
    finally:
        await stopped(task)
        await driver.drain()


@asynccontextmanager
async def working(worker: Worker) -> AsyncIterator[None]:
    task = asyncio.create_task(worker.claim())
    try:
        yield
    finally:
        await stopped(task)


async def start(laboratory: Laboratory, *, repeats: int = 1, timeout_seconds: int = 60) -> str:
    suite = document.read(SUITE % (repeats, timeout_seconds))
    return (await laboratory.evaluations.start(ADA, Wanted(suite, {}))).id


async def ended(laboratory: Laboratory, evaluation_id: str) -> pb.Evaluation:
    async with asyncio.timeout(5):
        while (
            found := await laboratory.evaluations.find(TENANT, evaluation_id)
        ).status == pb.EVALUATION_STATUS_RUNNING:
            await asyncio.sleep(0.005)
    return found


async def until_started(laboratory: Laboratory) -> None:
    async with asyncio.timeout(5):
        while not laboratory.sessions.started:
            await asyncio.sleep(0.005)


async def test_a_killed_workers_case_goes_on_with_the_session_it_began() -> None:
    laboratory = Laboratory(World())
    laboratory.world.inference.held_at = 2
    one = await start(laboratory)
    async with sessions_run(laboratory.world):
        dead = laboratory.worker("dead")
        async with working(dead):
            await until_started(laboratory)
        for _, task in list(dead._running.values()):
            task.cancel()
        laboratory.world.clock.advance(TTL * 2)
        laboratory.world.inference.release()
        async with working(laboratory.worker("heir")):
            found = await ended(laboratory, one)

    assert len(laboratory.sessions.started) == 2
    assert len(set(laboratory.sessions.started)) == 1, "asked for twice, begun once"
    assert found.scores[0].passed


async def test_a_worker_that_stops_gives_its_cases_back_at_once() -> None:
    laboratory = Laboratory(World())
    laboratory.world.inference.held_at = 2
    one = await start(laboratory)
    async with sessions_run(laboratory.world):
        first = laboratory.worker("first")
        async with working(first):
            await until_started(laboratory)
        await first.drain()
        laboratory.world.inference.release()
        async with working(laboratory.worker("second")):
            found = await ended(laboratory, one)

    assert found.success.passed == 1


async def test_a_case_that_breaks_off_again_and_again_is_given_up() -> None:
    laboratory = Laboratory(World())
    laboratory.meaning.away = [FailedPrecondition("no model embeds")] * (MAX_TRIES + 1)
    one = await start(laboratory)
    async with sessions_run(laboratory.world), working(laboratory.worker()):
        for _ in range(MAX_TRIES):
            async with asyncio.timeout(5):
                left = len(laboratory.meaning.away)
                while len(laboratory.meaning.away) == left:
                    await asyncio.sleep(0.005)
            await asyncio.sleep(0.02)
            laboratory.world.clock.advance(TTL * 2)
        found = await ended(laboratory, one)

    assert not found.scores[0].passed
    assert found.scores[0].failure.message == "the case broke off too often"


async def test_a_mesh_that_does_not_answer_costs_no_try() -> None:
    laboratory = Laboratory(World())
    laboratory.sessions.refusals = [Unavailable("away")] * (MAX_TRIES * 3)
    one = await start(laboratory)
    worker = laboratory.worker()
    worker.ttl = POLL
    async with sessions_run(laboratory.world), working(worker):
        found = await ended(laboratory, one)

    assert found.scores[0].passed


async def test_a_watch_that_breaks_is_taken_up_where_it_was() -> None:
    laboratory = Laboratory(World())
    laboratory.sessions.breaks = [Unavailable("cut")]
    one = await start(laboratory)
    async with sessions_run(laboratory.world), working(laboratory.worker()):
        found = await ended(laboratory, one)

    assert found.scores[0].outcome == "Athena: Athena has one idea about it."


async def test_a_session_that_takes_too_long_is_called_off_and_has_failed() -> None:
    laboratory = Laboratory(World())
    laboratory.world.inference.held_at = 2
    one = await start(laboratory, timeout_seconds=1)
    async with sessions_run(laboratory.world), working(laboratory.worker()):
        found = await ended(laboratory, one)

    (score,) = found.scores
    assert (score.passed, score.stop_reason) == (False, "cancelled")
    assert score.failure.message == "the session took longer than 1 seconds"


async def test_many_workers_run_a_batch_each_case_once() -> None:
    laboratory = Laboratory(World())
    one = await start(laboratory, repeats=20)
    async with sessions_run(laboratory.world):
        async with working(laboratory.worker("a", limit=3)), working(laboratory.worker("b", limit=3)):
            found = await ended(laboratory, one)

    assert [score.repetition for score in found.scores] == list(range(1, 21))
    assert len(laboratory.sessions.started) == len(set(laboratory.sessions.started)) == 20


async def test_a_scored_case_tells_the_reputation_of_who_spoke_once() -> None:
    laboratory = Laboratory(World())
    laboratory.sessions.rating_refusals = [Unavailable("the mesh is away")]
    one = await start(laboratory)
    async with sessions_run(laboratory.world), working(laboratory.worker()):
        scored = (await ended(laboratory, one)).scores[0]
    assert list(laboratory.sessions.ratings.values()) == [("Athena", scored.passed, scored.session_id)]


async def test_who_may_not_be_rated_keeps_no_case_from_its_score() -> None:
    laboratory = Laboratory(World())
    laboratory.sessions.rating_refusals = [FailedPrecondition("no")]
    one = await start(laboratory)
    async with sessions_run(laboratory.world), working(laboratory.worker()):
        assert (await ended(laboratory, one)).status == pb.EVALUATION_STATUS_COMPLETED
    assert laboratory.sessions.ratings == {}


async def test_a_session_that_could_not_be_had_says_nothing_of_its_agents() -> None:
    laboratory = Laboratory(World())
    laboratory.sessions.refusals = [FailedPrecondition("no")]
    one = await start(laboratory)
    async with sessions_run(laboratory.world), working(laboratory.worker()):
        await ended(laboratory, one)
    assert laboratory.sessions.ratings == {}
