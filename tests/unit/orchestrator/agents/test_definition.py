"""Files of agents: both founding forms are read, and what is wrong is named with its line."""

from __future__ import annotations

import pytest

from agentnet.orchestrator.v1 import agent_pb2
from services.orchestrator.agents.definition import parse_agents
from services.orchestrator.errors import AgentFileInvalid

WHOLE = """
agents:
  - name: Searcher
    version: 2.0.0
    description: Handles search queries.
    system_prompt: You are a search assistant.
    type: minion
    state: draft
    style: {logic: 0.9}
    tools: [web_search]
    functions: [search_docs]
    monitors: [default]
    sampling: {temperature: 0.2, seed: 7}
    max_chain_depth: 2
    chain_limits: {timeout_seconds: 30, cost_micros_usd: 5000, max_runs: 4}
    skills_directories: [writing]
    subagents: [Athena]
    max_concurrent_tasks: 3
    output_schema: {type: object, required: [hits]}
"""
SEED = """
agents:
  - name: SearchAgent
    prompt: You are a search assistant.
    input_schema: {type: object, properties: {query: {type: string}}}
    config_data:
      type: agent
      capabilities: [search, filter]
      max_chain_depth: 3
      chain_strategy: sequential
      temperature: 0.7
      top_p: 1.0
      presence_penalty: 0.0
      frequency_penalty: 0.5
      region: eu
    max_chain_depth: 4
"""


def test_every_field_is_read() -> None:
    (agent,) = parse_agents(WHOLE)
    assert (agent.type, agent.state, agent.tools, agent.functions) == (
        "minion",
        agent_pb2.AGENT_STATE_DRAFT,
        ["web_search"],
        ["search_docs"],
    )
    assert (agent.sampling.temperature, agent.sampling.seed) == (0.2, 7)
    assert not agent.sampling.HasField("top_p")
    limits = agent.chain_limits
    assert (limits.timeout.seconds, limits.cost_micros_usd, limits.max_runs) == (30, 5000, 4)
    assert (agent.skills_directories, agent.subagents, agent.max_concurrent_tasks) == (["writing"], ["Athena"], 3)
    assert agent.output_schema["required"][0] == "hits"


def test_the_seeds_form_says_the_same_in_its_own_words() -> None:
    (agent,) = parse_agents(SEED)
    assert (agent.version, agent.type, agent.chain_strategy) == ("1.0.0", "agent", "sequential")
    assert list(agent.capabilities) == ["search", "filter"]
    assert agent.system_prompt == "You are a search assistant."
    assert (agent.sampling.temperature, agent.sampling.top_p) == (0.7, 1.0)
    assert (agent.sampling.presence_penalty, agent.sampling.frequency_penalty) == (0.0, 0.5)
    assert agent.max_chain_depth == 4, "what stands beside the name counts before config_data"
    assert agent.config["region"] == "eu"


FAULTS = {
    "1Athena": ("agents:\n  - system_prompt: x\n    name: 1Athena\n", "3", "agents.0.name"),
    "an unknown field": ("agents:\n  - name: A\n    system_prompt: x\n    colour: blue\n", "4", "agents.0.colour"),
    "a missing prompt": ("agents:\n  - name: A\n", "2", "agents.0.system_prompt"),
    "a hot temperature": (
        "agents:\n  - name: A\n    system_prompt: x\n    sampling:\n      temperature: 3\n",
        "5",
        "agents.0.sampling.temperature",
    ),
    "a hot temperature as the seeds write it": (
        "agents:\n  - name: A\n    system_prompt: x\n    config_data:\n      temperature: 3\n",
        "5",
        "agents.0.config_data.temperature",
    ),
    "a schema that is none": (
        "agents:\n  - name: A\n    system_prompt: x\n    input_schema: {type: thing}\n",
        "4",
        "agents.0.input_schema",
    ),
    "an unknown engine": ("agents:\n  - name: A\n    system_prompt: x\n    engine: abacus\n", "4", "agents.0.engine"),
    "a folder outside": (
        "agents:\n  - name: A\n    system_prompt: x\n    skills_directories: [../etc]\n",
        "4",
        "agents.0.skills_directories",
    ),
    "a key twice": ("agents:\n  - name: A\n    name: B\n    system_prompt: x\n", "3", "agents.0.name"),
    "an alias": ("agents: &a\n  - *a\n", "2", ""),
    "no YAML": ("agents:\n  - name: [\n", "3", ""),
    "a text": ("hello", "1", ""),
    "two of one version": (
        "agents:\n  - {name: A, system_prompt: x}\n  - {name: A, system_prompt: y}\n",
        "3",
        "agents.1.name",
    ),
    "a prompt too long": (
        f"agents:\n  - name: A\n    model: m\n    system_prompt: {'x' * 32_769}\n",
        "4",
        "agents.0.system_prompt",
    ),
    "an empty name of a tool": ("agents:\n  - name: A\n    system_prompt: x\n    tools: ['']\n", "4", "agents.0.tools"),
}


@pytest.mark.parametrize(("document", "line", "path"), FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_is_named_with_its_line(document: str, line: str, path: str) -> None:
    with pytest.raises(AgentFileInvalid) as raised:
        parse_agents(document)
    said = raised.value.facts
    assert (said["path"], said["line"]) == (path, line)


def test_all_faults_of_a_file_are_told_at_once() -> None:
    with pytest.raises(AgentFileInvalid) as raised:
        parse_agents("agents:\n  - name: 1\n  - name: B\n    system_prompt: x\n    tools: web\n")
    assert "line 2: agents.0.name" in raised.value.message
    assert "line 5: agents.1.tools" in raised.value.message


def test_what_is_wrong_beyond_the_form_is_told_of_every_agent() -> None:
    with pytest.raises(AgentFileInvalid) as raised:
        parse_agents(
            "agents:\n"
            "  - {name: A, system_prompt: x, style: {logic: 3}}\n"
            "  - {name: B, system_prompt: x}\n"
            "  - {name: B, system_prompt: x, max_chain_depth: 99}\n"
        )
    assert "line 2: agents.0.style.logic" in raised.value.message
    assert "line 4: agents.2.name: B@1.0.0 is there twice" in raised.value.message
    assert "line 4: agents.2.max_chain_depth" in raised.value.message
