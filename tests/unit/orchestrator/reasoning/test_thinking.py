"""Engines speak for agents under the contract of a generation: policy, schema, style and skills included."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agentnet.orchestrator.v1 import agent_pb2
from services.orchestrator.agents.checks import check
from services.orchestrator.errors import DelegationEnded, EngineFailed, NameUnknown
from services.orchestrator.peers import Utterance
from services.orchestrator.prompts import Known, Line
from services.orchestrator.reasoning import engines
from services.orchestrator.reasoning.engines.contract import Generated, Question, text
from services.orchestrator.reasoning.governance import Judged
from services.orchestrator.reasoning.skills import Skills
from services.orchestrator.reasoning.thinking import Thinking
from shared import fields
from shared.clock import FakeClock, SystemClock
from shared.errors import FailedPrecondition, InvalidArgument, Reason
from shared.identity import Principal
from tests.support.orchestrator import ADA, ScriptedInference, ScriptedMemory

RULES = {
    "rules": [
        {"when": "json.order.total > 100", "answer": "Order {{json.order.id}} goes to a person."},
        {"when": "asked.contains('refund')", "answer": "Refunds take three days."},
    ],
    "otherwise": "No rule knows that.",
}


@dataclass
class ScriptedPolicy:
    """Redacts "secret" and blocks "forbidden"."""

    asked: list[tuple[str, str]] = field(default_factory=list)

    async def judge(
        self,
        caller: Principal,
        text: str,
        *,
        target: str,
        agent: str,
        bundles: Sequence[str],
        session_id: str,
        override_token: str = "",
    ) -> Judged:
        self.asked.append((target, text))
        if "forbidden" in text:
            raise FailedPrecondition("blocked", reason=Reason.ERROR_REASON_POLICY_BLOCKED, rule="words")
        return Judged(text.replace("secret", "[redacted]"))


def made(engine: str, config: Mapping[str, Any] | None = None, **parts: Any) -> agent_pb2.Agent:
    return agent_pb2.Agent(
        name="Clerk", version="1.0.0", system_prompt="You decide.", engine=engine,
        engine_config=fields.struct(dict(config or {})), **parts,
    )  # fmt: skip


@dataclass
class Mind:
    policy: ScriptedPolicy = field(default_factory=ScriptedPolicy)
    memory: ScriptedMemory = field(default_factory=ScriptedMemory)
    inference: ScriptedInference = field(default_factory=ScriptedInference)
    skills: Skills = field(default_factory=lambda: Skills(None))

    async def answer(self, agent: agent_pb2.Agent, asked: str) -> list[Generated]:
        thinking = Thinking(self.inference, self.memory, self.policy, FakeClock(), self.skills)
        lines = (Line("system", agent.system_prompt), Line("user", asked))
        utterance = Utterance("gen_1", "ses_1", agent, "", lines, 96)
        return [event async for event in thinking.generate(ADA, utterance)]


def said(events: Sequence[Generated]) -> str:
    return "".join(event.text.text for event in events)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Any], None]:
    """Installs an engine of one's own, as its package's entry point would."""

    def install(name: str, factory: Any) -> None:
        monkeypatch.setattr(engines, "_SHIPPED", {**engines._SHIPPED, name: factory})

    return install


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ("May I have a refund?", "Refunds take three days."),
        ('{"order": {"id": "o7", "total": 250}}', "Order o7 goes to a person."),
        ("Hello", "No rule knows that."),
    ],
)
async def test_rules_answer_as_a_generation_does(asked: str, answer: str) -> None:
    events = await Mind().answer(made("rules", RULES), asked)
    assert said(events) == answer
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert [event.WhichOneof("event") for event in events][0::2] == ["started", "finished"]
    assert events[-1].finished.cost.micros_usd == 0
    assert events[-1].finished.cost.model == "rules"


async def test_retrieval_quotes_what_memory_knows_and_invents_nothing() -> None:
    known = (Known("mem_1", "The edge has two zones.", 0.9), Known("mem_2", "Cats purr.", 0.1))
    mind, agent = Mind(memory=ScriptedMemory(known)), made("retrieval", {"min_score": 0.5})
    assert said(await mind.answer(agent, "How many zones?")) == "The edge has two zones. [mem_1]"
    mind.memory.known = ()
    assert said(await mind.answer(agent, "How many zones?")) == "Nothing is known about that."
    mind.memory.away = True
    failed = (await mind.answer(agent, "How many zones?"))[-1].failed.failure
    assert (failed.reason, failed.retryable) == (Reason.ERROR_REASON_DEPENDENCY_UNAVAILABLE, True)


async def test_an_engine_is_judged_by_policy_like_a_model(installed: Callable[[str, Any], None]) -> None:
    mind = Mind()
    agent = made("rules", {"rules": [{"when": "true", "answer": "the secret {{asked}}"}]})
    assert said(await mind.answer(agent, "my secret")) == "the [redacted] my [redacted]"
    assert [target for target, _ in mind.policy.asked] == ["prompt", "output"]
    events = await mind.answer(made("rules", {"rules": [{"when": "true", "answer": "forbidden"}]}), "x")
    assert said(events) == ""
    assert events[-1].failed.failure.reason == Reason.ERROR_REASON_POLICY_BLOCKED


class Stammers:
    """Answers with what it has left, one answer a call."""

    def __init__(self, answers: list[str]) -> None:
        self.answers, self.asked = answers, list[str]()

    async def generate(self, question: Question) -> AsyncGenerator[Generated, None]:
        self.asked.append(question.asked)
        yield text(self.answers.pop(0))


async def test_an_output_that_does_not_fit_is_asked_for_once_more(installed: Callable[[str, Any], None]) -> None:
    engine = Stammers(["no", '{"hits": 2}'])
    installed("stammers", lambda config: engine)
    schema = fields.struct({"type": "object", "required": ["hits"]})
    assert said(await Mind().answer(made("stammers", output_schema=schema), "Search")) == '{"hits": 2}'
    assert "did not fit ($: it is not JSON)" in engine.asked[1]

    engine.answers = ["no", '{"misses": 2}', "never"]
    events = await Mind().answer(made("stammers", output_schema=schema), "Search")
    assert events[-1].failed.failure.reason == Reason.ERROR_REASON_OUTPUT_INVALID
    assert said(events) == ""
    assert engine.answers == ["never"]


async def test_an_engine_of_ones_own_that_breaks_fails_its_turn_by_name(installed: Callable[[str, Any], None]) -> None:
    installed("broken", lambda config: Stammers([]))
    failure = (await Mind().answer(made("broken"), "x"))[-1].failed.failure
    assert failure.reason == Reason.ERROR_REASON_ENGINE_FAILED
    assert "IndexError" in failure.message


DICE = """
from services.orchestrator.reasoning.engines.contract import text


