"""Who speaks next: every strategy as whole sessions, options that contradict each other, turns at the same time."""

from __future__ import annotations

import json
from datetime import timedelta
from importlib.metadata import EntryPoint, EntryPoints
from typing import Any

import pytest

from agentnet.orchestrator.v1 import event_pb2, session_pb2
from services.orchestrator import modes
from services.orchestrator.errors import NameUnknown, OptionsContradict
from services.orchestrator.modes import adaptive, named
from services.orchestrator.modes.contract import Part, Table
from tests.support.modes import THREE, asked, events, order, scripted
from tests.support.orchestrator import Watching, World, driving


async def test_priority_speaks_first_who_has_the_higher_number() -> None:
    world = World()
    options = session_pb2.SessionOptions(priorities={"Hermes": 5, "Apollo": 1})
    session_id = await world.start(agents=THREE, strategy="priority", max_rounds=1, options=options)

    await world.drive()

    assert [name for name, _ in await order(world, session_id)] == ["Hermes", "Apollo", "Athena"]


async def test_in_parallel_all_begin_before_any_ends_and_hear_nothing_of_each_other() -> None:
    world = World()
    session_id = await world.start(agents=THREE, strategy="parallel", max_rounds=1)

    await world.drive()

    kinds = await world.kinds(session_id)
    assert kinds[1:4] == ["turn_started"] * 3
    assert all("one idea" not in asked(world, place) for place in range(3))


async def test_a_moderator_names_who_speaks_and_may_end_the_round() -> None:
    named = iter(["Athena", "Athena", "nobody"])
    world = scripted(World(), floor=lambda _: json.dumps({"next": next(named), "reason": "She knows."}))
    options = session_pb2.SessionOptions(moderator="Hermes")
    session_id = await world.start(agents=THREE, strategy="moderator", max_rounds=1, options=options)

    await world.drive()

    assert await order(world, session_id) == [
        ("Hermes", "idea:floor"), ("Athena", "idea"), ("Hermes", "idea:floor"), ("Athena", "idea"),
    ]  # fmt: skip
    handed = [(one.source, one.target, one.reason) for one in await events(world, session_id, "handed_off")]
    assert handed == [("Hermes@1.0.0", "Athena@1.0.0", "She knows.")] * 2


class YoungestFirst:
    """A plug-in: the last of the agents first."""

    def floor(self, table: Table) -> tuple[Part, ...]:
        return table.open[-1:]

    def check(self, session: session_pb2.Session) -> None:
        """It takes nothing."""


