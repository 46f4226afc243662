"""What holds of graphs of every form and size."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentnet.orchestrator.v1 import task_graph_pb2
from services.orchestrator.graphs.state import GraphState, descendants, fold
from tests.support.graphs import Event, Play, failure, node


def random_graph(seed: list[list[int]]) -> list[task_graph_pb2.TaskNode]:
    return [
        node(f"n{place}", *(f"n{before % place}" for before in wanted if place)) for place, wanted in enumerate(seed)
    ]


GRAPHS = st.lists(st.lists(st.integers(0, 50), max_size=4), min_size=1, max_size=25).map(random_graph)


@settings(deadline=None)  # counted lines and a busy machine take their time
@given(GRAPHS, st.sets(st.integers(0, 24), max_size=4), st.integers(1, 6))
def test_every_graph_ends_and_runs_each_node_once_after_what_it_depends_on(
    nodes: list[task_graph_pb2.TaskNode], lost: set[int], parallel: int
) -> None:
    bad = {f"n{place}" for place in lost}
    play = Play(nodes, script=lambda name, agent: failure(retryable=False) if name in bad else name, parallel=parallel)
    play.run()
    begun = [name.partition(":")[0] for name in play.begun]
    assert len(begun) == len(set(begun))
    assert len(play.state.results) == len(nodes)
    assert play.most <= parallel
    for place, name in enumerate(begun):
        assert set(play.state.depends_on[name]) <= set(begun[:place])
    doomed = {after for name in bad for after in descendants(play.state, name) if name in play.state.nodes} - bad
    assert {name for name in play.state.results if play.status(name) == "SKIPPED"} >= doomed - set(begun)


@settings(deadline=None)
@given(GRAPHS, st.integers(0, 200))
def test_any_prefix_of_a_log_folds_to_the_state_that_was_there(nodes: list[task_graph_pb2.TaskNode], cut: int) -> None:
    play = Play(nodes)
    play.run()
    place = cut % len(play.log)
    first = fold(GraphState(), play.log[:place])
    assert fold(first, play.log[place:]) == play.state


def _lines(play: Play) -> int:
    """How many lines of code a whole run executes: work that no other load on the machine can change."""
    executed = 0

    def count(_frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal executed
        executed += event == "line"
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        play.run()
    finally:
        sys.settrace(before)
    return executed


@pytest.mark.parametrize("every", [1, 10, 1_000], ids=["side by side", "chains of ten", "one chain"])
def test_a_thousand_nodes_are_scheduled_in_linear_time(every: int) -> None:
    def chains(count: int) -> Play:
        return Play([node(f"n{place}", *([f"n{place - 1}"] if place % every else [])) for place in range(count)])

    assert _lines(chains(1_000)) < _lines(chains(100)) * 11


def test_cancelling_a_thousand_nodes_is_linear_too() -> None:
    def cancelled(count: int) -> Play:
        play = Play([node(f"n{place}") for place in range(count)])
        play.signal("cancel")
        return play

    assert _lines(cancelled(1_000)) < _lines(cancelled(100)) * 11


def test_a_step_copies_nothing_that_grows_with_the_graph() -> None:
    play = Play([node(f"n{place}", *([f"n{place - 1}"] if place else [])) for place in range(10)])
    maps = ("nodes", "depends_on", "dependents", "blocked", "ready", "trying", "broken", "results", "started")
    before = [getattr(play.state, name) for name in maps]
    play.run()
    assert all(getattr(play.state, name) is same for name, same in zip(maps, before, strict=True))


def test_an_event_that_means_nothing_to_a_graph_only_moves_it_on() -> None:
    play = Play([node("a")])
    before = fold(GraphState(), play.log)
    after = fold(fold(GraphState(), play.log), [Event(sequence=before.last_sequence + 1)])
    assert after.last_sequence == before.last_sequence + 1
    assert (after.ready, after.blocked, after.results) == (before.ready, before.blocked, before.results)


def test_an_event_that_says_nothing_about_a_graph_is_only_counted() -> None:
    state = fold(GraphState(), [Event(sequence=4)])
    assert state == GraphState(last_sequence=4)
