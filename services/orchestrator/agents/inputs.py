"""What an agent is asked, against the schema of its input; what it answers, against that of its output."""

from __future__ import annotations

import json

from agentnet.orchestrator.v1 import agent_pb2
from services.orchestrator.agents.checks import misfit
from services.orchestrator.errors import AgentInputInvalid


def check_input(agent: agent_pb2.Agent, prompt: str) -> None:
    """Raises AgentInputInvalid when the agent takes data and the prompt is not it."""
    if not agent.input_schema.fields:
        return
    reference = f"{agent.name}@{agent.version}"
    try:
        value = json.loads(prompt)
    except ValueError:
        why = f"{reference} takes JSON that fits its input_schema"
        raise AgentInputInvalid(why, field="prompt", agent=reference, path="$") from None
    if fault := misfit(agent.input_schema, value):
        path = fault.partition(": ")[0]
        raise AgentInputInvalid(f"the input does not fit: {fault}", field="prompt", agent=reference, path=path)


def output_fault(agent: agent_pb2.Agent, output: str) -> str | None:
    """Where and why an output does not fit; None when it does, or when any text will do."""
    if not agent.output_schema.fields:
        return None
    try:
        value = json.loads(output)
    except ValueError:
        return "$: it is not JSON"
    return misfit(agent.output_schema, value)
