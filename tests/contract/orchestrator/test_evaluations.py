"""What evaluation asks of storage holds for every implementation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

import asyncpg
import pytest

from agentnet.orchestrator.v1 import evaluation_service_pb2 as pb
from deploy.local.postgres import Cluster
from services.orchestrator.errors import LeaseLost
from services.orchestrator.evaluation.store import Case, CaseLease, CaseQueue, EvaluationStore
from services.orchestrator.evaluation.store_memory import MemoryEvaluationStore
from services.orchestrator.evaluation.store_postgres import PostgresCaseQueue, PostgresEvaluationStore
from shared.clock import FakeClock
from shared.identity import Principal
from shared.paging import Page
from shared.postgres import open_database

ADA = Principal("acme", "ada", frozenset({"operator", "admin"}))
TTL = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Kept:
    store: EvaluationStore
    queue: CaseQueue
    pass_time: Callable[[], Awaitable[None]]


@pytest.fixture(params=["memory", "postgres"])
async def kept(request: pytest.FixtureRequest) -> AsyncIterator[Kept]:
    if request.param == "memory":
        clock = FakeClock()
        memory = MemoryEvaluationStore(clock)

        async def pass_time() -> None:
            clock.advance(TTL * 2)

        yield Kept(memory, memory.queue, pass_time)
        return
    cluster: Cluster = request.getfixturevalue("postgres")
    await _admin(cluster, "delete from orchestrator.evaluation_lease")
    await _admin(cluster, "delete from orchestrator.evaluation_case")
    await _admin(cluster, "delete from orchestrator.evaluation")

    async def run_out() -> None:
        await _admin(
            cluster,
            "update orchestrator.evaluation_lease set expires_at = now() - interval '1 second' where owner is not null",
        )

    async with (
        open_database(cluster.dsn("orchestrator"), pool=4) as own,
        open_database(cluster.dsn("orchestrator_driver"), pool=2) as driver,
    ):
        yield Kept(PostgresEvaluationStore(own), PostgresCaseQueue(driver), run_out)


async def _admin(cluster: Cluster, statement: str) -> None:
    connection = await asyncpg.connect(cluster.dsn("postgres"))
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def a_run(name: str = "evl_1", *, suite: str = "small", second: int = 0) -> pb.Evaluation:
    made = pb.Evaluation(id=name, suite=suite, status=pb.EVALUATION_STATUS_RUNNING, cases=2, suite_digest="d")
    made.start_time.FromSeconds(1_700_000_000 + second)
    return made


def cases(name: str = "evl_1") -> list[Case]:
    return [Case(f"{name}_b", 1, 1), Case(f"{name}_a", 0, 1)]


def scored(name: str) -> pb.ScenarioScore:
    return pb.ScenarioScore(name=name, session_id="ses_1", passed=True, coverage_score=0.5, repetition=1)


def close(whole: pb.Evaluation) -> pb.Evaluation:
    whole.status = pb.EVALUATION_STATUS_COMPLETED
    whole.end_time.FromSeconds(1_700_000_100)
    whole.comparison.regression_score = len(whole.scores) / 10
    return whole


async def start(kept: Kept, tenant: str = "acme", name: str = "evl_1", **more: object) -> str:
    principal = Principal(tenant, "ada", ADA.roles)
    made = a_run(name, second=int(str(more.get("second", 0))), suite=str(more.get("suite", "small")))
    request_id = str(more["request_id"]) if "request_id" in more else None
    return await kept.store.start(tenant, made, "the document", principal, cases(name), request_id=request_id)


async def claim(kept: Kept, owner: str = "one", limit: int = 10) -> list[CaseLease]:
    return list(await kept.queue.claim(owner, ttl=TTL, limit=limit))


async def test_a_run_is_found_in_its_tenant_and_in_no_other(kept: Kept) -> None:
    await start(kept)

    assert await kept.store.find("acme", "evl_1") == a_run()
    assert await kept.store.find("other", "evl_1") is None
    assert await kept.store.every("other", suite="", page=Page()) == []


async def test_a_request_id_starts_one_run(kept: Kept) -> None:
    first = await start(kept, request_id="r")
    second = await start(kept, name="evl_2", request_id="r")
    elsewhere = await start(kept, "other", "evl_3", request_id="r")

    assert (first, second, elsewhere) == ("evl_1", "evl_1", "evl_3")
    assert len(await claim(kept)) == 4


async def test_a_worker_is_told_all_it_needs(kept: Kept) -> None:
    await start(kept)
    works = [await kept.store.work(lease) for lease in await claim(kept)]

    assert sorted((work.place, work.repetition) for work in works if work) == [(0, 1), (1, 1)]
    assert {(work.evaluation_id, work.document, work.baseline_id) for work in works if work} == {
        ("evl_1", "the document", "")
    }
    assert {(work.starter.subject, work.starter.roles, work.starter.tenant_id) for work in works if work} == {
        ("ada", ADA.roles, "acme")
    }


async def test_no_case_is_claimed_twice_by_any_number_of_workers(kept: Kept) -> None:
    for number in range(10):
        await start(kept, name=f"evl_{number}")

    claimed = await asyncio.gather(*(claim(kept, f"worker-{number}", 3) for number in range(10)))

    taken = [lease.case_id for leases in claimed for lease in leases]
    taken += [lease.case_id for lease in await claim(kept, "last", 100)]
    assert len(taken) == len(set(taken)) == 20


async def test_tenants_take_turns(kept: Kept) -> None:
    for number in range(5):
        await start(kept, "many", f"evl_{number}")
    await start(kept, "few", "evl_few")

    assert {lease.tenant for lease in await claim(kept, limit=2)} == {"many", "few"}


async def test_a_case_whose_worker_died_goes_to_another_and_the_dead_writes_nothing(kept: Kept) -> None:
    await start(kept)
    dead = await claim(kept, "dead")
    assert await claim(kept, "heir") == []

    await kept.pass_time()
    heirs = await claim(kept, "heir")

    assert {lease.case_id for lease in heirs} == {lease.case_id for lease in dead}
    assert {(lease.tries, lease.fence) for lease in heirs} == {(2, 2)}
    with pytest.raises(LeaseLost):
        await kept.store.finish(dead[0], scored("late"), close)
    assert (await kept.store.find("acme", "evl_1")).scores == []  # type: ignore[union-attr]


async def test_a_lease_that_is_renewed_does_not_run_out(kept: Kept) -> None:
    await start(kept)
    first, second = await claim(kept)

    assert await kept.queue.renew("one", [first.case_id], ttl=TTL * 10) == {first.case_id}
    assert await kept.queue.renew("another", [second.case_id], ttl=TTL) == set()
    await kept.pass_time()
    assert await kept.queue.renew("one", [second.case_id], ttl=TTL) == set()


async def test_what_is_given_back_is_free_at_once_and_the_try_does_not_count(kept: Kept) -> None:
    await start(kept)
    for lease in await claim(kept):
        await kept.queue.give_back(lease)

    assert {lease.tries for lease in await claim(kept, "two")} == {1}


async def test_the_last_case_ends_the_run_with_all_scores_in_the_suites_order(kept: Kept) -> None:
    await start(kept)
    leases = {lease.case_id: lease for lease in await claim(kept)}

    await kept.store.finish(leases["evl_1_b"], scored("second"), close)
    half = await kept.store.find("acme", "evl_1")
    await kept.store.finish(leases["evl_1_a"], scored("first"), close)
    whole = await kept.store.find("acme", "evl_1")

    assert half is not None
    assert (half.status, [score.name for score in half.scores]) == (pb.EVALUATION_STATUS_RUNNING, ["second"])
    assert whole is not None
    assert (whole.status, list(whole.scores)) == (
        pb.EVALUATION_STATUS_COMPLETED, [scored("first"), scored("second")],
    )  # fmt: skip
    assert whole.comparison.regression_score == 0.2, "close was given both"
    await kept.pass_time()
    assert await claim(kept) == []


async def test_two_workers_that_end_the_last_cases_at_once_close_the_run_once(kept: Kept) -> None:
    closed: list[int] = []

    def counted(whole: pb.Evaluation) -> pb.Evaluation:
        closed.append(len(whole.scores))
        return close(whole)

    await start(kept)
    leases = await claim(kept)
    await asyncio.gather(*(kept.store.finish(lease, scored(lease.case_id), counted) for lease in leases))

    assert closed == [2]


async def test_a_run_that_was_ended_takes_no_score_and_its_cases_are_needless(kept: Kept) -> None:
    def cancel(evaluation: pb.Evaluation) -> pb.Evaluation:
        evaluation.status = pb.EVALUATION_STATUS_CANCELLED
        evaluation.end_time.FromSeconds(1_700_000_050)
        return evaluation

    await start(kept)
    running, waiting = await claim(kept)
    await kept.store.end("acme", "evl_1", cancel)
    await kept.store.end("acme", "evl_1", close)

    assert await kept.store.work(waiting) is None
    await kept.store.drop(waiting)
    await kept.store.finish(running, scored("late"), close)
    found = await kept.store.find("acme", "evl_1")
    assert found is not None
    assert (found.status, list(found.scores)) == (pb.EVALUATION_STATUS_CANCELLED, [])
    await kept.pass_time()
    assert await claim(kept) == []


async def test_runs_are_listed_newest_first_by_suite_and_page(kept: Kept) -> None:
    for second in range(3):
        await start(kept, name=f"evl_{second}", second=second)
    await start(kept, name="evl_other", suite="other", second=9)

    first = await kept.store.every("acme", suite="small", page=Page(size=2))
    cursor = (first[1].start_time.ToDatetime().isoformat() + "+00:00", first[1].id)
    rest = await kept.store.every("acme", suite="small", page=Page(size=2, cursor=cursor))

    assert [run.id for run in first] == ["evl_2", "evl_1", "evl_0"], "one more tells that there is a next page"
    assert [run.id for run in rest] == ["evl_0"]
    assert len(await kept.store.every("acme", suite="", page=Page())) == 4
