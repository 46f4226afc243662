"""When a session has come to its end: each measure, what they leave in the log, and the hard caps."""

from __future__ import annotations

from datetime import timedelta
from importlib.metadata import EntryPoint, EntryPoints
from typing import Any

import pytest
from google.protobuf import duration_pb2
from hypothesis import given
from hypothesis import strategies as st

from agentnet.orchestrator.v1 import progress_pb2, session_pb2
from services.orchestrator import convergence
from services.orchestrator.convergence.contract import Rounds
from services.orchestrator.convergence.jaccard import Jaccard
from services.orchestrator.convergence.semantic import Semantic
from services.orchestrator.convergence.stagnation import Stagnation
from services.orchestrator.modes import named
from services.orchestrator.peers import Utterance
from shared.errors import Unavailable
from tests.support.orchestrator import World

Rule = session_pb2.MeasureRule


class Impatient:
    """A plug-in: every session is done after its first round."""

    threshold = 1.0
    rounds = 1
    by_meaning = False
    ends = session_pb2.STOP_REASON_CONVERGED

    def score(self, rounds: Rounds) -> float:
        return min(float(len(rounds.texts)), 1.0)


async def scores(world: World, session_id: str) -> list[list[progress_pb2.MeasureScore]]:
    """Each round's scores, as the log has them for plotting."""
    return [
        list(event.round_finished.scores) for event in await world.log(session_id) if event.HasField("round_finished")
    ]


def words(number: int) -> str:
    return " ".join(f"word{number}_{place}" for place in range(5))


def new_each_round(world: World) -> None:
    count = iter(range(1000))
    world.inference.reply = lambda _: words(next(count))


texts = st.lists(st.text(alphabet="ab ", max_size=12), min_size=1, max_size=5)


@given(texts, st.lists(st.lists(st.floats(-1, 1), min_size=3, max_size=3), max_size=3))
def test_every_measure_scores_between_nothing_and_one(said: list[str], vectors: list[list[float]]) -> None:
    rounds = Rounds(tuple(said), tuple(vectors), tuple(vectors))
    for measure in (Jaccard(), Semantic(), Stagnation()):
        assert 0 <= measure.score(rounds) <= 1.000001


def test_meaning_is_compared_round_with_round() -> None:
    score = Semantic().score(Rounds(("a", "b"), before=((1.0, 0.0), (0.0, 1.0)), now=((1.0, 1.0),)))
    assert score == pytest.approx(1.0)
    assert Semantic().score(Rounds(("a", "b"), before=((1.0, 0.0),), now=((0.0, 1.0),))) == 0.0


async def test_rounds_that_mean_the_same_in_other_words_converge() -> None:
    world = World()
    new_each_round(world)
    session_id = await world.start(max_rounds=5, measures=[Rule(measure="jaccard"), Rule(measure="semantic")])

    await world.drive()

    session = await world.find(session_id)
    assert (session.rounds_executed, session.converged, session.stop_measure) == (2, True, "semantic")
    assert len(world.inference.embedded[0]) == 4
    told = [
        [(one.measure, one.score, one.threshold, one.decided) for one in found]
        for found in await scores(world, session_id)
    ]
    assert told == [
        [("jaccard", 0.0, 0.8, False), ("semantic", 0.0, 0.95, False)],
        [("jaccard", 0.0, 0.8, False), ("semantic", 1.0, 0.95, True)],
    ]


async def test_without_embeddings_a_round_ends_all_the_same_and_says_so() -> None:
    world = World()
    new_each_round(world)
    world.inference.embed_refusals = [Unavailable("away")]
    session_id = await world.start(max_rounds=2, measures=[Rule(measure="semantic")])

    await world.drive()

    _, (second,) = await scores(world, session_id)
    assert (second.degraded, second.decided, second.score) == (True, False, 0.0)
    assert (await world.find(session_id)).stop_reason == session_pb2.STOP_REASON_MAX_ROUNDS


async def test_two_rounds_without_a_new_word_stagnate() -> None:
    world = World()
    session_id = await world.start(max_rounds=9, measures=[Rule(measure="stagnation")])

    await world.drive()

    session = await world.find(session_id)
    assert (session.stop_reason, session.stop_measure) == (session_pb2.STOP_REASON_STAGNATED, "stagnation")
    assert (session.rounds_executed, session.converged) == (3, False)


async def test_a_measure_may_have_to_hold_for_rounds_in_a_row() -> None:
    world = World()
    session_id = await world.start(max_rounds=9, measures=[Rule(measure="jaccard", rounds=3)])

    await world.drive()

    assert (await world.find(session_id)).rounds_executed == 4