class Dice:
    def __init__(self, config):
        self.sides = int(config.get("sides", 6))

    async def generate(self, question):
        yield text(f"{len(question.asked) % self.sides + 1}")
"""


async def test_an_engine_of_ones_own_is_an_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dice_engine.py").write_text(DICE)
    info = tmp_path / "dice_engine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: dice-engine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[agentnet.reasoning_engines]\ndice = dice_engine:Dice\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    check(made("dice", {"sides": 4}))
    with pytest.raises(InvalidArgument):
        check(made("dice", {"sides": "many"}))
    assert said(await Mind().answer(made("dice", {"sides": 4}), "123456")) == "3"


def test_an_engine_is_checked_when_the_agent_is_made() -> None:
    with pytest.raises(NameUnknown) as raised:
        check(made("abacus"))
    assert "retrieval, rules" in raised.value.facts["known"]
    for config in ({}, {"rules": [{"when": "asked ==", "answer": "x"}]}, {"rules": [], "colour": 1}):
        with pytest.raises(InvalidArgument) as refused:
            check(made("rules", config))
        assert refused.value.field == "agent.engine_config"
    with pytest.raises(InvalidArgument, match=r"rules\.0\.when: .*; rules\.0\.if: "):
        check(made("rules", {"rules": [{"if": "true", "answer": "x"}]}))
    check(made("rules", RULES))


def test_a_replica_without_the_engine_says_so() -> None:
    with pytest.raises(EngineFailed):
        engines.engine_of(made("rules", {}))


async def test_style_and_skills_reach_the_model(tmp_path: Path) -> None:
    folder = tmp_path / "writing" / "letters"
    folder.mkdir(parents=True)
    (folder / "SKILL.md").write_text("---\nname: letters\ndescription: Formal letters.\n---\nBegin with a date.\n")
    mind = Mind(skills=Skills(tmp_path))
    agent = made("", style=fields.struct({"logic": 0.9, "wit": 0.5}), skills_directories=["writing"])
    await mind.answer(agent, "Write two letters")
    system, asked = mind.inference.started[0].lines
    assert system.text.startswith("You decide.\n\nYour style: Argue step by step")
    assert "wit: 0.5 of 1." in system.text
    assert "Begin with a date." in system.text
    assert asked.text == "Write two letters"
    await mind.answer(agent, "Sing")


def test_skills_stay_below_their_folder(tmp_path: Path) -> None:
    outside = tmp_path / "outside" / "spy"
    outside.mkdir(parents=True)
    (outside / "SKILL.md").write_text("Told you.")
    root = tmp_path / "skills"
    root.mkdir()
    (root / "link").symlink_to(tmp_path / "outside")
    assert Skills(root).of(made("", skills_directories=["link", "../outside", "gone"])) == []


@dataclass
class Timed:
    """Gives so much time, then none."""

    left: list[timedelta]

    async def admit(self, caller: Principal, *, session_id: str) -> timedelta | None:
        if not self.left:
            raise DelegationEnded("its time is over", delegation_id="del_1", state="EXPIRED")
        return self.left.pop()


async def test_who_attaches_to_a_narrowed_call_is_held_to_its_time() -> None:
    mind, agent = Mind(), agent_pb2.Agent(name="Clerk", version="1.0.0")
    mind.inference.held_at = 3
    gate = Timed([timedelta(milliseconds=20)])
    thinking = Thinking(mind.inference, mind.memory, mind.policy, SystemClock(), gate=gate)
    begun = mind.inference.generate(ADA, Utterance("gen_1", "ses_1", agent, "", (), 96))
    await anext(begun)

    async with asyncio.timeout(5):
        heard = [event async for event in thinking.attach(ADA, "gen_1", after=1)]
    assert [event.WhichOneof("event") for event in heard] == ["text", "failed"]
    assert heard[-1].failed.failure.reason == Reason.ERROR_REASON_DELEGATION_ENDED
    assert heard[-1].failed.cost.micros_usd == 3
    with pytest.raises(DelegationEnded):
        await anext(thinking.attach(ADA, "gen_1", after=1))

    assert mind.inference.cancelled == ["gen_1", "gen_1"]
    await begun.aclose()
