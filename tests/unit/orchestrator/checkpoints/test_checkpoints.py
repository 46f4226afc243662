"""Checkpoints of graphs: what they hold, when they are made, how a run goes on from any of them."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from agentnet.orchestrator.v1 import session_pb2, task_graph_pb2
from services.orchestrator.checkpoints import form, keeper
from services.orchestrator.checkpoints.keeper import Checkpoints, Mark
from services.orchestrator.checkpoints.store import CheckpointFilter
from services.orchestrator.checkpoints.store_memory import MemoryCheckpointStore
from services.orchestrator.errors import CheckpointIncompatible, CheckpointNotFound
from services.orchestrator.graphs import outcome, shapes
from services.orchestrator.graphs.state import GraphState, fold
from services.orchestrator.peers import Utterance
from services.orchestrator.store import KeptGraph
from shared.errors import FieldRequired, Reason, ResourceExhausted, Unavailable
from shared.paging import Page
from tests.support.graphs import Play, failure, node
from tests.support.orchestrator import ADA, TENANT, TTL, Watching, World, driving

STEP = task_graph_pb2.CHECKPOINT_FREQUENCY_STEP
ITERATION = task_graph_pb2.CHECKPOINT_FREQUENCY_ITERATION
TOOL_CALL = task_graph_pb2.CHECKPOINT_FREQUENCY_TOOL_CALL
CHAIN = [node("a"), node("b", "a"), node("c", "b"), node("d", "c", agent="Apollo")]
EXHAUSTED = ResourceExhausted("no money", reason=Reason.ERROR_REASON_BUDGET_EXHAUSTED)


def policy(frequency: int) -> dict[str, Any]:
    return {"checkpoint_policy": task_graph_pb2.CheckpointPolicy(frequency=frequency)}


async def saved(world: World, session_id: str) -> list[str]:
    events = await world.log(session_id)
    return [event.checkpoint_saved.checkpoint_id for event in events if event.HasField("checkpoint_saved")]


async def resumed(world: World, checkpoint_id: str, wanted: task_graph_pb2.TaskGraph | None = None) -> KeptGraph:
    return await world.graphs.execute(ADA, wanted, request_id=None, resume_from=checkpoint_id)


async def states(world: World, graph_id: str) -> dict[str, str]:
    shown = await world.graphs.shown(TENANT, graph_id)
    return {
        one.node_id: task_graph_pb2.TaskStatus.Name(one.status).removeprefix("TASK_STATUS_") for one in shown.results
    }


async def test_a_checkpoint_has_all_the_fields_of_the_seeds() -> None:
    world = World()
    kept = await world.execute(*CHAIN, **policy(STEP))
    await world.drive()
    first = (await saved(world, kept.session.id))[0]
    found = await world.checkpoints.find(TENANT, first)
    assert (found.id, found.run_id, found.agent_name, found.version) == (first, kept.graph.id, "Apollo, Athena", "1.1")
    assert found.time == kept.session.start_time
    assert found.iteration_count >= 1
    assert (found.total_tokens, found.total_cost_micros_usd) == (16 * found.iteration_count, 7 * found.iteration_count)
    assert dict(found.messages[0]) == {"node_id": "a", "role": "assistant", "content": "Athena has one idea about it."}
    assert found.tool_results[0]["node_id"] == "a"
    assert "graph" in found.metadata


async def test_a_checkpoint_of_one_agents_work_has_its_name() -> None:
    world = World()
    kept = await world.execute(node("a"))
    await world.drive()
    made = await world.graphs.save(TENANT, kept.graph.id, notes={})
    assert made.agent_name == "Athena"
    assert len(await world.checkpoints.every(TENANT, CheckpointFilter(agent_name="Athena"), page=Page())) == 1


def test_a_checkpoint_names_all_agents_that_fit_and_says_when_there_is_none() -> None:
    called = Play([node("a", agent="", tool="search")])
    many = Play([node(f"n{place}", agent=f"Agent{place:03}") for place in range(100)])
    names = form.read(form.of_graph(many.state, "chk_1", now=many.clock.now())).agent_name
    assert form.read(form.of_graph(called.state, "chk_1", now=called.clock.now())).agent_name == "task_graph"
    assert names.split(", ") == [f"Agent{place:03}" for place in range(50)]


@pytest.mark.parametrize(
    ("frequency", "marks"),
    [
        (task_graph_pb2.CHECKPOINT_FREQUENCY_UNSPECIFIED, []),
        (STEP, [1, 2, 3]),
        (ITERATION, [2, 3]),
        (TOOL_CALL, [1, 1, 2, 3]),
    ],
)
def test_a_policy_says_when_a_checkpoint_is_due(frequency: int, marks: list[int]) -> None:
    tries = iter(["one", failure(), "two", "three"])
    play = Play([node("a"), node("b"), node("c", "a", "b")], script=lambda name, agent: next(tries))
    play.state.graph.checkpoint_policy.frequency = frequency  # type: ignore[assignment] # a parameter
    last, taken = Mark(), []
    while not play.state.finished:
        play.step()
        if keeper.due(play.state, last):
            last = keeper.mark(play.state)
            taken.append(last.ended)
    assert taken == marks


async def test_checkpoints_are_made_while_the_graph_runs_and_the_last_one_is_named() -> None:
    world = World()
    kept = await world.execute(*CHAIN, **policy(STEP))
    await world.drive()
    ids = await saved(world, kept.session.id)
    shown = await world.graphs.shown(TENANT, kept.graph.id)
    found = await world.checkpoints.every(TENANT, CheckpointFilter(run_id=kept.graph.id), page=Page())
    assert ids
    assert shown.last_checkpoint_id == ids[-1]
    assert {one.id for one in found} == set(ids)
    assert max(one.iteration_count for one in found) == 4


async def test_without_a_policy_none_is_made_of_a_graph_that_ends_well() -> None:
    world = World()
    kept = await world.execute(*CHAIN)
    await world.drive()
    assert await saved(world, kept.session.id) == []


async def test_a_failure_names_a_checkpoint_from_which_only_what_is_missing_is_run() -> None:
    world = World()
    world.inference.failures = [None, None, EXHAUSTED]  # type: ignore[list-item] # the first two go well
    kept = await world.execute(*CHAIN)
    await world.drive()
    failed = await world.find(kept.session.id)
    checkpoint_id = failed.failure.metadata["last_checkpoint_id"]
    assert failed.failure.reason == Reason.ERROR_REASON_BUDGET_EXHAUSTED

    again = await resumed(world, checkpoint_id)
    await world.drive()
    assert (await world.find(again.session.id)).status == session_pb2.SESSION_STATUS_COMPLETED
    assert await states(world, again.graph.id) == dict.fromkeys("abcd", "COMPLETED")
    assert len(world.inference.started) == 3 + 2


async def test_a_time_budget_that_ran_out_leaves_a_checkpoint_from_which_a_later_run_goes_on() -> None:
    world = World()
    slow = node("b", "a", max_attempts=1)
    slow.timeout.FromMilliseconds(300)
    held = iter([1])

    def reply(utterance: Utterance) -> str:
        world.inference.held_at = next(held, None) if "Do b." in utterance.lines[-1].text else None
        return "done"

    world.inference.reply = reply
    kept = await world.execute(node("a"), slow, node("c", "b"))
    await world.drive()
    failed = await world.find(kept.session.id)
    assert failed.failure.reason == Reason.ERROR_REASON_TASK_TIMED_OUT
    world.inference.release()
    again = await resumed(world, failed.failure.metadata["last_checkpoint_id"])
    await world.drive()
    assert await states(world, again.graph.id) == dict.fromkeys("abc", "COMPLETED")
    assert sum("Do a." in utterance.lines[-1].text for utterance in world.inference.started) == 1


async def test_a_graph_set_aside_before_anything_ended_leaves_a_checkpoint_too() -> None:
    world = World()
    world.inference.held_at = 1
    kept = await world.execute(*CHAIN)
    for _ in range(7):
        drive = await world.graph_driver().open(await world.claim(), asyncio.Event())
        rests = await drive.go()
        await drive.stop()
        world.clock.advance(TTL * 2)
    assert rests
    failed = await world.find(kept.session.id)
    world.inference.release()
    again = await resumed(world, failed.failure.metadata["last_checkpoint_id"])
    await world.drive()
    assert failed.failure.reason == Reason.ERROR_REASON_SESSION_POISONED
    assert (await world.find(again.session.id)).status == session_pb2.SESSION_STATUS_COMPLETED


async def test_a_manual_interruption_leaves_a_checkpoint_to_go_on_from() -> None:
    world = World()
    kept = await world.execute(node("a"), node("b", "a"))
    await world.graph_driver().tasks.agents.welcome(TENANT)
    watching = Watching(world, kept.session.id)
    replies = iter([None])
    world.inference.reply = lambda utterance: next(replies, "x y z") or "quick"
    async with driving(world, "one") as task:
        while "task_finished" not in await world.kinds(kept.session.id):
            await asyncio.sleep(0)
        world.inference.held_at = 2
        await world.graphs.cancel(ADA, kept.graph.id, "", request_id=None)
        await asyncio.wait_for(task, 5)
    watching.stop()
    (checkpoint_id,) = await saved(world, kept.session.id)
    world.inference.release()
    again = await resumed(world, checkpoint_id)
    await world.drive()
    assert await states(world, again.graph.id) == {"a": "COMPLETED", "b": "COMPLETED"}
    assert sum("Do a." in utterance.lines[-1].text for utterance in world.inference.started) == 1


async def test_any_checkpoint_of_a_run_can_be_gone_on_from() -> None:
    world = World()
    play = Play([node("a"), node("b", "a"), node("c", "a"), node("d", "b", "c")])
    play.run()
    for end in range(1, len(play.log) + 1):
        state = fold(GraphState(), play.log[:end])
        made = form.read(await world.checkpoints.save(TENANT, state))
        found = await world.checkpoints.find(TENANT, made.id)
        assert found == made
        again = await resumed(world, made.id)
        world.inference.forget()
        before = len(world.inference.started)
        await world.drive()
        assert await states(world, again.graph.id) == dict.fromkeys("abcd", "COMPLETED")
        assert len(world.inference.started) - before == 4 - len(state.results)


@pytest.mark.parametrize("wanted", [None, shapes.graph(task_graph_pb2.TaskGraph(nodes=[node("a"), node("b", "a")]))])
async def test_a_try_in_flight_in_a_checkpoint_is_asked_for_again_under_its_key_and_not_paid_twice(
    wanted: task_graph_pb2.TaskGraph | None,
) -> None:
    world = World()
    world.inference.held_at = 3
    kept = await world.execute(node("a"), node("b", "a"))
    watching = Watching(world, kept.session.id)
    async with driving(world, "one"):
        await watching.until(3)
        made = await world.graphs.save(TENANT, kept.graph.id, notes={})
    watching.stop()
    world.inference.release()
    world.leases.release(await _expired(world), ready=False)
    again = await resumed(world, made.id, wanted)
    await world.drive()
    assert [dict(one)["status"] for one in made.tool_results] == ["TASK_STATUS_RUNNING"]
    assert await states(world, again.graph.id) == {"a": "COMPLETED", "b": "COMPLETED"}
    assert len(world.inference.started) == 2


async def _expired(world: World) -> Any:
    world.clock.advance(TTL * 2)
    return await world.claim("two")


async def test_another_graph_takes_over_results_of_nodes_that_are_the_same_down_to_the_ground() -> None:
    world = World()
    kept = await world.execute(*CHAIN)
    await world.drive()
    made = await world.graphs.save(TENANT, kept.graph.id, notes={})
    changed = [CHAIN[0], node("b", "a", agent="Hermes"), CHAIN[2], CHAIN[3], node("e", "a")]
    again = await resumed(world, made.id, shapes.graph(task_graph_pb2.TaskGraph(nodes=changed)))
    before = len(world.inference.started)
    await world.drive()
    assert await states(world, again.graph.id) == dict.fromkeys("abcde", "COMPLETED")
    assert len(world.inference.started) - before == 4


async def test_a_try_in_flight_on_other_ground_is_asked_something_else() -> None:
    play = Play([node("a", max_attempts=1), node("b", "a", condition="!results.a.success")])
    play.step()
    play.write(outcome.broke_off("a", play.state.trying["a"], failure(retryable=False)))
    play.step()
    play.step()
    made = form.read(form.of_graph(play.state, "chk_1", now=play.clock.now()))
    assert list(made.metadata["partial"]) == ["b"]
    assert form.resumption(made, None).keys == {}


async def test_what_failed_or_was_skipped_is_decided_anew() -> None:
    play = Play(
        [node("a", max_attempts=1), node("b", "a"), node("c", "a", condition="!results.a.success"), node("d", "c")],
        script=lambda name, agent: failure(retryable=False) if name == "a" else name,
    )
    play.run()
    made = form.read(form.of_graph(play.state, "chk_1", now=play.clock.now()))
    begun = form.resumption(made, None)
    assert {result.node_id for result in begun.results} == {"c", "d"}


class Away(MemoryCheckpointStore):
    async def save(self, *given: object) -> None:
        raise Unavailable("the place does not answer")


async def test_a_place_that_is_away_stops_no_graph_and_no_failure_names_what_is_not_there() -> None:
    world = World(checkpoint_store=Away())
    kept = await world.execute(*CHAIN, **policy(STEP))
    await world.drive()
    world.inference.failures = [EXHAUSTED]
    failing = await world.execute(*CHAIN)
    await world.drive()
    failure = (await world.find(failing.session.id)).failure
    assert (await world.find(kept.session.id)).status == session_pb2.SESSION_STATUS_COMPLETED
    assert await saved(world, kept.session.id) == []
    assert failure.reason == Reason.ERROR_REASON_BUDGET_EXHAUSTED
    assert "last_checkpoint_id" not in failure.metadata


class Slow(MemoryCheckpointStore):
    def __init__(self) -> None:
        super().__init__()
        self.go_on = asyncio.Event()
        self.saves = 0

    async def save(self, tenant: str, checkpoint_id: str, data: dict[str, Any]) -> None:
        self.saves += 1
        await self.go_on.wait()
        await super().save(tenant, checkpoint_id, data)


async def test_a_slow_place_delays_no_node_and_what_ends_meanwhile_shares_the_next() -> None:
    world = World(checkpoint_store=Slow())
    kept = await world.execute(*CHAIN, **policy(STEP))
    async with driving(world, "one") as task:
        while len(world.inference.started) < 4:
            await asyncio.sleep(0)
        assert world.checkpoint_store.saves == 1
        world.checkpoint_store.go_on.set()
        await asyncio.wait_for(task, 5)
    ids = await saved(world, kept.session.id)
    assert len(ids) == 2
    assert (await world.checkpoints.find(TENANT, ids[-1])).iteration_count == 4


async def test_a_driver_that_stops_leaves_what_it_was_saving() -> None:
    world = World(checkpoint_store=Slow())
    await world.execute(*CHAIN, **policy(STEP))
    async with driving(world, "one"):
        while not world.checkpoint_store.saves:
            await asyncio.sleep(0)
    assert world.checkpoint_store._kept == {}


SEED_FORM = {
    "checkpoint_id": "chk_1", "agent_name": "Athena", "run_id": "run_1", "timestamp": "2026-01-01T12:00:00Z",
    "messages": [{"role": "user", "content": "Hi"}], "tool_results": [], "iteration_count": 3, "total_tokens": 12,
    "total_cost_usd": 0.0125, "metadata": {"note": "mine"}, "version": "1.0",
}  # fmt: skip


async def test_a_checkpoint_in_the_form_of_the_seeds_is_upgraded_when_it_is_read() -> None:
    kept = Checkpoints(MemoryCheckpointStore(), World().clock, World().ids)
    await kept.store.save(TENANT, "chk_1", dict(SEED_FORM))
    found = await kept.find(TENANT, "chk_1")
    assert (found.id, found.version, found.total_cost_micros_usd, found.iteration_count) == ("chk_1", "1.1", 12_500, 3)
    assert found.time.ToJsonString() == "2026-01-01T12:00:00Z"
    with pytest.raises(CheckpointIncompatible):
        await kept.resumption(TENANT, "chk_1", None)


@pytest.mark.parametrize(
    "stored", [{**SEED_FORM, "version": "9.0"}, {"id": "chk_1"}, {"id": "chk_1", "version": "1.1", "nonsense": 1}]
)
async def test_a_checkpoint_of_another_version_is_refused_with_what_is_known(stored: dict[str, Any]) -> None:
    with pytest.raises(CheckpointIncompatible) as raised:
        form.read(stored)
    assert "1.1" in raised.value.facts["known"]


async def test_one_that_cannot_be_read_hides_no_other() -> None:
    world = World()
    kept = await world.execute(*CHAIN)
    await world.drive()
    made = await world.graphs.save(TENANT, kept.graph.id, notes={})
    await world.checkpoint_store.save(TENANT, "chk_zz", {**SEED_FORM, "id": "chk_zz", "version": "9.0"})
    found = await world.checkpoints.every(TENANT, CheckpointFilter(), page=Page())
    assert [(one.id, one.version, bool(one.metadata)) for one in found] == [
        ("chk_zz", "9.0", False),
        (made.id, form.VERSION, True),
    ]


async def test_a_checkpoint_that_is_not_there_is_not_found() -> None:
    world = World()
    for call in (world.checkpoints.find, world.checkpoints.delete):
        with pytest.raises(CheckpointNotFound):
            await call(TENANT, "chk_none")
    with pytest.raises(FieldRequired):
        await world.graphs.execute(ADA, None, request_id=None)


def test_time_is_kept_to_the_microsecond() -> None:
    play = Play([node("a")])
    moment = play.clock.now() + timedelta(microseconds=1)
    made = form.of_graph(play.state, "chk_1", now=moment)
    assert form.read(made).time.ToNanoseconds() % 1_000_000 == 1_000
    assert form.read(made).agent_name == "Athena"


async def test_after_a_checkpoint_none_is_made_for_a_hundred_times_as_long_as_it_took() -> None:
    class Costly(MemoryCheckpointStore):
        async def save(self, tenant: str, checkpoint_id: str, data: dict[str, Any]) -> None:
            world.clock.advance(timedelta(milliseconds=1))
            await super().save(tenant, checkpoint_id, data)

    world = World(checkpoint_store=Costly())
    kept = await world.execute(
        *[node(f"n{place}", *[f"n{place - 1}"] if place else []) for place in range(30)], **policy(STEP)
    )
    await world.drive()
    ids = await saved(world, kept.session.id)
    assert len(ids) == 2
    assert (await world.checkpoints.find(TENANT, ids[-1])).iteration_count == 30
