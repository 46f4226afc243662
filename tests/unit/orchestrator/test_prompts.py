"""What an agent is given to read, and that it fits."""

from __future__ import annotations

from agentnet.common.v1 import failure_pb2
from agentnet.orchestrator.v1 import session_pb2
from services.orchestrator.extract import shorter, tokens
from services.orchestrator.forms import of
from services.orchestrator.modes.contract import Part
from services.orchestrator.prompts import Brief, Known, Line, Prompt, conversation, prompt
from services.orchestrator.state import Interrupted, SessionState, Spoken

AGENTS = ["Athena@1.0.0", "Apollo@1.0.0"]
SESSION = session_pb2.Session(topic_start="Failover", mode="brainstorm", max_rounds=3, agents=AGENTS)
SINGLE = session_pb2.Session(topic_start="Failover", mode="single", max_rounds=1, agents=AGENTS[:1])


def ask(state: SessionState, *, known: tuple[Known, ...] = (), limit: int = 6_000, memory: int = 600) -> Prompt:
    part = Part("Athena@1.0.0", "idea")
    brief = Brief(part, 2, "You are Athena.", known, limit_tokens=limit, memory_tokens=memory)
    return prompt(state, brief)


def said(content: str, *, count: int = 9) -> tuple[Spoken, ...]:
    return tuple(Spoken(f"trn_{place}", 1, f"Agent{place}@1.0.0", content, "idea") for place in range(count))


def turn(agent: str, number: int, content: str) -> Spoken:
    return Spoken(f"trn_{agent}_{number}", number, f"{agent}@1.0.0", content, "idea")


def test_it_says_who_the_agent_is_its_part_what_it_knows_what_was_said_and_what_is_asked() -> None:
    state = SessionState(session=SESSION, spoken=said("One idea."))
    made = ask(state, known=(Known("mem_1", "Order matters.", 0.9),))
    system, user = made.lines
    assert system.role == "system"
    assert [part in system.text for part in ("You are Athena.", "round 2 of 3", "- Order matters.")] == [True] * 3
    assert user.role == "user"
    assert user.text.index("Agent8: One idea.") < user.text.index("The topic is: Failover")
    assert made.reduced is None


def test_a_single_agent_reads_its_prompt_and_nothing_around_it() -> None:
    brief = Brief(Part("Athena@1.0.0", "answer"), 1, "You are Athena.")
    made = prompt(SessionState(session=SINGLE), brief)
    assert made.lines == (Line("system", "You are Athena."), Line("user", "Failover"))


def test_an_agent_reads_its_own_last_turn_what_is_new_since_and_the_rest_in_short() -> None:
    spoken = (turn("Apollo", 1, "Old news."), turn("Athena", 1, "My own."), turn("Apollo", 2, "Fresh."))
    read = conversation(spoken, "Athena@1.0.0")
    assert read == (
        "Said in earlier rounds, in short:\nApollo: Old news.\n\nYou said last:\nMy own.\n\n"
        "New since then:\nApollo: Fresh."
    )


def test_a_summary_is_of_the_last_rounds_alone() -> None:
    spoken = (*(turn("Apollo", number, f"Round {number}.") for number in range(1, 7)), turn("Athena", 6, "Mine."))
    read = conversation(spoken, "Athena@1.0.0")
    assert [f"Round {number}." in read for number in range(1, 7)] == [False, False, False, True, True, True]


def test_a_prompt_over_its_limit_is_made_shorter_and_says_what() -> None:
    state = SessionState(session=SESSION, spoken=said("Long words go on and on. " * 200))
    made = ask(state, limit=1_000)
    assert made.reduced is not None
    assert made.reduced.before > made.reduced.limit >= made.reduced.after
    assert made.reduced.parts == ("conversation",)
    assert "The topic is: Failover" in made.lines[-1].text


def test_a_topic_that_alone_is_over_the_limit_is_made_shorter_too() -> None:
    long = session_pb2.Session(topic_start="Why does it fail so often? " * 900, mode="brainstorm", agents=AGENTS)
    made = ask(SessionState(session=long), limit=500)
    assert made.reduced is not None
    assert made.reduced.parts == ("topic",)
    assert made.reduced.after <= 500


def test_memory_gives_what_its_budget_has_room_for_best_first() -> None:
    known = tuple(Known(f"mem_{place}", "A fact. " * 20, 0.9 - place / 10) for place in range(5))
    made = ask(SessionState(session=SESSION), known=known, memory=100)
    assert [item.id for item in made.known] == ["mem_0", "mem_1"]


def test_ballots_are_no_part_of_what_others_read() -> None:
    ballot = Spoken("trn_9", 1, "Apollo@1.0.0", '{"choice": "A"}', "vote")
    made = ask(SessionState(session=SESSION, spoken=(turn("Apollo", 1, "Words."), ballot)))
    assert "choice" not in made.lines[-1].text


def test_a_repair_shows_the_answer_and_what_is_wrong_with_it() -> None:
    failure = failure_pb2.Failure(message="$.value: it is missing")
    broken = Interrupted("trn_1", 1, "Athena@1.0.0", 1, failure, "answer", text='{"valu": 1}')
    form = of("estimate", value={"type": "number"})
    brief = Brief(Part("Athena@1.0.0", "answer"), 1, broken=broken, output_form=form)
    asked = prompt(SessionState(session=SINGLE), brief).lines[-1].text
    assert '{"valu": 1}' in asked
    assert "$.value: it is missing" in asked


def test_what_is_made_shorter_keeps_the_sentences_that_say_most_in_their_order() -> None:
    text = "Leases fence writers. Lunch was fine. Writers need leases. A fence stops stale writers with old leases."
    short = shorter(text, 13)
    assert tokens(short) <= 13
    assert short.startswith("Leases fence writers.")
    assert "Lunch" not in short
    assert shorter(text, 1000) == text


def test_one_endless_word_is_cut() -> None:
    assert shorter("x" * 1000, 10) == "x" * 40
