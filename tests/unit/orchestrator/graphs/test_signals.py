"""What people and owners do to a graph that runs: cancel, pause, resume, take over."""

from __future__ import annotations

from agentnet.orchestrator.v1 import event_pb2, session_pb2, task_graph_pb2
from services.orchestrator.graphs import outcome, schedule
from tests.support.graphs import Event, Play, node


def test_a_cancelled_node_takes_what_depends_on_it_along_and_nothing_else() -> None:
    play = Play([node("a"), node("b", "a"), node("c", "b"), node("d"), node("e", "d")])
    play.step(), play.step()
    play.signal("cancel_task", "a")
    play.run()
    assert [play.status(name) for name in "abcde"] == ["CANCELLED", "CANCELLED", "CANCELLED", "COMPLETED", "COMPLETED"]
    assert play.ended == "COMPLETED"


def test_a_cancelled_dependency_skips_a_node_that_grew_later() -> None:
    play = Play([node("a"), node("b", "a")])
    play.step()
    play.write(
        outcome.settled(play.state, schedule.Settle("a", task_graph_pb2.TASK_STATUS_CANCELLED), now=play.clock.now())
    )
    play.run()
    assert play.status("b") == "SKIPPED"
    assert "was cancelled" in play.state.results["b"].failure.message


def test_a_signal_for_a_node_that_is_not_there_changes_nothing() -> None:
    play = Play([node("a")])
    play.signal("cancel_task", "ghost")
    play.signal("advance")
    play.run()
    assert play.ended == "COMPLETED"


def test_a_cancel_ends_every_node_and_the_graph() -> None:
    play = Play([node("a"), node("b", "a"), node("c")])
    play.step(), play.step()
    play.answer("c")
    play.signal("cancel")
    play.run()
    assert [play.status(name) for name in "abc"] == ["CANCELLED", "CANCELLED", "COMPLETED"]
    assert play.ended == "CANCELLED"


def test_a_paused_graph_starts_nothing_lets_what_runs_end_and_goes_on_when_resumed() -> None:
    play = Play([node("a"), node("b", "a")])
    play.step()
    play.signal("pause")
    assert isinstance(play.decide(), schedule.Await)
    play.run()
    assert isinstance(play.decide(), schedule.Wait)
    play.write(Event(session_waiting=event_pb2.SessionWaiting(status=session_pb2.SESSION_STATUS_PAUSED)))
    assert play.state.waiting
    play.signal("resume")
    play.run()
    assert play.ended == "COMPLETED"


def test_a_paused_graph_with_something_at_work_waits_for_it() -> None:
    play = Play([node("a"), node("b")], parallel=5)
    play.step()
    play.signal("pause")
    assert isinstance(play.decide(), schedule.Await)


def test_a_graph_taken_over_too_often_is_set_aside() -> None:
    play = Play([node("a")])
    for takeovers in range(1, 7):
        play.write(Event(session_taken_over=event_pb2.SessionTakenOver(takeovers=takeovers)))
    play.run()
    assert play.state.session.stop_reason == session_pb2.STOP_REASON_POISONED


def test_a_graph_that_gets_on_may_outlive_any_number_of_owners() -> None:
    play = Play([node(f"n{place}", *[f"n{place - 1}"] if place else []) for place in range(20)])
    while not play.state.finished:
        play.write(Event(session_taken_over=event_pb2.SessionTakenOver(takeovers=play.state.takeovers + 1)))
        play.step(), play.step()
    assert play.ended == "COMPLETED"
    assert play.state.takeovers >= 20
