"""What the border lets in: every limit of the contract's comments, with the field named."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from agentnet.orchestrator.v1 import agent_pb2, event_pb2
from agentnet.orchestrator.v1 import agent_service_pb2 as agents
from agentnet.orchestrator.v1 import session_service_pb2 as sessions
from services.orchestrator import convert
from shared.errors import InvalidArgument, MeshError, Reason

GOOD_AGENT = {"name": "Athena", "system_prompt": "You are Athena."}
GOOD_SESSION = {"topic": "Failover", "agents": ["Athena", "Apollo@1.0.0"]}


def agent(**changes: Any) -> agent_pb2.Agent:
    return json_format.ParseDict(GOOD_AGENT | changes, agent_pb2.Agent())


def start(**changes: Any) -> sessions.StartSessionRequest:
    return json_format.ParseDict(GOOD_SESSION | changes, sessions.StartSessionRequest())


@pytest.mark.parametrize(
    ("changes", "field", "reason"),
    [
        ({"name": ""}, "agent.name", "FIELD_REQUIRED"),
        ({"name": "1Athena"}, "agent.name", "FIELD_INVALID"),
        ({"name": "A" * 65}, "agent.name", "FIELD_INVALID"),
        ({"version": "1.0"}, "agent.version", "FIELD_INVALID"),
        ({"system_prompt": "  "}, "agent.system_prompt", "FIELD_REQUIRED"),
        ({"system_prompt": "x" * 32_769}, "agent.system_prompt", "FIELD_TOO_LONG"),
        ({"description": "x" * 1_001}, "agent.description", "FIELD_TOO_LONG"),
        ({"capabilities": ["x"] * 33}, "agent.capabilities", "FIELD_TOO_LONG"),
        ({"capabilities": ["planning", "a\x00b"]}, "agent.capabilities[1]", "FIELD_INVALID"),
        ({"tools": ["x"] * 65}, "agent.tools", "FIELD_TOO_LONG"),
        ({"tools": [""]}, "agent.tools[0]", "FIELD_REQUIRED"),
        ({"functions": ["x"] * 65}, "agent.functions", "FIELD_TOO_LONG"),
        ({"monitors": ["x"] * 17}, "agent.monitors", "FIELD_TOO_LONG"),
        ({"style": {"logic": "a\x00b"}}, "agent.style", "FIELD_INVALID"),
        ({"config": {"a\x00b": 1}}, "agent.config", "FIELD_INVALID"),
        ({"config": {"deep": [{"text": "x" * 65_536}]}}, "agent.config", "FIELD_TOO_LONG"),
        ({"max_chain_depth": 17}, "agent.max_chain_depth", "FIELD_INVALID"),
        ({"chain_strategy": "sideways"}, "agent.chain_strategy", "FIELD_INVALID"),
        ({"state": 99}, "agent.state", "FIELD_INVALID"),
        ({"sampling": {"temperature": 2.5}}, "agent.sampling.temperature", "FIELD_INVALID"),
        ({"sampling": {"temperature": "NaN"}}, "agent.sampling.temperature", "FIELD_INVALID"),
        ({"sampling": {"top_p": -0.1}}, "agent.sampling.top_p", "FIELD_INVALID"),
        ({"sampling": {"max_output_tokens": 0}}, "agent.sampling.max_output_tokens", "FIELD_INVALID"),
    ],
)
def test_a_bad_agent_is_refused_by_field(changes: dict[str, Any], field: str, reason: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        convert.agent(agent(**changes))
    assert (raised.value.field, raised.value.reason_name) == (field, reason)


def test_a_new_agent_is_active_and_of_the_first_version() -> None:
    made = convert.agent(agent())
    assert (made.version, made.state) == ("1.0.0", agent_pb2.AGENT_STATE_ACTIVE)


def test_changes_need_neither_name_nor_prompt() -> None:
    assert convert.agent(agent_pb2.Agent(description="Sharper."), partial=True).description == "Sharper."


@pytest.mark.parametrize(
    ("changes", "field", "reason"),
    [
        ({"topic": ""}, "topic", "FIELD_REQUIRED"),
        ({"topic": "x" * 32_769}, "topic", "FIELD_TOO_LONG"),
        ({"topic": "a\x00b"}, "topic", "FIELD_INVALID"),
        ({"agents": []}, "agents", "FIELD_REQUIRED"),
        ({"agents": [f"A{place}" for place in range(17)]}, "agents", "FIELD_TOO_LONG"),
        ({"agents": ["Athena", ""]}, "agents[1]", "FIELD_REQUIRED"),
        ({"agents": ["Athena@one"]}, "agents[0]", "FIELD_INVALID"),
        ({"agents": ["Athena", "Athena@1.0.0"]}, "agents", "FIELD_INVALID"),
        ({"mode": "single"}, "agents", "OPTIONS_CONTRADICT"),
        ({"mode": "duel"}, "mode", "NAME_UNKNOWN"),
        ({"strategy": "auction"}, "strategy", "NAME_UNKNOWN"),
        ({"max_rounds": -1}, "max_rounds", "FIELD_INVALID"),
        ({"max_rounds": 51}, "max_rounds", "FIELD_INVALID"),
        ({"convergence_policy": {"threshold": 1.1}}, "convergence_policy.threshold", "FIELD_INVALID"),
        (
            {"convergence_policy": {"measures": [{"measure": "luck"}]}},
            "convergence_policy.measures[0].measure",
            "NAME_UNKNOWN",
        ),
        (
            {
                "convergence_policy": {
                    "measures": [{"measure": "jaccard"}, {"measure": "luck", "threshold": 1, "rounds": 1}]
                }
            },
            "convergence_policy.measures[1].measure",
            "NAME_UNKNOWN",
        ),
        (
            {"convergence_policy": {"measures": [{"measure": "jaccard", "rounds": 11}]}},
            "convergence_policy.measures[0].rounds",
            "FIELD_INVALID",
        ),
        ({"limits": {"max_turns": -1}}, "limits.max_turns", "FIELD_INVALID"),
        ({"limits": {"max_iterations": 33}}, "limits.max_iterations", "FIELD_INVALID"),
        ({"limits": {"max_duration": "-1s"}}, "limits.max_duration", "FIELD_INVALID"),
        ({"options": {"quorum": 1.5}}, "options.quorum", "FIELD_INVALID"),
        ({"options": {"judge": "no name"}}, "options.judge", "FIELD_INVALID"),
        ({"metadata": {"note": "x" * 16_385}}, "metadata", "FIELD_TOO_LONG"),
        ({"metadata": {"note": ["a\x00b"]}}, "metadata", "FIELD_INVALID"),
    ],
)
def test_a_bad_session_is_refused_by_field(changes: dict[str, Any], field: str, reason: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        convert.session(start(**changes))
    assert (raised.value.field, raised.value.reason_name) == (field, reason)


def test_the_seeds_example_starts_a_session() -> None:
    example = {
        "topic": "Design zero-loss edge failover",
        "mode": "brainstorm",
        "strategy": "round_robin",
        "agents": ["Athena@1.0.0", "Apollo@1.0.0"],
        "max_rounds": 6,
        "convergence": True,
        "metadata": {"project": "edgeX"},
    }
    session = convert.session(start(**example))
    assert (session.max_rounds, session.convergence_policy.enabled, session.convergence_policy.threshold) == (
        6,
        True,
        0.8,
    )


@pytest.mark.parametrize(
    ("agents_given", "mode", "expected", "rounds"),
    [
        (["Athena"], "", "single", 1),
        (["Athena", "Apollo"], "", "brainstorm", 3),
        (["Athena"], "brainstorm", "brainstorm", 3),
    ],
)
def test_the_mode_follows_from_the_number_of_agents(
    agents_given: list[str], mode: str, expected: str, rounds: int
) -> None:
    session = convert.session(start(agents=agents_given, mode=mode))
    assert (session.mode, session.max_rounds) == (expected, rounds)


@pytest.mark.parametrize("call", ["agents", "sessions"])
def test_an_unknown_order_is_refused(call: str) -> None:
    parse: Any = convert.list_agents if call == "agents" else convert.list_sessions
    request: Any = agents.ListAgentsRequest if call == "agents" else sessions.ListSessionsRequest
    with pytest.raises(InvalidArgument) as raised:
        parse(request(order_by="colour"))
    assert raised.value.field == "order_by"


def test_a_page_token_fits_only_its_own_list() -> None:
    _, asked = convert.list_agents(agents.ListAgentsRequest(page_size=1))
    token = convert.agents_response([agent(), agent()], asked).next_page_token
    _, again = convert.list_agents(agents.ListAgentsRequest(page_size=1, page_token=token))
    assert again.page.cursor == ("1",)
    with pytest.raises(MeshError) as raised:
        convert.list_agents(agents.ListAgentsRequest(page_size=1, page_token=token, name="Athena"))
    assert raised.value.reason == Reason.ERROR_REASON_PAGE_TOKEN_INVALID


def test_a_watch_from_before_the_start_is_refused() -> None:
    with pytest.raises(InvalidArgument):
        convert.watch(sessions.WatchSessionRequest(session_id="ses_1", after_sequence=-1))


@given(st.text(max_size=300), st.integers(min_value=1, max_value=2**40))
def test_the_envelope_is_the_message_the_contract_means(text: str, sequence: int) -> None:
    event = event_pb2.SessionEvent(sequence=sequence, tokens_produced=event_pb2.TokensProduced(text=text))
    response = sessions.WatchSessionResponse(event=event)
    assert convert.envelope(event.SerializeToString()) == response.SerializeToString()
