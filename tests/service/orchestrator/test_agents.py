"""AgentService over the wire: codes and reasons."""

from __future__ import annotations

from typing import Any

import pytest
from grpc import StatusCode

from agentnet.orchestrator.v1 import agent_pb2
from agentnet.orchestrator.v1 import agent_service_pb2 as pb
from shared.errors import FailedPrecondition, MeshError, Reason, ResourceExhausted
from tests.service.orchestrator.conftest import Mesh

ZEUS = agent_pb2.Agent(name="Zeus", system_prompt="You are Zeus.")


def said(error: MeshError) -> tuple[StatusCode, str]:
    return error.code, error.reason_name


async def test_an_agent_is_made_and_read_by_either_name(mesh: Mesh) -> None:
    made = (await mesh.ask(mesh.agents.CreateAgent, pb.CreateAgentRequest(agent=ZEUS))).agent
    for name in ("Zeus", "Zeus@1.0.0"):
        assert (await mesh.ask(mesh.agents.GetAgent, pb.GetAgentRequest(name=name))).agent == made
    assert made.id.startswith("agt_")


async def test_a_version_is_made_once(mesh: Mesh) -> None:
    request = pb.CreateAgentRequest(agent=ZEUS)
    await mesh.ask(mesh.agents.CreateAgent, request)
    error = await mesh.refused(mesh.agents.CreateAgent, request)
    assert said(error) == (StatusCode.ALREADY_EXISTS, "AGENT_VERSION_EXISTS")


async def test_a_repeated_request_makes_it_once_and_says_the_same(mesh: Mesh) -> None:
    request = pb.CreateAgentRequest(agent=ZEUS, request_id="req_1")
    assert await mesh.ask(mesh.agents.CreateAgent, request) == await mesh.ask(mesh.agents.CreateAgent, request)


async def test_another_tenants_agent_is_not_found(mesh: Mesh) -> None:
    await mesh.ask(mesh.agents.CreateAgent, pb.CreateAgentRequest(agent=ZEUS))
    error = await mesh.refused(mesh.agents.GetAgent, pb.GetAgentRequest(name="Zeus"), tenant="other")
    assert said(error) == (StatusCode.NOT_FOUND, "AGENT_NOT_FOUND")


@pytest.mark.parametrize(
    ("method", "request_", "field", "reason"),
    [
        ("CreateAgent", pb.CreateAgentRequest(), "agent.name", "FIELD_REQUIRED"),
        ("CreateAgent", pb.CreateAgentRequest(agent=ZEUS, request_id="r" * 65), "request_id", "FIELD_TOO_LONG"),
        ("GetAgent", pb.GetAgentRequest(name="Zeus@new"), "name", "FIELD_INVALID"),
        ("UpdateAgent", pb.UpdateAgentRequest(), "name", "FIELD_REQUIRED"),
        ("SetAgentState", pb.SetAgentStateRequest(name="Zeus"), "state", "FIELD_REQUIRED"),
        ("ListAgents", pb.ListAgentsRequest(order_by="colour"), "order_by", "FIELD_INVALID"),
        ("ListAgents", pb.ListAgentsRequest(page_token="x"), "page_token", "PAGE_TOKEN_INVALID"),
        ("ListAgents", pb.ListAgentsRequest(page_size=-1), "page_size", "FIELD_INVALID"),
        ("RunAgent", pb.RunAgentRequest(name="Athena"), "prompt", "FIELD_REQUIRED"),
    ],
)
async def test_a_bad_request_names_its_field(mesh: Mesh, method: str, request_: Any, field: str, reason: str) -> None:
    error = await mesh.refused(getattr(mesh.agents, method), request_)
    assert (*said(error), error.field) == (StatusCode.INVALID_ARGUMENT, reason, field)


async def test_agents_are_listed_page_by_page(mesh: Mesh) -> None:
    names, token = [], ""
    while True:
        page = await mesh.ask(mesh.agents.ListAgents, pb.ListAgentsRequest(page_size=2, page_token=token))
        names += [agent.name for agent in page.agents]
        if not (token := page.next_page_token):
            break
    assert names == ["Apollo", "Athena", "Hermes"]


async def test_an_update_makes_a_new_version(mesh: Mesh) -> None:
    request = pb.UpdateAgentRequest(name="Athena", agent=agent_pb2.Agent(description="Sharper."))
    made = (await mesh.ask(mesh.agents.UpdateAgent, request)).agent
    assert (made.version, made.description) == ("1.0.1", "Sharper.")
    error = await mesh.refused(mesh.agents.UpdateAgent, pb.UpdateAgentRequest(name="Hera", agent=made))
    assert said(error) == (StatusCode.NOT_FOUND, "AGENT_NOT_FOUND")