async def test_a_measure_that_may_not_end_the_session_is_still_written_down() -> None:
    world = World()
    session_id = await world.start(max_rounds=3)

    await world.drive()

    assert [[one.score for one in found] for found in await scores(world, session_id)] == [[0.0], [1.0], [1.0]]


async def test_a_measure_comes_from_a_plug_in(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("impatience", f"{__name__}:Impatient", "agentnet.measures")
    monkeypatch.setattr(named, "entry_points", lambda **chosen: EntryPoints([point]).select(**chosen))
    monkeypatch.setattr(convergence.measure, "_loaded", {})
    world = World()
    session_id = await world.start(max_rounds=9, measures=[Rule(measure="impatience")])

    await world.drive()

    session = await world.find(session_id)
    assert (session.rounds_executed, session.stop_measure) == (1, "impatience")
    assert "impatience" in convergence.measure.names()


@pytest.mark.parametrize(
    ("limits", "cap", "spoken"),
    [
        ({"max_turns": 3}, "max_turns", 3),
        ({"max_tokens": 20}, "max_tokens", 2),
        ({"max_cost_micros_usd": 8}, "max_cost_micros_usd", 2),
        ({"max_duration": duration_pb2.Duration(seconds=1, nanos=500_000_000)}, "max_duration", 2),
    ],
)
async def test_a_hard_cap_ends_the_session_between_turns_and_is_named(
    limits: dict[str, Any], cap: str, spoken: int
) -> None:
    world = World()

    def slowly(utterance: Utterance) -> str:
        world.clock.advance(timedelta(milliseconds=900))
        return f"{utterance.agent.name} has one idea about it."

    world.inference.reply = slowly
    session_id = await world.start(max_rounds=9, limits=session_pb2.SessionLimits(**limits))

    await world.drive()

    session = await world.find(session_id)
    assert (session.stop_reason, session.stop_measure) == (session_pb2.STOP_REASON_LIMIT_REACHED, cap)
    assert len(world.inference.started) == spoken


async def test_a_cap_waits_for_turns_in_flight_and_a_debate_still_gets_its_verdict() -> None:
    world = World()
    verdict = '{"winner": "nobody", "verdict": "Open.", "reason": "Too short."}'
    world.inference.reply = lambda utterance: (
        verdict if utterance.form else "A long position. " * (60 if utterance.agent.name == "Apollo" else 1)
    )
    limits = session_pb2.SessionLimits(max_turns=1)
    session_id = await world.start(
        agents=["Athena", "Apollo", "Hermes"], mode="debate", strategy="parallel", max_rounds=3, limits=limits
    )

    await world.drive()

    session = await world.find(session_id)
    assert (session.stop_measure, session.result) == ("max_turns", "Open.")
    kinds = await world.kinds(session_id)
    assert [kind for kind in kinds if kind.startswith("turn_")] == [
        "turn_started", "turn_started", "turn_finished", "turn_finished", "turn_started", "turn_finished",
    ]  # fmt: skip


async def test_progress_and_the_best_so_far_are_told_after_each_round_but_the_last() -> None:
    world = World()
    session_id = await world.start(max_rounds=3)

    await world.drive()

    log = await world.log(session_id)
    progress = [event.progressed for event in log if event.HasField("progressed")]
    assert [(one.round, one.max_rounds, one.cost_micros_usd, one.usage.output_tokens) for one in progress] == [
        (1, 3, 14, 12),
        (2, 3, 28, 24),
    ]
    partial = [event.partial_result for event in log if event.HasField("partial_result")]
    assert partial[0].content == "Athena: Athena has one idea about it.\n\nApollo: Apollo has one idea about it."
    assert (await world.find(session_id)).result == partial[-1].content


@pytest.mark.parametrize(
    ("mode", "agents", "spoken", "ended"),
    [
        ("single", ["Athena"], 1, session_pb2.STOP_REASON_COMPLETED),
        ("ensemble", ["Athena", "Apollo"], 2, session_pb2.STOP_REASON_COMPLETED),
        ("brainstorm", ["Athena", "Apollo"], 2, session_pb2.STOP_REASON_MAX_ROUNDS),
    ],
)
async def test_a_cap_that_the_last_turn_reaches_has_ended_nothing(
    mode: str, agents: list[str], spoken: int, ended: session_pb2.StopReason.ValueType
) -> None:
    world = World()
    limits = session_pb2.SessionLimits(max_turns=spoken)
    session_id = await world.start(agents=agents, mode=mode, max_rounds=1, limits=limits)

    await world.drive()

    session = await world.find(session_id)
    assert (session.stop_reason, session.rounds_executed) == (ended, 1)
    assert session.decision.content == ("Athena has one idea about it." if mode == "ensemble" else "")
