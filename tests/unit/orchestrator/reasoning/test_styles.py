"""Styles shape the prompt by weight, and tell afterwards only what can be counted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agentnet.orchestrator.v1 import agent_pb2
from services.orchestrator.agents.checks import check
from services.orchestrator.reasoning import styles
from shared import fields
from shared.errors import InvalidArgument


def agent(**style: object) -> agent_pb2.Agent:
    return agent_pb2.Agent(name="Athena", style=fields.struct(dict(style)))


def test_the_weight_of_a_trait_chooses_what_is_told() -> None:
    strong, some = styles.directive(agent(logic=0.9)), styles.directive(agent(logic=0.5))
    assert "step by step" in strong
    assert "Give a reason" in some
    assert styles.directive(agent()) == ""
    assert styles.directive(agent(note="not a weight")) == ""


def test_insights_are_counts_of_what_was_said() -> None:
    text = "It holds because two zones agree. Therefore 3 of 4 writes survive."
    found = styles.insights(agent(logic=0.9, creativity=0.3, wit=1), text)
    assert found == [
        "creativity 0.3: 100% of 12 words are different ones",
        "logic 0.9: 2 words of reasoning in 2 sentences",
    ]
    assert styles.insights(agent(logic=0.9), "") == ["logic 0.9: 0 words of reasoning in 1 sentences"]


LOUD = """
class Loud:
    def directive(self, weight):
        return "SHOUT."

    def insight(self, weight, text):
        return f"{len(text.words)} words shouted"


class Broken:
    def directive(self, weight):
        return {}[weight]

    insight = None


class Capital:
    def directive(self, weight):
        return "Begin well."

    def insight(self, weight, text):
        return f"{sum(letter.isupper() for letter in text.content)} capitals"


loud, broken = Loud(), Broken()
"""


@pytest.fixture
def of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "loud_trait.py").write_text(LOUD)
    info = tmp_path / "loud_trait-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: loud-trait\nVersion: 1.0\n")
    points = "[agentnet.style_transformers]\nloudness = loud_trait:loud\nwarmth = loud_trait:broken\ncapital = loud_trait:Capital\n"
    (info / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(str(tmp_path))
    styles.registry.cache_clear()
    yield
    styles.registry.cache_clear()


@pytest.mark.usefixtures("of_ones_own")
def test_a_trait_of_ones_own_is_an_entry_point() -> None:
    assert styles.directive(agent(loudness=1)) == "Your style: SHOUT."
    assert styles.insights(agent(loudness=1), "Two words") == ["loudness 1: 2 words shouted"]


@pytest.mark.usefixtures("of_ones_own")
def test_a_trait_of_ones_own_may_be_a_class_as_other_plug_ins_are() -> None:
    assert styles.directive(agent(capital=1)) == "Your style: Begin well."
    assert styles.insights(agent(capital=1), "Two Words") == ["capital 1: 2 capitals"]


@pytest.mark.usefixtures("of_ones_own")
def test_a_trait_of_ones_own_that_breaks_says_nothing_and_ends_no_turn() -> None:
    assert styles.directive(agent(loudness=1, warmth=1)) == "Your style: SHOUT."
    assert styles.insights(agent(loudness=1, warmth=1), "Two words") == ["loudness 1: 2 words shouted"]


@pytest.mark.parametrize("weight", ["warm", True, [0.5], {"more": 1}])
def test_a_trait_without_a_weight_is_refused_by_name(weight: object) -> None:
    with pytest.raises(InvalidArgument) as raised:
        check(agent(logic=0.9, tone=weight))
    assert raised.value.field == "agent.style.tone"
