"""Chains: laid out before they run, within their limits, and told step by step."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from agentnet.orchestrator.v1 import agent_pb2, relationship_service_pb2
from services.orchestrator.agents.chains import Asked, laid_out
from services.orchestrator.errors import ChainLimitReached, RelationshipInvalid
from services.orchestrator.peers import Utterance
from shared.errors import FailedPrecondition, Reason
from tests.support.agents import Surroundings
from tests.support.orchestrator import ADA, TENANT, World

Relationship = relationship_service_pb2.AgentRelationship
ASKED = Asked("Athena", "", "Plan a failover")


def edge(source: str, target: str, *, kind: str = "chains_to", **parts: object) -> Relationship:
    return Relationship(source=source, target=target, kind=kind, **parts)  # type: ignore[arg-type]


@pytest.fixture
def around() -> Surroundings:
    return Surroundings(World())


async def join(around: Surroundings, *edges: Relationship) -> None:
    for one in edges:
        await around.side.relationships.create(TENANT, one)


def test_a_chain_goes_as_deep_as_it_may_and_says_what_it_left_out() -> None:
    edges = {"A": [edge("A", "B")], "B": [edge("B", "C")], "C": [edge("C", "D")]}
    layout = laid_out("A", edges, depth=3, runs=9, parallel=frozenset())
    assert [(step.id, step.depth, step.after) for step in layout.steps] == [
        ("A", 1, ()), ("B", 2, ("A",)), ("C", 3, ("B",)),
    ]  # fmt: skip
    assert layout.cut_off == ("C > D",)


def test_agents_of_one_source_run_after_each_other_or_at_once() -> None:
    edges = {"A": [edge("A", "B"), edge("A", "C")]}
    one_by_one = laid_out("A", edges, depth=3, runs=9, parallel=frozenset())
    at_once = laid_out("A", edges, depth=3, runs=9, parallel=frozenset({"A"}))
    assert one_by_one.steps[2].after == ("A", "B")
    assert at_once.steps[2].after == ("A",)


def test_a_chain_that_would_take_too_many_runs_does_not_begin() -> None:
    edges = {"A": [edge("A", "B"), edge("A", "C")], "B": [edge("B", "D")], "C": [edge("C", "D")]}
    assert [step.id for step in laid_out("A", edges, depth=9, runs=5, parallel=frozenset()).steps][-1] == "D-2"
    with pytest.raises(ChainLimitReached) as raised:
        laid_out("A", edges, depth=9, runs=4, parallel=frozenset())
    assert raised.value.facts == {"limit": "4", "kind": "runs"}


async def test_chains_never_run_in_a_circle(around: Surroundings) -> None:
    await join(around, edge("Athena", "Apollo"), edge("Apollo", "Hermes"))
    with pytest.raises(RelationshipInvalid) as raised:
        await join(around, edge("Hermes", "Athena"))
    assert raised.value.facts["path"] == "Hermes > Athena > Apollo > Hermes"
    await join(around, edge("Hermes", "Athena", kind="reviews"))
    with pytest.raises(RelationshipInvalid):
        await join(around, edge("Hermes", "Hermes", kind="reviews"))


async def test_an_answer_goes_on_from_agent_to_agent(around: Surroundings) -> None:
    await join(around, edge("Athena", "Apollo"), edge("Apollo", "Hermes", condition="results.Apollo.success"))
    begun = await around.side.chains.run(ADA, ASKED, request_id="r1")
    again = await around.side.chains.run(ADA, ASKED, request_id="r1")
    assert (begun.id, begun.status) == (again.id, "pending")
    await around.world.drive()

    chain = await around.side.chains.find(TENANT, begun.id)
    assert (chain.status, chain.depth) == ("completed", 3)
    assert [(step.source, step.target, step.status) for step in chain.steps] == [
        ("", "Athena@1.0.0", "completed"),
        ("Athena@1.0.0", "Apollo@1.0.0", "completed"),
        ("Apollo@1.0.0", "Hermes@1.0.0", "completed"),
    ]
    assert chain.output == "Hermes has one idea about it."
    assert chain.cost_micros_usd == 21
    asked = around.world.inference.started[1].lines[-1].text
    assert "Athena has one idea about it." in asked
    assert "Go on with the task from there: Plan a failover" in asked


async def test_a_branch_whose_condition_is_false_is_not_taken(around: Surroundings) -> None:
    await join(
        around,
        edge("Athena", "Apollo", priority=2, condition='results.Athena.output.contains("never")'),
        edge("Athena", "Hermes", priority=1),
    )
    begun = await around.side.chains.run(ADA, ASKED, request_id=None)
    await around.world.drive()
    chain = await around.side.chains.find(TENANT, begun.id)
    assert {step.id: step.status for step in chain.steps} == {
        "Athena": "completed", "Apollo": "skipped", "Hermes": "completed",
    }  # fmt: skip


async def test_each_step_spends_from_the_budgets_of_its_path(around: Surroundings) -> None:
    await join(around, edge("Athena", "Apollo"), edge("Apollo", "Hermes"))
    await around.side.chains.run(ADA, ASKED, request_id=None)
    await around.world.drive()
    spent = {utterance.agent.name: utterance.sub_agent for utterance in around.world.inference.started}
    names = {utterance.agent.name: f"{utterance.agent.name}@{utterance.agent.version}" for utterance in
             around.world.inference.started}  # fmt: skip
    assert spent == {
        "Athena": "",
        "Apollo": f"{names['Athena']}/{names['Apollo']}",
        "Hermes": f"{names['Athena']}/{names['Apollo']}/{names['Hermes']}",
    }


async def test_a_chain_stops_when_its_money_is_spent(around: Surroundings) -> None:
    around.governed()
    await join(around, edge("Athena", "Apollo"), edge("Apollo", "Hermes"))
    begun = await around.side.chains.run(ADA, Asked("Athena", "", "Plan", cost_micros_usd=10), request_id=None)
    await around.world.drive()
    chain = await around.side.chains.find(TENANT, begun.id)
    assert [step.status for step in chain.steps] == ["completed", "completed", "failed"]
    failure = chain.steps[2].failure
    assert (failure.reason, failure.metadata["kind"]) == (Reason.ERROR_REASON_CHAIN_LIMIT_REACHED, "cost")


async def test_a_chain_stops_when_its_time_is_over(around: Surroundings) -> None:
    model = around.governed()
    await join(around, edge("Athena", "Apollo"))
    limited = agent_pb2.Agent(name="Athena")
    limited.chain_limits.timeout.FromTimedelta(timedelta(seconds=1))
    await around.world.agents.update(TENANT, "Athena", limited, request_id=None)
    begun = await around.side.chains.run(ADA, ASKED, request_id=None)
    assert begun.expire_time.ToNanoseconds() == int((around.world.clock.now().timestamp() + 1) * 1e9)
    model.reply = lambda utterance: str(around.world.clock.advance(timedelta(seconds=1.5)) or "Late.")
    task = asyncio.create_task(around.world.drive())
    await asyncio.wait_for(task, 10)
    chain = await around.side.chains.find(TENANT, begun.id)
    reasons = {step.failure.reason for step in chain.steps if step.status == "failed"}
    assert reasons == {Reason.ERROR_REASON_CHAIN_LIMIT_REACHED}


async def test_who_stands_in_runs_when_a_step_fails(around: Surroundings) -> None:
    await join(around, edge("Athena", "Apollo"), edge("Apollo", "Hermes", kind="falls_back_to"))
    begun = await around.side.chains.run(ADA, ASKED, request_id=None)

    def reply(utterance: Utterance) -> str:
        if utterance.agent.name == "Apollo":
            raise FailedPrecondition("no", reason=Reason.ERROR_REASON_MODEL_NOT_FOUND)
        return utterance.agent.name

    around.world.inference.reply = reply
    await around.world.drive()
    chain = await around.side.chains.find(TENANT, begun.id)
    assert (chain.steps[1].status, chain.steps[1].target, chain.output) == ("completed", "Hermes@1.0.0", "Hermes")
