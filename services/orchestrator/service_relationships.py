"""RelationshipService: convert in, one call of the domain, convert out."""

from __future__ import annotations

from typing import Any, Final

from agentnet.orchestrator.v1 import relationship_service_pb2 as pb
from agentnet.orchestrator.v1 import relationship_service_pb2_grpc
from services.orchestrator import convert
from services.orchestrator.agents.chains import Asked, Chains
from services.orchestrator.agents.relationships import CHAINS, KINDS, Relationships
from services.orchestrator.graphs import conditions
from shared import fields
from shared.errors import InvalidArgument
from shared.identity import current
from shared.paging import paged

RELATIONSHIPS: Final = "agentnet.orchestrator.v1.RelationshipService"
_PROMPT: Final = 32_768


class RelationshipService(relationship_service_pb2_grpc.RelationshipServiceServicer):
    """Edges between agents, and chains along them."""

    def __init__(self, relationships: Relationships, chains: Chains) -> None:
        self._relationships = relationships
        self._chains = chains

    async def CreateAgentRelationship(
        self, request: pb.CreateAgentRelationshipRequest, context: Any
    ) -> pb.CreateAgentRelationshipResponse:
        made = await self._relationships.create(current().tenant_id, _relationship(request.relationship))
        return pb.CreateAgentRelationshipResponse(relationship=made)

    async def ListAgentRelationships(
        self, request: pb.ListAgentRelationshipsRequest, context: Any
    ) -> pb.ListAgentRelationshipsResponse:
        name = convert.reference(request.name, "name")[0] if request.name else ""
        if request.kind:
            _kind(request.kind, "kind")
        found = await self._relationships.every(current().tenant_id, agent=name, kind=request.kind)
        shown, token = paged(found, request, scope=f"edges|{name}|{request.kind}", name=lambda edge: edge.id)
        return pb.ListAgentRelationshipsResponse(relationships=shown, next_page_token=token)

    async def DeleteAgentRelationship(
        self, request: pb.DeleteAgentRelationshipRequest, context: Any
    ) -> pb.DeleteAgentRelationshipResponse:
        relationship_id = fields.identifier(request.relationship_id, "relationship_id")
        await self._relationships.delete(current().tenant_id, relationship_id)
        return pb.DeleteAgentRelationshipResponse()

    async def RunChain(self, request: pb.RunChainRequest, context: Any) -> pb.RunChainResponse:
        name, version = convert.reference(request.name, "name")
        timeout = fields.span(request.timeout, "timeout")
        fields.within(timeout.total_seconds(), "timeout", low=0, high=86_400)
        asked = Asked(
            name,
            version,
            fields.required(request.prompt, "prompt", limit=_PROMPT),
            int(fields.within(request.max_depth, "max_depth", low=0, high=16)),
            timeout or None,
            int(fields.within(request.cost_micros_usd, "cost_micros_usd", low=0, high=1e12)),
        )
        request_id = fields.request_id(request.request_id)
        return pb.RunChainResponse(chain=await self._chains.run(current(), asked, request_id=request_id))

    async def GetChain(self, request: pb.GetChainRequest, context: Any) -> pb.GetChainResponse:
        chain_id = fields.identifier(request.chain_id, "chain_id")
        return pb.GetChainResponse(chain=await self._chains.find(current().tenant_id, chain_id))


def _relationship(found: pb.AgentRelationship) -> pb.AgentRelationship:
    for name in ("source", "target"):
        form = "the name of an agent, without version"
        fields.matching(getattr(found, name), f"relationship.{name}", fields.NAME, form=form)
    _kind(found.kind, "relationship.kind")
    fields.within(found.priority, "relationship.priority", low=-1000, high=1000)
    fields.text(found.description, "relationship.description", limit=1000)
    fields.text(found.condition, "relationship.condition", limit=conditions.LIMIT)
    if found.condition and found.kind != CHAINS:
        raise InvalidArgument("only chains_to has a condition", field="relationship.condition")
    if found.condition and (why := conditions.trouble(found.condition)):
        raise InvalidArgument(f"the condition does not compile: {why}", field="relationship.condition")
    made = pb.AgentRelationship()
    made.CopyFrom(found)
    return made


def _kind(kind: str, field: str) -> None:
    if kind not in KINDS:
        raise InvalidArgument(f"{field} is one of {', '.join(KINDS)}", field=field)
