"""DispatchService, RelationshipService and AgentTemplateService over the wire."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import StatusCode

from agentnet.orchestrator.v1 import (
    agent_pb2,
    delegation_pb2,
    dispatch_service_pb2_grpc,
    relationship_service_pb2_grpc,
    template_service_pb2_grpc,
)
from agentnet.orchestrator.v1 import dispatch_service_pb2 as pb
from agentnet.orchestrator.v1 import relationship_service_pb2 as relations
from agentnet.orchestrator.v1 import template_service_pb2 as templates
from shared.errors import MeshError
from tests.service.orchestrator.conftest import Mesh

ASKED = pb.DispatchMessage(content="Plan the architecture of a failover")
COMPLETED = delegation_pb2.DELEGATION_STATE_COMPLETED


def said(error: MeshError) -> tuple[StatusCode, str]:
    return error.code, error.reason_name


@pytest.fixture
def dispatch(mesh: Mesh) -> Any:
    return dispatch_service_pb2_grpc.DispatchServiceStub(mesh.channel)


@pytest.fixture
def relationships(mesh: Mesh) -> Any:
    return relationship_service_pb2_grpc.RelationshipServiceStub(mesh.channel)


@pytest.fixture
def shelf(mesh: Mesh) -> Any:
    return template_service_pb2_grpc.AgentTemplateServiceStub(mesh.channel)


async def test_messages_find_the_agent_that_can_answer_them(mesh: Mesh, dispatch: Any) -> None:
    messages = [pb.DispatchMessage(role="human", content="Hello"), pb.DispatchMessage(role="ai", content="Hi"), ASKED]
    request = pb.DispatchRequest(messages=messages, conversation_id="123")
    answer = await mesh.ask(dispatch.Dispatch, request)
    assert answer.delegation.target == "Athena@1.0.0"
    assert list(answer.delegation.choice.candidates[0].matched) == ["architecture", "planning"]
    assert answer.turn.content == answer.delegation.output == "Athena has one idea about it."
    assert answer.turn.prompt == (
        "The conversation so far:\nuser: Hello\nassistant: Hi\n\nuser: Plan the architecture of a failover"
    )
    found = await mesh.ask(dispatch.GetDelegation, pb.GetDelegationRequest(delegation_id=answer.delegation.id))
    listed = await mesh.ask(dispatch.ListDelegations, pb.ListDelegationsRequest(agent="Athena", state=COMPLETED))
    assert found.delegation == listed.delegations[0] == answer.delegation


async def test_minions_show_what_they_are_doing(mesh: Mesh, dispatch: Any) -> None:
    mesh.world.inference.held_at = 3
    opened = await mesh.ask(dispatch.Dispatch, pb.DispatchRequest(messages=[ASKED], detached=True))
    working = await mesh.ask(dispatch.ListMinions, pb.ListMinionsRequest(capability="architecture"))
    assert not opened.HasField("turn")
    assert [(one.agent, one.state, one.running) for one in working.minions] == [("Athena@1.0.0", "working", 1)]
    revoke = pb.RevokeDelegationRequest(delegation_id=opened.delegation.id)
    assert list((await mesh.ask(dispatch.RevokeDelegation, revoke)).revoked) == [opened.delegation.id]
    mesh.world.inference.release()
    idle = await mesh.ask(dispatch.ListMinions, pb.ListMinionsRequest(capability="architecture"))
    assert (idle.minions[0].state, idle.minions[0].reputation) == ("idle", 0.5)


async def test_minions_come_by_pages(mesh: Mesh, dispatch: Any) -> None:
    seen, asked = [], pb.ListMinionsRequest(page_size=1)
    while not seen or asked.page_token:
        page = await mesh.ask(dispatch.ListMinions, asked)
        seen += [one.agent for one in page.minions]
        asked.page_token = page.next_page_token
    whole = await mesh.ask(dispatch.ListMinions, pb.ListMinionsRequest())
    assert seen == [one.agent for one in whole.minions]
    assert len(seen) > 1


async def test_nobody_able_is_said_with_who_lacks_what(mesh: Mesh, dispatch: Any) -> None:
    request = pb.RouteRequest(messages=[ASKED], capabilities=["painting"])
    error = await mesh.refused(dispatch.Route, request)
    assert said(error) == (StatusCode.FAILED_PRECONDITION, "NO_AGENT_ABLE")
    assert "Athena: it lacks painting" in error.facts["why"]


@pytest.mark.parametrize(
    ("request_", "field", "reason"),
    [
        (pb.DispatchRequest(), "messages", "FIELD_REQUIRED"),
        (pb.DispatchRequest(messages=[pb.DispatchMessage(content=" ")]), "messages[0].content", "FIELD_REQUIRED"),
        (pb.DispatchRequest(messages=[pb.DispatchMessage(role="bot", content="x")]), "messages[0].role",
         "FIELD_INVALID"),
        (pb.DispatchRequest(messages=[pb.DispatchMessage(content="x" * 32_769)]), "messages", "FIELD_TOO_LONG"),
        (pb.DispatchRequest(messages=[ASKED], agents=["Athena@1.0.0"]), "agents[0]", "FIELD_INVALID"),
        (pb.DispatchRequest(messages=[ASKED], capability=delegation_pb2.Capability(no_tools=True, tools=["a"])),
         "capability.no_tools", "FIELD_INVALID"),
        (pb.DispatchRequest(
            messages=[ASKED], capability=delegation_pb2.Capability(expire_time=Timestamp(seconds=1 << 62))
        ), "capability.expire_time", "FIELD_INVALID"),
    ],
)  # fmt: skip
async def test_a_bad_dispatch_names_its_field(
    mesh: Mesh, dispatch: Any, request_: Any, field: str, reason: str
) -> None:
    error = await mesh.refused(dispatch.Dispatch, request_)
    assert (*said(error), error.field) == (StatusCode.INVALID_ARGUMENT, reason, field)


async def test_what_is_not_there_is_not_found(mesh: Mesh, dispatch: Any, relationships: Any, shelf: Any) -> None:
    for call, request, reason in (
        (dispatch.GetDelegation, pb.GetDelegationRequest(delegation_id="del_0"), "DELEGATION_NOT_FOUND"),
        (dispatch.Dispatch, pb.DispatchRequest(messages=[ASKED], parent_id="del_0"), "DELEGATION_NOT_FOUND"),
        (dispatch.Dispatch, pb.DispatchRequest(messages=[ASKED], agents=["Zeus"]), "AGENT_NOT_FOUND"),
        (relationships.DeleteAgentRelationship, relations.DeleteAgentRelationshipRequest(relationship_id="rel_0"),
         "RELATIONSHIP_NOT_FOUND"),
        (relationships.GetChain, relations.GetChainRequest(chain_id="tgr_0"), "TASK_GRAPH_NOT_FOUND"),
        (shelf.CreateAgentFromTemplate, templates.CreateAgentFromTemplateRequest(template="baker"),
         "AGENT_TEMPLATE_NOT_FOUND"),
    ):  # fmt: skip
        assert said(await mesh.refused(call, request)) == (StatusCode.NOT_FOUND, reason)


async def test_what_is_delegated_can_only_be_less(mesh: Mesh, dispatch: Any) -> None:
    changes = agent_pb2.Agent(subagents=["Hermes"])
    await mesh.world.agents.update("acme", "Athena", changes, request_id=None)
    mesh.world.inference.held_at = 2
    bound = delegation_pb2.Capability(depth=0)
    first = pb.DispatchRequest(messages=[ASKED], agents=["Athena"], detached=True, capability=bound)
    parent = await mesh.ask(dispatch.Dispatch, first)
    below = pb.DispatchRequest(messages=[ASKED], parent_id=parent.delegation.id)
    error = await mesh.refused(dispatch.Dispatch, below)
    assert (*said(error), error.field) == (
        StatusCode.PERMISSION_DENIED,
        "DELEGATION_TOO_WIDE",
        "capability.depth",
    )
    await mesh.ask(dispatch.RevokeDelegation, pb.RevokeDelegationRequest(delegation_id=parent.delegation.id))
    error = await mesh.refused(dispatch.Dispatch, below)
    assert (*said(error), error.facts["state"]) == (StatusCode.PERMISSION_DENIED, "DELEGATION_ENDED", "REVOKED")
    mesh.world.inference.release()


async def test_a_chain_runs_along_the_relationships(mesh: Mesh, relationships: Any) -> None:
    for source, target in (("Athena", "Apollo"), ("Apollo", "Hermes")):
        one = relations.AgentRelationship(source=source, target=target, kind="chains_to")
        request = relations.CreateAgentRelationshipRequest(relationship=one)
        made = (await mesh.ask(relationships.CreateAgentRelationship, request)).relationship
        assert made.id.startswith("rel_")
    begun = (await mesh.ask(relationships.RunChain, relations.RunChainRequest(name="Athena", prompt="Plan"))).chain
    assert [step.depth for step in begun.steps] == [1, 2, 3]
    chain = begun
    while chain.status in ("pending", "running"):
        chain = (await mesh.ask(relationships.GetChain, relations.GetChainRequest(chain_id=begun.id))).chain
    assert (chain.status, chain.output) == ("completed", "Hermes has one idea about it.")
    back = relations.AgentRelationship(source="Hermes", target="Athena", kind="chains_to")
    error = await mesh.refused(
        relationships.CreateAgentRelationship, relations.CreateAgentRelationshipRequest(relationship=back)
    )
    assert said(error) == (StatusCode.FAILED_PRECONDITION, "RELATIONSHIP_INVALID")
    limited = agent_pb2.Agent()
    limited.chain_limits.max_runs = 2
    await mesh.world.agents.update("acme", "Athena", limited, request_id=None)
    error = await mesh.refused(relationships.RunChain, relations.RunChainRequest(name="Athena", prompt="Plan"))
    assert said(error) == (StatusCode.FAILED_PRECONDITION, "CHAIN_LIMIT_REACHED")
    listed = await mesh.ask(
        relationships.ListAgentRelationships, relations.ListAgentRelationshipsRequest(name="Apollo")
    )
    assert [(one.source, one.target) for one in listed.relationships] == [("Apollo", "Hermes"), ("Athena", "Apollo")]
    one = relations.ListAgentRelationshipsRequest(name="Apollo", page_size=1)
    first = await mesh.ask(relationships.ListAgentRelationships, one)
    one.page_token = first.next_page_token
    second = await mesh.ask(relationships.ListAgentRelationships, one)
    assert [*first.relationships, *second.relationships] == list(listed.relationships)
    assert not second.next_page_token


async def test_a_template_becomes_an_agent_with_a_persona(mesh: Mesh, shelf: Any) -> None:
    found = await mesh.ask(shelf.ListAgentTemplates, templates.ListAgentTemplatesRequest())
    assert {one.domain for one in found.templates} == {"coding", "writing", "research"}
    assert {"mentor", "critic"} <= {one.name for one in found.personas}
    request = templates.CreateAgentFromTemplateRequest(
        template="coder", name="Rustacean", persona="critic", parameters={"language": "Rust"}
    )
    made = (await mesh.ask(shelf.CreateAgentFromTemplate, request)).agent
    assert (made.name, made.version, made.template) == ("Rustacean", "1.0.0", "coder@1.0.0")
    assert "senior Rust engineer" in made.system_prompt
    assert "direct critic" in made.system_prompt
    assert (made.style["skepticism"], made.style["logic"]) == (0.9, 0.9)
    assert (await mesh.ask(shelf.CreateAgentFromTemplate, request)).agent.version == "1.0.1"
    again = await mesh.ask(shelf.ListAgentTemplates, templates.ListAgentTemplatesRequest(domain="coding"))
    assert {one.name: one.uses for one in again.templates} == {"coder": 2, "code-reviewer": 0}
    asked = templates.ListAgentTemplatesRequest(page_size=len(found.templates) - 1)
    first = await mesh.ask(shelf.ListAgentTemplates, asked)
    asked.page_token = first.next_page_token
    last = await mesh.ask(shelf.ListAgentTemplates, asked)
    assert [one.name for one in (*first.templates, *last.templates)] == [one.name for one in found.templates]
    assert (len(last.templates), list(last.personas), last.next_page_token) == (1, [], "")


async def test_a_template_says_what_is_missing(mesh: Mesh, shelf: Any) -> None:
    for request, word in (
        (templates.CreateAgentFromTemplateRequest(template="researcher"), "needs field"),
        (
            templates.CreateAgentFromTemplateRequest(template="coder", parameters={"colour": "red"}),
            "no parameter colour",
        ),
        (templates.CreateAgentFromTemplateRequest(template="coder", persona="pirate"), "no persona pirate"),
    ):
        error = await mesh.refused(shelf.CreateAgentFromTemplate, request)
        assert error.code == StatusCode.INVALID_ARGUMENT
        assert word in error.message


async def test_a_tenant_publishes_a_template_for_itself(mesh: Mesh, shelf: Any) -> None:
    agent = agent_pb2.Agent(name="Baker", system_prompt="You bake {{what}}.")
    wanted = templates.AgentTemplate(name="baker", domain="food", agent=agent)
    request = templates.PublishAgentTemplateRequest(template=wanted)
    error = await mesh.refused(shelf.PublishAgentTemplate, request)
    assert error.field == "template.parameters"
    request.template.parameters["what"] = "bread"
    published = (await mesh.ask(shelf.PublishAgentTemplate, request)).template
    assert (published.version, published.builtin) == ("1.0.0", False)
    assert said(await mesh.refused(shelf.PublishAgentTemplate, request)) == (
        StatusCode.ALREADY_EXISTS,
        "AGENT_VERSION_EXISTS",
    )
    made = await mesh.ask(shelf.CreateAgentFromTemplate, templates.CreateAgentFromTemplateRequest(template="baker"))
    assert made.agent.system_prompt == "You bake bread."
    others = await mesh.ask(
        shelf.ListAgentTemplates, templates.ListAgentTemplatesRequest(domain="food"), tenant="other"
    )
    assert not others.templates
