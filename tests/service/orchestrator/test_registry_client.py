"""AgentRegistry and the commands of agents, against a served orchestrator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agentnet.cli import main as cli
from agentnet.client import Agent, AgentNet, AgentNetError, AgentRegistry, AIMessage, HumanMessage
from agentnet.client.transport import Transport
from shared.errors import PermissionDenied
from tests.service.orchestrator.conftest import Mesh
from tests.service.orchestrator.test_graph_client import Admitted

SEARCH = Agent(
    name="SearchAgent",
    description="Handles search queries",
    system_prompt="You are a search assistant...",
    input_schema={"type": "object", "properties": {"query": {"type": "string"}}},
    output_schema={"type": "object", "properties": {"hits": {"type": "integer"}}},
    config_data={"capabilities": ["search", "filter"], "temperature": 0.7, "region": "eu"},
    max_chain_depth=3,
)


@pytest.fixture
async def client(mesh: Mesh) -> AsyncIterator[AgentNet]:
    async with AgentNet(Transport(Admitted(mesh.address, mesh.me()[0][1]))) as connected:
        yield connected


async def test_the_seeds_registry_example_runs(mesh: Mesh, client: AgentNet) -> None:
    registry = AgentRegistry(client)
    agent = await registry.register_agent(SEARCH)
    assert agent.name == "SearchAgent@1.0.0"
    assert (agent.definition.max_chain_depth, list(agent.definition.capabilities)) == (3, ["search", "filter"])
    assert (agent.definition.sampling.temperature, agent.definition.config["region"]) == (0.7, "eu")

    mesh.world.inference.reply = lambda utterance: '{"hits": 2}'
    result = await (await registry.get_agent("SearchAgent")).process_message({"query": "zones"})
    assert (result.content, result.data, result.agent) == ('{"hits": 2}', {"hits": 2}, "SearchAgent@1.0.0")
    with pytest.raises(AgentNetError) as raised:
        await agent.process_message("Search for...")
    assert raised.value.reason == "AGENT_INPUT_INVALID"


async def test_messages_are_routed_with_their_history(mesh: Mesh, client: AgentNet) -> None:
    response = await AgentRegistry(client).process(
        messages=[HumanMessage("Hello"), AIMessage("Hi", name="Apollo"), HumanMessage("Review the operations")],
        conversation_id="123",
    )
    assert response.agent == "Hermes@1.0.0"
    assert response.turn.prompt.startswith("The conversation so far:\nuser: Hello\nApollo: Hi")
    assert response.delegation is not None
    assert "Hermes can do operations, review" in response.delegation.choice.reason


async def test_registering_again_changes_nothing_and_a_change_is_a_version(mesh: Mesh, client: AgentNet) -> None:
    registry = AgentRegistry(client)
    first, again = await registry.register_agent(SEARCH), await registry.register_agent(SEARCH)
    assert first.definition == again.definition
    changed = await registry.register_agent(Agent("SearchAgent", "You search better."))
    assert changed.name == "SearchAgent@1.0.1"
    await registry.archive_agent("SearchAgent")
    for name in ("SearchAgent", "SearchAgent@1.0.0"):
        with pytest.raises(AgentNetError) as raised:
            await (await registry.get_agent(name)).process_message({"query": "zones"})
        assert raised.value.reason == "AGENT_ARCHIVED"


async def test_an_agent_answers_at_once_or_word_by_word(mesh: Mesh, client: AgentNet) -> None:
    athena = await AgentRegistry(client).get_agent("Athena")
    words = [part async for part in athena.stream("Why?")]
    in_thread = await asyncio.to_thread(athena.process_message_sync, "Why?")
    assert "".join(words) == in_thread.content == "Athena has one idea about it."
    mesh.world.inference.failures = [PermissionDenied("not today")]
    with pytest.raises(AgentNetError, match="not today"):
        async for _ in athena.stream("Why?"):
            pass


async def test_the_commands_of_agents_work(
    mesh: Mesh, client: AgentNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AgentNet, "connect", lambda *_: client.again())
    file = tmp_path / "agents.yaml"
    file.write_text("agents:\n  - name: Scout\n    prompt: You look ahead.\n")

    async def run(*words: str, code: int = 0) -> str:
        result = await asyncio.to_thread(CliRunner().invoke, cli.app, ["agent", *words])
        assert result.exit_code == code, result.output
        return result.output

    assert "Scout@1.0.0  would be made" in await run("import", str(file), "--dry-run")
    assert "Scout@1.0.0  made" in await run("import", str(file))
    assert "Scout@1.0.0  there already" in await run("import", str(file))
    assert "coder@1.0.0" in await run("templates", "--domain", "coding")
    assert "made Coder@1.0.0 of coder@1.0.0" in await run("from-template", "coder", "--set", "language=Go")
    assert "Hermes can do" in await run("ask", "Review the operations")
    await mesh.around.follow()
    mesh.world.clock.advance(timedelta(seconds=1))
    assert "calls 1" in await run("metrics", "Hermes")
    assert "executions" in await run("reputation", "Hermes")
    assert "Hermes@1.0.0" in await run("minions", "--capability", "review")
    assert "Athena chains_to Apollo" in await run("join", "Athena", "chains_to", "Apollo")
    assert "Athena@1.0.0 > Apollo@1.0.0 completed" in await run("chain", "Athena", "Plan")