async def test_an_archived_agent_neither_runs_nor_comes_back(mesh: Mesh) -> None:
    archive = pb.SetAgentStateRequest(name="Athena", state=agent_pb2.AGENT_STATE_ARCHIVED)
    await mesh.ask(mesh.agents.SetAgentState, archive)
    run = await mesh.refused(mesh.agents.RunAgent, pb.RunAgentRequest(name="Athena", prompt="Hello"))
    back = pb.SetAgentStateRequest(name="Athena", state=agent_pb2.AGENT_STATE_ACTIVE)
    moved = await mesh.refused(mesh.agents.SetAgentState, back)
    assert said(run) == said(moved) == (StatusCode.FAILED_PRECONDITION, "AGENT_ARCHIVED")


async def test_an_agent_runs_once_a_request(mesh: Mesh) -> None:
    request = pb.RunAgentRequest(name="Athena", prompt="Why two replicas?", request_id="req_1")
    first = await mesh.ask(mesh.agents.RunAgent, request)
    second = await mesh.ask(mesh.agents.RunAgent, request)
    assert first == second
    assert first.turn.content == "Athena has one idea about it."
    assert first.turn.session_id == first.session_id
    assert len(mesh.world.inference.started) == 1


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (
            FailedPrecondition("a rule blocks it", reason=Reason.ERROR_REASON_POLICY_BLOCKED, rule="pii"),
            StatusCode.FAILED_PRECONDITION,
        ),
        (
            ResourceExhausted("no room", reason=Reason.ERROR_REASON_BUDGET_EXHAUSTED, budget_id="bud_1"),
            StatusCode.RESOURCE_EXHAUSTED,
        ),
    ],
)
async def test_a_run_that_may_not_be_fails_as_the_contract_says(
    mesh: Mesh, failure: MeshError, code: StatusCode
) -> None:
    mesh.world.inference.failures = [failure]
    error = await mesh.refused(mesh.agents.RunAgent, pb.RunAgentRequest(name="Athena", prompt="Hello"))
    assert said(error) == (code, failure.reason_name)
    assert failure.facts.items() <= error.facts.items()
    assert error.facts["session_id"].startswith("ses_")


async def test_a_run_that_takes_too_long_goes_on_under_the_id_it_names(mesh: Mesh) -> None:
    mesh.world.inference.held_at = 3
    request = pb.RunAgentRequest(name="Athena", prompt="Hello", request_id="req_1")
    error = await mesh.refused(mesh.agents.RunAgent, request, timeout=1.5)
    mesh.world.inference.release()
    again = await mesh.ask(mesh.agents.RunAgent, request)
    assert said(error) == (StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")
    assert again.session_id == error.facts["session_id"]


FILE = """
agents:
  - name: Scout
    prompt: You look ahead.
    input_schema: {type: object, required: [where], properties: {where: {type: string}}}
    config_data: {capabilities: [search], temperature: 0.2}
"""


async def test_a_file_of_agents_is_imported_once(mesh: Mesh) -> None:
    tried = await mesh.ask(mesh.agents.ImportAgents, pb.ImportAgentsRequest(document=FILE, dry_run=True))
    assert list(tried.created) == ["Scout@1.0.0"]
    first = await mesh.ask(mesh.agents.ImportAgents, pb.ImportAgentsRequest(document=FILE))
    again = await mesh.ask(mesh.agents.ImportAgents, pb.ImportAgentsRequest(document=FILE))
    assert list(first.created) == ["Scout@1.0.0"]
    assert list(again.created) == []
    assert again.agents[0] == first.agents[0]
    other = FILE.replace("look ahead", "look back")
    error = await mesh.refused(mesh.agents.ImportAgents, pb.ImportAgentsRequest(document=other))
    assert said(error) == (StatusCode.ALREADY_EXISTS, "AGENT_VERSION_EXISTS")


async def test_a_file_with_a_fault_is_refused_with_its_line(mesh: Mesh) -> None:
    broken = FILE.replace("0.2", "9")
    error = await mesh.refused(mesh.agents.ImportAgents, pb.ImportAgentsRequest(document=broken))
    assert said(error) == (StatusCode.INVALID_ARGUMENT, "AGENT_FILE_INVALID")
    assert (error.facts["line"], error.facts["path"]) == ("6", "agents.0.config_data.temperature")


async def test_an_agent_that_takes_data_is_asked_with_data_that_fits(mesh: Mesh) -> None:
    await mesh.ask(mesh.agents.ImportAgents, pb.ImportAgentsRequest(document=FILE))
    for prompt, path in (("Paris", "$"), ('{"where": 7}', "$.where"), ("{}", "$")):
        error = await mesh.refused(mesh.agents.RunAgent, pb.RunAgentRequest(name="Scout", prompt=prompt))
        assert (*said(error), error.facts["path"]) == (StatusCode.INVALID_ARGUMENT, "AGENT_INPUT_INVALID", path)
    request = pb.RunAgentRequest(name="Scout")
    request.input["where"] = "Paris"
    turn = (await mesh.ask(mesh.agents.RunAgent, request)).turn
    assert turn.prompt == '{"where": "Paris"}'
