"""Work that finds its agent: dispatch, delegations, chains; what agents did; templates they are made of."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

from agentnet.client.calls import unary
from agentnet.client.transport import Transport
from agentnet.orchestrator.v1 import (
    agent_history_service_pb2,
    agent_history_service_pb2_grpc,
    agent_pb2,
    delegation_pb2,
    dispatch_service_pb2,
    dispatch_service_pb2_grpc,
    execution_pb2,
    reasoning_service_pb2,
    reasoning_service_pb2_grpc,
    relationship_service_pb2,
    relationship_service_pb2_grpc,
    template_service_pb2,
    template_service_pb2_grpc,
)


class Dispatch:
    """Gives work to whoever fits it best, within bounds."""

    def __init__(self, transport: Transport) -> None:
        self._stub = dispatch_service_pb2_grpc.DispatchServiceStub(transport.channel)
        self._call = transport.options

    async def dispatch(
        self, request: dispatch_service_pb2.DispatchRequest, *, timeout: float = 120.0
    ) -> dispatch_service_pb2.DispatchResponse:
        """Waits for the answer unless the request is detached. `timeout` in seconds; the work goes on without us."""
        return await unary(self._stub.Dispatch(request, **self._call(timeout=timeout)))

    async def route(self, task: str, *, capabilities: Sequence[str] = ()) -> delegation_pb2.Choice:
        """Who would be chosen for a task, and why."""
        message = dispatch_service_pb2.DispatchMessage(content=task)
        request = dispatch_service_pb2.RouteRequest(messages=[message], capabilities=capabilities)
        return (await unary(self._stub.Route(request, **self._call()))).choice

    async def get(self, delegation_id: str) -> delegation_pb2.Delegation:
        """One delegation as it stands."""
        request = dispatch_service_pb2.GetDelegationRequest(delegation_id=delegation_id)
        return (await unary(self._stub.GetDelegation(request, **self._call()))).delegation

    async def delegations(
        self, *, agent: str = "", parent_id: str = "", conversation_id: str = ""
    ) -> AsyncIterator[delegation_pb2.Delegation]:
        """Newest first, page by page: of an agent, directly under another one, of a conversation."""
        token = ""
        while True:
            request = dispatch_service_pb2.ListDelegationsRequest(
                page_token=token, agent=agent, parent_id=parent_id, conversation_id=conversation_id
            )
            page = await unary(self._stub.ListDelegations(request, **self._call()))
            for delegation in page.delegations:
                yield delegation
            if not (token := page.next_page_token):
                return

    async def revoke(self, delegation_id: str) -> Sequence[str]:
        """Revokes a delegation and all below it; which those were."""
        request = dispatch_service_pb2.RevokeDelegationRequest(delegation_id=delegation_id)
        return (await unary(self._stub.RevokeDelegation(request, **self._call()))).revoked

    async def minions(self, *, capability: str = "") -> Sequence[dispatch_service_pb2.Minion]:
        """Who takes work, and what they are doing."""
        found: list[dispatch_service_pb2.Minion] = []
        token = ""
        while True:
            request = dispatch_service_pb2.ListMinionsRequest(capability=capability, page_token=token)
            answer = await unary(self._stub.ListMinions(request, **self._call()))
            found += answer.minions
            if not (token := answer.next_page_token):
                return found


class Relationships:
    """How agents belong together, and chains along that."""

    def __init__(self, transport: Transport) -> None:
        self._stub = relationship_service_pb2_grpc.RelationshipServiceStub(transport.channel)
        self._call = transport.options

    async def create(
        self, source: str, kind: str, target: str, *, priority: int = 0, condition: str = ""
    ) -> relationship_service_pb2.AgentRelationship:
        """Joins two agents, for example `("Athena", "chains_to", "Apollo")`."""
        made = relationship_service_pb2.AgentRelationship(
            source=source, target=target, kind=kind, priority=priority, condition=condition
        )
        request = relationship_service_pb2.CreateAgentRelationshipRequest(relationship=made)
        return (await unary(self._stub.CreateAgentRelationship(request, **self._call()))).relationship

    async def list(self, agent: str = "") -> Sequence[relationship_service_pb2.AgentRelationship]:
        """All an agent has, or all there are."""
        found: list[relationship_service_pb2.AgentRelationship] = []
        token = ""
        while True:
            request = relationship_service_pb2.ListAgentRelationshipsRequest(
                name=agent, page_size=500, page_token=token
            )
            answer = await unary(self._stub.ListAgentRelationships(request, **self._call()))
            found += answer.relationships
            if not (token := answer.next_page_token):
                return found

    async def run_chain(self, agent: str, prompt: str, *, max_depth: int = 0) -> relationship_service_pb2.Chain:
        """Starts a chain; watch its session, or read it again."""
        request = relationship_service_pb2.RunChainRequest(name=agent, prompt=prompt, max_depth=max_depth)
        return (await unary(self._stub.RunChain(request, **self._call()))).chain

    async def get_chain(self, chain_id: str) -> relationship_service_pb2.Chain:
        """How far a chain is."""
        request = relationship_service_pb2.GetChainRequest(chain_id=chain_id)
        return (await unary(self._stub.GetChain(request, **self._call()))).chain


class History:
    """What agents did, and what their turns rested on."""

    def __init__(self, transport: Transport) -> None:
        self._stub = agent_history_service_pb2_grpc.AgentHistoryServiceStub(transport.channel)
        self._reasoning = reasoning_service_pb2_grpc.ReasoningServiceStub(transport.channel)
        self._call = transport.options

    async def executions(
        self, agent: str, *, failed_only: bool = False, limit: int = 50
    ) -> Sequence[execution_pb2.AgentExecution]:
        """The newest first."""
        request = agent_history_service_pb2.ListAgentExecutionsRequest(
            name=agent, failed_only=failed_only, page_size=limit
        )
        return (await unary(self._stub.ListAgentExecutions(request, **self._call()))).executions

    async def metrics(self, agent: str) -> execution_pb2.AgentMetrics:
        """Sums of the last 24 hours."""
        request = agent_history_service_pb2.GetAgentMetricsRequest(name=agent)
        return (await unary(self._stub.GetAgentMetrics(request, **self._call()))).metrics

    async def rate(self, agent: str, score: float, *, source: str = "user", note: str = "") -> float:
        """Says how good its work was, 0 to 1; its reputation after that."""
        request = agent_history_service_pb2.RateAgentRequest(name=agent, score=score, source=source, note=note)
        return (await unary(self._stub.RateAgent(request, **self._call()))).reputation.score

    async def reputation(self, agent: str) -> execution_pb2.AgentReputation:
        """How far it can be relied on, and what that is made of."""
        request = agent_history_service_pb2.GetAgentReputationRequest(name=agent)
        return (await unary(self._stub.GetAgentReputation(request, **self._call()))).reputation

    async def reasoning(self, session_id: str) -> reasoning_service_pb2.GetReasoningGraphResponse:
        """The trees of a session's turns and how they rest on one another."""
        request = reasoning_service_pb2.GetReasoningGraphRequest(session_id=session_id)
        return await unary(self._reasoning.GetReasoningGraph(request, **self._call()))


class Templates:
    """Ready-made agents."""

    def __init__(self, transport: Transport) -> None:
        self._stub = template_service_pb2_grpc.AgentTemplateServiceStub(transport.channel)
        self._call = transport.options

    async def list(self, *, domain: str = "") -> template_service_pb2.ListAgentTemplatesResponse:
        """Templates and personas."""
        found = template_service_pb2.ListAgentTemplatesResponse()
        while True:
            token = found.next_page_token
            request = template_service_pb2.ListAgentTemplatesRequest(domain=domain, page_size=500, page_token=token)
            found.MergeFrom(answer := await unary(self._stub.ListAgentTemplates(request, **self._call())))
            if not answer.next_page_token:
                found.ClearField("next_page_token")
                return found

    async def create_agent(
        self, template: str, *, name: str = "", persona: str = "", parameters: Mapping[str, str] | None = None
    ) -> agent_pb2.Agent:
        """An agent made of a template."""
        request = template_service_pb2.CreateAgentFromTemplateRequest(
            template=template, name=name, persona=persona, parameters=parameters or {}
        )
        return (await unary(self._stub.CreateAgentFromTemplate(request, **self._call()))).agent
