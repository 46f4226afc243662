"""What an agent is given to read, and that it fits."""

from __future__ import annotations

from agentnet.orchestrator.v1 import session_pb2
from services.orchestrator.modes import mode
from services.orchestrator.prompts import Known, Line, prompt
from services.orchestrator.state import SessionState, Spoken

SESSION = session_pb2.Session(topic_start="Failover", mode="brainstorm", max_rounds=3)


def ask(state: SessionState, *, name: str = "brainstorm", known: tuple[Known, ...] = ()) -> tuple[Line, ...]:
    return prompt(state, mode(name), agent="Athena@1.0.0", system_prompt="You are Athena.", round_number=2, known=known)


def said(content: str) -> tuple[Spoken, ...]:
    return tuple(Spoken(f"trn_{place}", 1, f"Agent{place}@1.0.0", content) for place in range(9))


def test_it_says_who_the_agent_is_its_part_what_it_knows_what_was_said_and_what_is_asked() -> None:
    state = SessionState(session=SESSION, spoken=said("One idea."))
    system, user = ask(state, known=(Known("mem_1", "Order matters.", 0.9),))
    assert system.role == "system"
    assert [part in system.text for part in ("You are Athena.", "round 2 of 3", "- Order matters.")] == [True] * 3
    assert user.role == "user"
    assert user.text.index("Agent8: One idea.") < user.text.index("The topic is: Failover")


def test_a_single_agent_reads_its_prompt_and_nothing_around_it() -> None:
    state = SessionState(session=SESSION)
    assert ask(state, name="single") == (Line("system", "You are Athena."), Line("user", "Failover"))


def test_the_tail_keeps_the_latest_and_fits_a_small_context() -> None:
    state = SessionState(session=SESSION, spoken=said("long words " * 200))
    _, user = ask(state)
    assert "Agent8" in user.text
    assert "Agent0" not in user.text
    assert len(user.text) < 6_500


def test_one_endless_turn_is_cut_and_not_left_out() -> None:
    state = SessionState(session=SESSION, spoken=(Spoken("trn_1", 1, "Apollo@1.0.0", "word " * 5_000),))
    _, user = ask(state)
    assert user.text.count("word") > 1_000
    assert len(user.text) < 6_500
