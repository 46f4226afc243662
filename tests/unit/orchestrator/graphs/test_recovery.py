"""A replica dies at any step of a graph: the next one goes on, nothing is repeated, no reader sees a gap."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from datetime import timedelta

import pytest

from agentnet.orchestrator.v1 import event_pb2, session_pb2, task_graph_pb2
from services.orchestrator.graphs.state import GraphState, fold
from shared.errors import Aborted, MeshError, Reason, ResourceExhausted, Unavailable
from tests.support.graphs import node
from tests.support.mortal import Fate, Killed, Moment, MortalStore, MortalTail
from tests.support.orchestrator import ADA, TENANT, TTL, ScriptedInference, Watching, World, driving

CONCAT = task_graph_pb2.AGGREGATION_CONCAT
AGGREGATOR = task_graph_pb2.TASK_KIND_AGGREGATOR
VALIDATOR = task_graph_pb2.TASK_KIND_VALIDATOR


def twelve() -> list[task_graph_pb2.TaskNode]:
    """Twelve nodes: a fan-out, a chain, a branch not taken, a validator, a join without an agent."""
    return [
        node("root"),
        node("left", "root"),
        node("middle", "root", agent="Apollo"),
        node("right", "root", agent="Hermes"),
        node("left2", "left"),
        node("left3", "left2"),
        node("branch", "middle", condition="results.middle.output.contains('idea')"),
        node("other", "middle", condition="!results.middle.output.contains('idea')"),
        node("join", "branch", "other"),
        node("judge", "right", agent="Judge"),
        node("all", "left3", "join", "judge", agent="", kind=AGGREGATOR, aggregation=CONCAT),
        node("end", "all"),
    ]


async def judged(world: World) -> None:
    from agentnet.orchestrator.v1 import agent_pb2

    judge = agent_pb2.Agent(name="Judge", version="1.0.0", state=agent_pb2.AGENT_STATE_ACTIVE)
    await world.agents.create(TENANT, judge)


async def run_until_killed(world: World, fate: Fate) -> bool:
    """Drives the ready graph with a mortal driver; False when it lived to the end."""
    driver = world.graph_driver(store=MortalStore(world.store, fate), tail=MortalTail(world.tail, fate))
    try:
        await driver.drive(await world.claim("one"), asyncio.Event())
    except Killed:
        return True
    return False


async def outcome(world: World, graph_id: str) -> dict[str, tuple[int, str]]:
    shown = await world.graphs.shown(TENANT, graph_id)
    return {result.node_id: (result.status, result.output) for result in shown.results}


async def check_told_once(world: World, session_id: str, seen: list[bytes]) -> None:
    events = await world.log(session_id)
    assert seen == [event.SerializeToString() for event in events]
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    ended = Counter(event.task_finished.result.node_id for event in events if event.HasField("task_finished"))
    assert set(ended.values()) == {1}
    started = Counter(utterance.generation_id for utterance in world.inference.started)
    assert set(started.values()) == {1}, "an effect happened twice"
    reserved = {event.task_started.turn_id for event in events if event.HasField("task_started")}
    assert set(started) == reserved, "an effect happened that was not reserved"


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_death_at_any_write_of_a_twelve_node_graph_changes_nothing_but_the_owner(moment: Moment) -> None:
    calm = World()
    await judged(calm)
    calm_graph = await calm.execute(*twelve())
    await calm.drive()
    expected = await outcome(calm, calm_graph.graph.id)
    assert len(expected) == 12

    for at in range(1, 200):
        world = World()
        await judged(world)
        kept = await world.execute(*twelve())
        watching = Watching(world, kept.session.id)
        lived = not await run_until_killed(world, Fate(at, moment))
        if (await world.find(kept.session.id)).status != session_pb2.SESSION_STATUS_COMPLETED:
            world.clock.advance(TTL * 2)
            await world.drive("two")

        await check_told_once(world, kept.session.id, await watching.end())
        assert await outcome(world, kept.graph.id) == expected, f"died {moment} write {at}"
        assert len(world.inference.started) == 10
        if lived:
            break
    else:
        pytest.fail("the graph never lived to its end")
    assert at > 20


@pytest.mark.parametrize("seed", range(20))
async def test_ten_deaths_at_random_in_a_bigger_graph_change_nothing_but_the_owners(seed: int) -> None:
    await _ten_deaths(seed, size=40)


@pytest.mark.heavy
@pytest.mark.parametrize("seed", range(100, 120))
async def test_two_hundred_more_deaths_in_graphs_of_a_hundred_and_twenty_change_nothing_either(seed: int) -> None:
    await _ten_deaths(seed, size=120)


async def _ten_deaths(seed: int, *, size: int) -> None:
    chance = random.Random(seed)
    nodes = [node(f"n{place}", *{f"n{chance.randrange(place)}" for _ in range(2) if place}) for place in range(size)]
    world = World()
    kept = await world.execute(*nodes, max_parallel_tasks=8)
    watching = Watching(world, kept.session.id)
    for _ in range(10):
        if not await run_until_killed(world, Fate(chance.randrange(1, 25), chance.choice(["before", "after"]))):
            break
        if kept.session.id not in [session for (_, session), row in world.leases._rows.items() if row.ready]:
            break  # died with its last write done
        world.clock.advance(TTL * 2)
        await world.leases.claim("nobody", ttl=TTL, limit=0)
        world.leases._rows[TENANT, kept.session.id].takeovers = 0  # ten deaths in a row would set it aside
    else:
        await world.drive("last")

    await check_told_once(world, kept.session.id, await watching.end())
    assert len(world.inference.started) == size
    shown = await world.graphs.shown(TENANT, kept.graph.id)
    assert {result.status for result in shown.results} == {task_graph_pb2.TASK_STATUS_COMPLETED}


async def test_every_prefix_of_a_real_graph_folds_to_the_state_at_its_end() -> None:
    world = World()
    await judged(world)
    kept = await world.execute(*twelve())
    await world.drive()
    state = GraphState()
    for event in await world.log(kept.session.id):
        state = fold(state, [event])
    assert state == fold(GraphState(), await world.log(kept.session.id))
    assert state.session == await world.find(kept.session.id)


async def test_what_was_in_flight_is_gone_on_with_by_the_next_owner_under_the_same_keys() -> None:
    world = World()
    world.inference.held_at = 4
    kept = await world.execute(node("a"), node("b"), node("c", "a", "b"))
    watching = Watching(world, kept.session.id)
    async with driving(world, "one"):
        await watching.until(5)
    world.clock.advance(TTL * 2)
    world.inference.release()
    await world.drive("two")

    kinds = await world.kinds(kept.session.id)
    assert kinds.count("session_taken_over") == 1
    assert kinds.count("task_started") == len(world.inference.started) == 3
    await check_told_once(world, kept.session.id, await watching.end())


async def test_a_generation_that_died_with_its_owner_is_a_recorded_second_try() -> None:
    world = World()
    world.inference.held_at = 4
    kept = await world.execute(node("a"))
    watching = Watching(world, kept.session.id)
    async with driving(world, "one"):
        await watching.until(3)
    world.clock.advance(TTL * 2)
    world.inference.forget()
    await world.drive("two")

    events = await world.log(kept.session.id)
    (broken,) = [event.task_interrupted for event in events if event.HasField("task_interrupted")]
    (result,) = [event.task_finished.result for event in events if event.HasField("task_finished")]
    assert broken.failure.reason == Reason.ERROR_REASON_GENERATION_LOST
    assert (result.retries, result.output) == (1, "Athena has one idea about it.")


NETWORK = Unavailable("the provider cannot be reached", reason=Reason.ERROR_REASON_PROVIDER_UNAVAILABLE)
LIMITED = ResourceExhausted(
    "slow down", reason=Reason.ERROR_REASON_PROVIDER_RATE_LIMITED, retry_after=timedelta(seconds=7)
)
EXHAUSTED = ResourceExhausted("no money", reason=Reason.ERROR_REASON_BUDGET_EXHAUSTED)


async def test_a_network_error_is_bridged() -> None:
    world = World()
    world.inference.breaks = {3: NETWORK}
    kept = await world.execute(node("a"), node("b", "a"))
    await world.drive()
    assert (await world.find(kept.session.id)).status == session_pb2.SESSION_STATUS_COMPLETED
    assert len(world.inference.started) == 2
    assert "task_interrupted" not in await world.kinds(kept.session.id)


async def test_a_result_has_the_tokens_and_the_money_of_all_tries() -> None:
    world = World()
    world.inference.failures = [Unavailable("the stream broke"), Unavailable("and again")]
    kept = await world.execute(node("a"))
    await world.drive()
    (result,) = (await world.graphs.shown(TENANT, kept.graph.id)).results
    session = await world.find(kept.session.id)
    assert (result.retries, result.cost_micros_usd, session.cost_micros_usd) == (2, 21, 21)
    assert (result.usage.input_tokens, session.usage.input_tokens, session.usage.output_tokens) == (30, 30, 18)


async def test_what_failed_for_good_has_been_paid_for_all_the_same() -> None:
    world = World()
    plan = node("p", kind=task_graph_pb2.TASK_KIND_PLANNER, max_attempts=2)
    kept = await world.execute(plan)
    await world.drive()
    (result,) = (await world.graphs.shown(TENANT, kept.graph.id)).results
    assert result.failure.reason == Reason.ERROR_REASON_TASK_OUTPUT_INVALID
    assert (result.cost_micros_usd, (await world.find(kept.session.id)).cost_micros_usd) == (14, 14)


async def test_a_providers_rate_limit_is_waited_out() -> None:
    world = World()
    world.inference.refusals = [LIMITED, LIMITED]
    kept = await world.execute(node("a"), node("b", "a"))
    await world.drive()
    shown = await world.graphs.shown(TENANT, kept.graph.id)
    assert [result.retries for result in shown.results] == [2, 0]
    assert [nap for nap in world.naps if nap > 1] == [7, 7]


async def test_an_exhausted_budget_stops_the_graph_and_says_so() -> None:
    world = World()
    kept = await world.execute(node("a"), node("b", "a"), node("c", "b"))
    world.inference.failures = [None, EXHAUSTED]  # type: ignore[list-item] # the first one goes well
    await world.drive()
    session = await world.find(kept.session.id)
    assert (session.status, session.stop_reason) == (
        session_pb2.SESSION_STATUS_FAILED,
        session_pb2.STOP_REASON_BUDGET_EXHAUSTED,
    )
    assert len(world.inference.started) == 2


async def test_a_time_budget_ends_a_try_that_takes_too_long_and_calls_it_off() -> None:
    world = World()
    world.inference.held_at = 3
    slow = node("a", max_attempts=2)
    slow.timeout.FromMilliseconds(20)
    kept = await world.execute(slow)
    await world.drive()
    shown = await world.graphs.shown(TENANT, kept.graph.id)
    (result,) = shown.results
    assert result.failure.reason == Reason.ERROR_REASON_TASK_TIMED_OUT
    assert result.retries == 1
    assert world.inference.cancelled == [utterance.generation_id for utterance in world.inference.started]
    session = await world.find(kept.session.id)
    assert (result.cost_micros_usd, result.usage.input_tokens, session.cost_micros_usd) == (6, 20, 6), "what was paid"


async def test_a_try_that_is_late_while_inference_is_away_is_late_all_the_same() -> None:
    world = World()
    world.inference = Deaf(held_at=3)
    slow = node("a", max_attempts=1)
    slow.timeout.FromMilliseconds(20)
    kept = await world.execute(slow)
    await world.drive()
    (result,) = (await world.graphs.shown(TENANT, kept.graph.id)).results
    assert (result.failure.reason, result.cost_micros_usd) == (Reason.ERROR_REASON_TASK_TIMED_OUT, 0)


@pytest.mark.parametrize("error", [Aborted("lost", reason=Reason.ERROR_REASON_GENERATION_LOST), NETWORK])
async def test_a_failure_beyond_its_tries_goes_to_the_fallback_agent(error: MeshError) -> None:
    world = World()
    world.inference.failures = [error, error]
    kept = await world.execute(node("a", fallback_agent="Apollo", max_attempts=2))
    await world.drive()
    (result,) = (await world.graphs.shown(TENANT, kept.graph.id)).results
    assert (result.agent, result.output, result.retries) == ("Apollo@1.0.0", "Apollo has one idea about it.", 2)


async def test_a_planner_node_grows_the_graph_with_pinned_agents() -> None:
    plan = '[{"id": "x", "prompt": "p", "agent": "Apollo", "depends_on": []}]'
    world = World()
    world.inference.reply = lambda utterance: plan if "Cut the goal" in utterance.lines[-1].text else "done"
    kept = await world.execute(node("plan", kind=task_graph_pb2.TASK_KIND_PLANNER), node("end", "plan"))
    await world.drive()
    shown = await world.graphs.shown(TENANT, kept.graph.id)
    assert {entry.id: (entry.agent, list(entry.depends_on)) for entry in shown.graph.nodes} == {
        "plan": ("Athena@1.0.0", []),
        "end": ("Athena@1.0.0", ["plan", "plan-x"]),
        "plan-x": ("Apollo@1.0.0", ["plan"]),
    }
    assert shown.progress == task_graph_pb2.GraphProgress(total=3, ended=3)
    assert [utterance.form is not None for utterance in world.inference.started] == [True, False, False]


async def test_a_map_reduce_grows_its_own_reducers() -> None:
    world = World()
    workers = [node(f"w{place}") for place in range(9)]
    pattern = task_graph_pb2.AGGREGATION_MAP_REDUCE
    total = node("sum", *(worker.id for worker in workers), kind=AGGREGATOR, aggregation=pattern)
    kept = await world.execute(*workers, total)
    await world.drive()
    assert (await world.find(kept.session.id)).status == session_pb2.SESSION_STATUS_COMPLETED
    assert len(world.inference.started) == 12


class Deaf(ScriptedInference):
    async def cancel(self, caller: object, generation_id: str) -> None:
        raise NETWORK


@pytest.mark.parametrize("target", ["a", ""], ids=["a node", "the graph"])
async def test_what_a_cancelled_node_has_cost_is_in_its_result(target: str) -> None:
    world = World()
    world.inference.held_at = 3
    kept = await world.execute(node("a"), node("b", "a"))
    watching = Watching(world, kept.session.id)
    async with driving(world, "one") as task:
        await watching.until(3)
        await world.graphs.cancel(ADA, kept.graph.id, target, request_id=None)
        await asyncio.wait_for(task, 5)
    results = {one.node_id: one for one in (await world.graphs.shown(TENANT, kept.graph.id)).results}
    assert [one.status for one in results.values()] == [task_graph_pb2.TASK_STATUS_CANCELLED] * 2
    assert (results["a"].output, results["a"].cost_micros_usd, results["a"].usage.output_tokens) == ("Athena", 3, 1)
    assert (results["b"].cost_micros_usd, (await world.find(kept.session.id)).cost_micros_usd) == (0, 3)
    assert len(world.inference.cancelled) == 1


async def test_a_cancel_while_a_try_is_called_off_that_cannot_be_reached_still_ends_the_graph() -> None:
    world = World()
    world.inference = Deaf(held_at=3)
    kept = await world.execute(node("a"))
    watching = Watching(world, kept.session.id)
    async with driving(world, "one") as task:
        await watching.until(3)
        await world.graphs.cancel(ADA, kept.graph.id, "", request_id=None)
        await asyncio.wait_for(task, 5)
    assert (await world.find(kept.session.id)).status == session_pb2.SESSION_STATUS_CANCELLED


async def test_a_lost_lease_stops_the_drive_at_once() -> None:
    from services.orchestrator.errors import LeaseLost

    world = World()
    world.inference.held_at = 4
    kept = await world.execute(node("a"))
    watching = Watching(world, kept.session.id)
    async with driving(world, "one") as task:
        await watching.until(3)
        world.clock.advance(TTL * 2)
        await world.claim("two")
        world.inference.release()
        (ended,) = await asyncio.gather(task, return_exceptions=True)
    assert isinstance(ended, LeaseLost)
    watching.stop()
    assert "task_finished" not in await world.kinds(kept.session.id)


async def test_a_graph_that_had_ended_when_its_owner_died_stays_as_it_ended() -> None:
    world = World()
    kept = await world.execute(node("a"))
    lease = await world.claim("one")
    await world.graph_driver().drive(lease, asyncio.Event())
    before = await world.log(kept.session.id)
    world.leases.make_ready(TENANT, kept.session.id)
    await world.drive("two")
    assert await world.log(kept.session.id) == before


def test_the_events_of_graphs_are_part_of_the_log() -> None:
    kinds = {field.name for field in event_pb2.SessionEvent.DESCRIPTOR.oneofs_by_name["payload"].fields}
    assert {"task_started", "task_interrupted", "task_finished", "graph_grown"} <= kinds