async def test_a_strategy_comes_from_a_plug_in(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("youngest_first", f"{__name__}:YoungestFirst", "agentnet.strategies")
    monkeypatch.setattr(named, "entry_points", lambda **chosen: EntryPoints([point]).select(**chosen))
    monkeypatch.setattr(modes.strategy, "_loaded", {})
    world = World()
    session_id = await world.start(agents=THREE, strategy="youngest_first", max_rounds=1)

    await world.drive()

    assert [name for name, _ in await order(world, session_id)] == ["Hermes", "Apollo", "Athena"]


async def test_a_plug_in_that_does_not_load_is_refused_where_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [EntryPoint(name, f"{__name__}:{name}", "agentnet.strategies") for name in ("Gone", "Table")]
    monkeypatch.setattr(named, "entry_points", lambda **chosen: EntryPoints(points).select(**chosen))
    for name in ("Gone", "Table"):
        with pytest.raises(NameUnknown, match=f"strategy {name} does not load") as raised:
            modes.strategy(name)
        assert raised.value.field == "strategy"


async def test_adaptive_chooses_once_and_explains_itself() -> None:
    world = World()
    session_id = await world.start(strategy="adaptive", topic="Invent creative ideas for a slogan", max_rounds=2)

    await world.drive()

    (chosen,) = await events(world, session_id, "strategy_chosen")
    assert (chosen.strategy, chosen.topic_class) == ("parallel", "creative")
    assert "invent" in chosen.evidence
    assert "invent" in chosen.reason
    assert (await world.kinds(session_id))[1:4] == ["strategy_chosen", "turn_started", "turn_started"]


@pytest.mark.parametrize(
    ("topic", "options", "strategy", "kind"),
    [
        ("Why does the cache miss? Analyse the cause.", {}, "round_robin", "analytical"),
        ("Should we choose Raft or Paxos?", {"moderator": "Athena"}, "moderator", "contested"),
        ("Should we choose Raft or Paxos?", {}, "round_robin", "contested"),
        ("Urgent outage: rollback the deploy", {"priorities": {"Athena": 1}}, "priority", "operational"),
        ("Zero-loss failover", {}, "round_robin", "general"),
    ],
)
def test_topics_are_told_apart(topic: str, options: dict[str, Any], strategy: str, kind: str) -> None:
    session = session_pb2.Session(topic_start=topic, options=session_pb2.SessionOptions(**options))
    chosen = adaptive.choose(session)
    assert (chosen.strategy, chosen.topic_class) == (strategy, kind)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"mode": "single", "agents": ["Athena", "Apollo"]}, "agents"),
        ({"mode": "debate", "agents": ["Athena"]}, "agents"),
        ({"mode": "debate", "options": {"judge": "Zeus"}}, "options.judge"),
        ({"mode": "debate", "agents": ["Athena", "Apollo"], "options": {"judge": "Apollo"}}, "agents"),
        ({"mode": "brainstorm", "options": {"judge": "Athena"}}, "options.judge"),
        ({"mode": "brainstorm", "strategy": "moderator"}, "options.moderator"),
        ({"mode": "brainstorm", "options": {"moderator": "Athena"}}, "options.moderator"),
        ({"mode": "brainstorm", "agents": ["Athena"], "strategy": "moderator", "options": {"moderator": "Athena"}},
         "options.moderator"),
        ({"mode": "debate", "strategy": "moderator", "options": {"moderator": "Athena", "judge": "Athena"}},
         "options.judge"),
        ({"mode": "brainstorm", "strategy": "priority"}, "options.priorities"),
        ({"mode": "brainstorm", "strategy": "priority", "options": {"priorities": {"Zeus": 1}}}, "options.priorities"),
        ({"mode": "brainstorm", "options": {"priorities": {"Athena": 1}}}, "options.priorities"),
        ({"mode": "brainstorm", "options": {"planner": "Athena"}}, "options.planner"),
        ({"mode": "brainstorm", "options": {"quorum": 0.5}}, "options.quorum"),
        ({"mode": "brainstorm", "options": {"aggregate": "vote"}}, "options.aggregate"),
        ({"mode": "ensemble", "options": {"aggregate": "mean"}}, "options.aggregate"),
        ({"mode": "ensemble", "options": {"judge": "Athena"}}, "options.judge"),
        ({"mode": "ensemble", "agents": ["Athena", "Apollo"], "options": {"aggregate": "judge"}}, "options.judge"),
        ({"mode": "competition", "agents": ["Athena", "Apollo"]}, "agents"),
        ({"mode": "workflow", "strategy": "parallel"}, "strategy"),
    ],
)  # fmt: skip
def test_options_that_contradict_each_other_are_refused_by_field(given: dict[str, Any], field: str) -> None:
    session = session_pb2.Session(**{"agents": list(THREE), "strategy": "round_robin", **given})
    with pytest.raises(OptionsContradict) as refused:
        modes.check(session)
    assert refused.value.field == field


async def test_turns_of_a_round_run_at_the_same_time_and_are_each_gone_on_with_after_a_death() -> None:
    world = World()
    world.inference.held_at = 4
    session_id = await world.start(agents=THREE, strategy="parallel", max_rounds=1)
    watching = Watching(world, session_id)
    async with driving(world, "one"):
        await watching.until(7)
    world.clock.advance(timedelta(seconds=6))

    world.inference.release()
    await world.drive("two")

    stored = [event.SerializeToString() for event in await world.log(session_id)]
    assert await watching.end() == stored
    assert len(world.inference.started) == 3
    kinds = await world.kinds(session_id)
    assert (kinds.count("turn_started"), kinds.count("turn_finished")) == (3, 3)
    contents = [event_pb2.SessionEvent.FromString(one).turn_finished.turn.content for one in stored]
    assert sorted(filter(None, contents)) == [f"{name} has one idea about it." for name in sorted(THREE)]
