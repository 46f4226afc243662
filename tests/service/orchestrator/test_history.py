"""AgentHistoryService and ReasoningService over the wire."""

from __future__ import annotations

from typing import Any

import pytest
from grpc import StatusCode

from agentnet.orchestrator.v1 import agent_history_service_pb2 as pb
from agentnet.orchestrator.v1 import agent_history_service_pb2_grpc, agent_service_pb2, reasoning_service_pb2_grpc
from agentnet.orchestrator.v1 import reasoning_service_pb2 as reasoning
from shared.errors import MeshError
from tests.service.orchestrator.conftest import Mesh


def said(error: MeshError) -> tuple[StatusCode, str]:
    return error.code, error.reason_name


@pytest.fixture
def history(mesh: Mesh) -> Any:
    return agent_history_service_pb2_grpc.AgentHistoryServiceStub(mesh.channel)


async def ran(mesh: Mesh) -> agent_service_pb2.RunAgentResponse:
    request = agent_service_pb2.RunAgentRequest(name="Athena", prompt="Why two zones?")
    answer: agent_service_pb2.RunAgentResponse = await mesh.ask(mesh.agents.RunAgent, request)
    await mesh.around.follow()
    return answer


async def test_what_an_agent_did_is_read_with_its_sums(mesh: Mesh, history: Any) -> None:
    answer = await ran(mesh)
    listed = await mesh.ask(history.ListAgentExecutions, pb.ListAgentExecutionsRequest(name="Athena@1.0.0"))
    assert [one.turn_id for one in listed.executions] == [answer.turn.id]
    wanted = pb.GetAgentMetricsRequest(name="Athena")
    wanted.end_time.FromNanoseconds(listed.executions[0].end_time.ToNanoseconds() + 1_000_000)
    metrics = (await mesh.ask(history.GetAgentMetrics, wanted)).metrics
    assert (metrics.calls, metrics.errors, metrics.cost_micros_usd) == (1, 0, 7)


async def test_a_rating_moves_the_reputation_once_and_says_why(mesh: Mesh, history: Any) -> None:
    before = (await mesh.ask(history.GetAgentReputation, pb.GetAgentReputationRequest(name="Athena"))).reputation
    request = pb.RateAgentRequest(name="Athena", score=1, source="evaluation", request_id="r1")
    first = (await mesh.ask(history.RateAgent, request)).reputation
    again = (await mesh.ask(history.RateAgent, request)).reputation
    assert before.score == 0.5
    assert first.score == again.score == pytest.approx(4 / 6)
    assert {factor.source for factor in first.factors} == {"evaluation", "prior"}


async def test_the_graph_of_a_session_is_read(mesh: Mesh) -> None:
    answer = await ran(mesh)
    stub: Any = reasoning_service_pb2_grpc.ReasoningServiceStub(mesh.channel)
    graph = await mesh.ask(stub.GetReasoningGraph, reasoning.GetReasoningGraphRequest(session_id=answer.session_id))
    request = reasoning.GetReasoningTreeRequest(session_id=answer.session_id, turn_id=answer.turn.id)
    tree = (await mesh.ask(stub.GetReasoningTree, request)).tree
    assert list(graph.trees) == [tree]
    assert tree.nodes[0].text == "Why two zones?"
    for bad in (
        reasoning.GetReasoningTreeRequest(session_id=answer.session_id, turn_id="trn_none"),
        reasoning.GetReasoningTreeRequest(session_id="ses_none", turn_id=answer.turn.id),
    ):
        error = await mesh.refused(stub.GetReasoningTree, bad)
        assert said(error) == (StatusCode.NOT_FOUND, "SESSION_NOT_FOUND")
    error = await mesh.refused(stub.GetReasoningTree, request, tenant="other")
    assert said(error) == (StatusCode.NOT_FOUND, "SESSION_NOT_FOUND")


@pytest.mark.parametrize(
    ("method", "request_", "field", "reason"),
    [
        ("ListAgentExecutions", pb.ListAgentExecutionsRequest(), "name", "FIELD_REQUIRED"),
        ("ListAgentExecutions", pb.ListAgentExecutionsRequest(name="A", page_token="x"), "page_token",
         "PAGE_TOKEN_INVALID"),
        ("RateAgent", pb.RateAgentRequest(name="Athena", score=2), "score", "FIELD_INVALID"),
        ("RateAgent", pb.RateAgentRequest(name="Athena", source="me"), "source", "FIELD_INVALID"),
        ("RateAgent", pb.RateAgentRequest(name="Athena", note="n" * 1001), "note", "FIELD_TOO_LONG"),
    ],
)  # fmt: skip
async def test_a_bad_request_names_its_field(
    mesh: Mesh, history: Any, method: str, request_: Any, field: str, reason: str
) -> None:
    error = await mesh.refused(getattr(history, method), request_)
    assert (*said(error), error.field) == (StatusCode.INVALID_ARGUMENT, reason, field)


async def test_nobody_knows_an_agent_that_is_not_there(mesh: Mesh, history: Any) -> None:
    for call, request in (
        (history.RateAgent, pb.RateAgentRequest(name="Zeus", score=1)),
        (history.GetAgentReputation, pb.GetAgentReputationRequest(name="Zeus")),
    ):
        assert said(await mesh.refused(call, request)) == (StatusCode.NOT_FOUND, "AGENT_NOT_FOUND")
