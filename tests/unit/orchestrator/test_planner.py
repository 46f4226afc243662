"""Who plans, and what becomes of a plan whose model stumbles."""

from __future__ import annotations

import json

import pytest

from agentnet.inference.v1 import generation_pb2
from agentnet.orchestrator.v1 import agent_pb2
from services.orchestrator.agents import ACTIVE
from services.orchestrator.errors import AgentNotFound
from shared.errors import Unavailable
from tests.support.orchestrator import ADA, TENANT, World

PLAN = {"nodes": [{"id": "think", "prompt": "Think.", "agent": "Athena", "depends_on": []}]}


async def test_without_an_agent_that_can_plan_one_is_to_be_named() -> None:
    world = World()
    for agent in await world.agents.active(TENANT):
        if "planning" in agent.capabilities:
            await world.agents.set_state(TENANT, agent.name, agent.version, agent_pb2.AGENT_STATE_ARCHIVED)
    with pytest.raises(AgentNotFound, match="name a planner"):
        await world.planner.plan(ADA, "Win", agents=(), planner="", max_nodes=5)


async def test_a_plan_begun_anew_by_another_model_is_read_from_there() -> None:
    world = World()
    world.inference.reply = lambda utterance: f"half a thought {json.dumps(PLAN)}"
    failover = generation_pb2.Failover(from_model="a", to_model="b", restarted=True)
    world.inference.interludes = [
        generation_pb2.GenerationEvent(text=generation_pb2.TextProduced(text='{"nodes": [')),
        generation_pb2.GenerationEvent(failover=failover),
    ]
    graph, repaired = await world.planner.plan(ADA, "Win", agents=(), planner="", max_nodes=5)
    assert ([node.id for node in graph.nodes], repaired) == (["think"], False)


async def test_why_the_model_failed_is_why_there_is_no_plan() -> None:
    world = World()
    world.inference.failures = [Unavailable("the provider is away")]
    with pytest.raises(Unavailable, match="the provider is away"):
        await world.planner.plan(ADA, "Win", agents=(), planner="Athena", max_nodes=5)


async def test_a_stream_that_breaks_is_read_on_where_it_was() -> None:
    world = World()
    world.inference.reply = lambda utterance: json.dumps(PLAN)
    world.inference.breaks = {1: Unavailable("nothing came for a minute"), 4: Unavailable("nor now")}
    graph, repaired = await world.planner.plan(ADA, "Win", agents=(), planner="", max_nodes=5)
    assert ([node.id for node in graph.nodes], repaired, len(world.inference.started)) == (["think"], False, 1)


async def test_a_stream_that_breaks_again_and_again_is_given_up() -> None:
    world = World()
    world.inference.breaks = {place: Unavailable("nothing came") for place in range(1, 8)}
    with pytest.raises(Unavailable, match="nothing came"):
        await world.planner.plan(ADA, "Win", agents=(), planner="", max_nodes=5)


async def test_a_planner_is_told_of_those_that_fit_its_goal_among_any_number() -> None:
    world = World()
    others = [agent_pb2.Agent(name=f"A{number:04}", version="1.0.0", state=ACTIVE) for number in range(1100)]
    able = agent_pb2.Agent(name="Zephyr", version="1.0.0", state=ACTIVE, capabilities=["glaciology"])
    await world.agents.import_all(TENANT, [*others, able], dry_run=False)
    plan = {"nodes": [PLAN["nodes"][0] | {"agent": "Zephyr"}]}
    world.inference.reply = lambda _utterance: json.dumps(plan)
    graph, repaired = await world.planner.plan(ADA, "Start glaciology here", agents=(), planner="Athena", max_nodes=5)
    assert ([node.agent for node in graph.nodes], repaired) == (["Zephyr"], False)
    assert world.inference.started[0].lines[-1].text.count("\n- ") == 100
