"""What inference is told of the form an agent's output must have."""

from __future__ import annotations

from agentnet.orchestrator.v1 import agent_pb2
from services.orchestrator.peers import Utterance
from services.orchestrator.peers_grpc import _request
from services.orchestrator.prompts import Line
from shared import fields

SCHEMA = {"type": "object", "required": ["hits"]}


def test_a_model_is_asked_for_the_form_of_the_agents_output() -> None:
    agent = agent_pb2.Agent(name="Scout", version="1.0.0", output_schema=fields.struct(dict(SCHEMA)))
    made = _request(Utterance("gen_1", "ses_1", agent, "", (Line("user", "Search"),), 96))
    assert made.response_format.json_schema == agent.output_schema
    free = agent_pb2.Agent(name="Scout", version="1.0.0")
    assert not _request(Utterance("gen_1", "ses_1", free, "", (Line("user", "Search"),), 96)).HasField(
        "response_format"
    )
