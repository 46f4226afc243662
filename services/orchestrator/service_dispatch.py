"""DispatchService: convert in, one call of the domain, convert out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, timedelta
from typing import Any, Final

from agentnet.orchestrator.v1 import delegation_pb2, dispatch_service_pb2_grpc
from agentnet.orchestrator.v1 import dispatch_service_pb2 as pb
from services.orchestrator import convert
from services.orchestrator.agents.conversation import ROLES, Message
from services.orchestrator.agents.delegations import Delegations, Task
from services.orchestrator.agents.minions import Minions
from services.orchestrator.agents.stores import Delegation, DelegationFilter
from shared import fields
from shared.errors import FieldRequired, FieldTooLong, InvalidArgument
from shared.identity import current
from shared.paging import next_page_token, page, paged
from shared.rpc import deadline

DISPATCH: Final = "agentnet.orchestrator.v1.DispatchService"
_PROMPT: Final = 32_768
_NAME: Final = 255
_TEAM: Final = 100
# What is left of a deadline to answer with the delegation's id.
_TO_ANSWER: Final = timedelta(milliseconds=200)


class DispatchService(dispatch_service_pb2_grpc.DispatchServiceServicer):
    """Work finds its agent."""

    def __init__(self, delegations: Delegations, minions: Minions) -> None:
        self._delegations = delegations
        self._minions = minions

    async def Dispatch(self, request: pb.DispatchRequest, context: Any) -> pb.DispatchResponse:
        task, request_id = _task(request, request.capability), fields.request_id(request.request_id)
        patience = None if request.detached else _patience()
        opened, turn = await self._delegations.dispatch(current(), task, request_id=request_id, patience=patience)
        return pb.DispatchResponse(delegation=opened, turn=turn)

    async def Route(self, request: pb.RouteRequest, context: Any) -> pb.RouteResponse:
        task = _task(request, delegation_pb2.Capability())
        return pb.RouteResponse(choice=await self._delegations.route(current(), task))

    async def GetDelegation(self, request: pb.GetDelegationRequest, context: Any) -> pb.GetDelegationResponse:
        delegation_id = fields.identifier(request.delegation_id, "delegation_id")
        return pb.GetDelegationResponse(delegation=await self._delegations.find(current().tenant_id, delegation_id))

    async def ListDelegations(self, request: pb.ListDelegationsRequest, context: Any) -> pb.ListDelegationsResponse:
        chosen = _chosen(request)
        scope = f"delegations|{chosen}"
        asked = page(request.page_size, request.page_token, scope=scope)
        found = await self._delegations.every(current().tenant_id, chosen, page=asked)
        shown = found[: asked.size]
        token = next_page_token(_last(shown) if len(found) > len(shown) else None, scope=scope)
        return pb.ListDelegationsResponse(delegations=shown, next_page_token=token)

    async def RevokeDelegation(self, request: pb.RevokeDelegationRequest, context: Any) -> pb.RevokeDelegationResponse:
        delegation_id = fields.identifier(request.delegation_id, "delegation_id")
        return pb.RevokeDelegationResponse(revoked=await self._delegations.revoke(current(), delegation_id))

    async def ListMinions(self, request: pb.ListMinionsRequest, context: Any) -> pb.ListMinionsResponse:
        capability = fields.text(request.capability, "capability", limit=_NAME)
        able = await self._minions.able(current().tenant_id, capability=capability)
        shown, token = paged(able, request, scope=f"minions|{capability}", name=lambda agent: agent.name)
        return pb.ListMinionsResponse(
            minions=await self._minions.described(current().tenant_id, shown), next_page_token=token
        )


def _task(request: pb.DispatchRequest | pb.RouteRequest, capability: delegation_pb2.Capability) -> Task:
    fields.at_most(len(request.capabilities), "capabilities", limit=8)
    for place, name in enumerate(request.capabilities):
        fields.required(name, f"capabilities[{place}]", limit=_NAME)
    fields.at_most(len(request.agents), "agents", limit=16)
    for place, name in enumerate(request.agents):
        fields.matching(name, f"agents[{place}]", fields.NAME, form="the name of an agent, without version")
    parent_id = request.parent_id if isinstance(request, pb.DispatchRequest) else ""
    return Task(
        _messages(request.messages),
        _capability(capability),
        fields.identifier(request.conversation_id, "conversation_id") if request.conversation_id else "",
        frozenset(request.capabilities),
        tuple(request.agents),
        fields.identifier(parent_id, "parent_id") if parent_id else "",
        fields.text(request.team, "team", limit=_TEAM) if isinstance(request, pb.DispatchRequest) else "",
    )


def _messages(found: Sequence[pb.DispatchMessage]) -> tuple[Message, ...]:
    if not found:
        raise FieldRequired("messages")
    fields.at_most(len(found), "messages", limit=64)
    if (length := sum(len(one.content) for one in found)) > _PROMPT:
        raise FieldTooLong("messages", length=length, limit=_PROMPT)
    messages = []
    for place, one in enumerate(found):
        if one.role not in ROLES:
            raise InvalidArgument("role is user, assistant or system", field=f"messages[{place}].role")
        content = fields.required(one.content, f"messages[{place}].content", limit=_PROMPT)
        messages.append(Message(ROLES[one.role], content, fields.text(one.name, f"messages[{place}].name", limit=64)))
    return tuple(messages)


def _capability(found: delegation_pb2.Capability) -> delegation_pb2.Capability:
    fields.at_most(len(found.tools), "capability.tools", limit=64)
    for place, tool in enumerate(found.tools):
        fields.required(tool, f"capability.tools[{place}]", limit=_NAME)
    fields.within(found.budget_micros_usd, "capability.budget_micros_usd", low=0, high=1_000_000_000_000)
    fields.within(found.depth, "capability.depth", low=0, high=16)
    if found.no_tools and found.tools:
        raise InvalidArgument("no_tools and tools contradict each other", field="capability.no_tools")
    return found


def _chosen(request: pb.ListDelegationsRequest) -> DelegationFilter:
    if request.state not in delegation_pb2.DelegationState.values():
        raise InvalidArgument("state is not a state of a delegation", field="state")
    name = convert.reference(request.agent, "agent")[0] if request.agent else ""
    parent, conversation = (
        fields.identifier(value, field) if (value := getattr(request, field)) else ""
        for field in ("parent_id", "conversation_id")
    )
    return DelegationFilter(parent, name, conversation, request.state)


def _last(shown: Sequence[Delegation]) -> tuple[str, str]:
    return shown[-1].create_time.ToDatetime(UTC).isoformat(), shown[-1].id


def _patience() -> timedelta:
    left = deadline.remaining()
    whole = deadline.DEFAULT_UNARY if left is None else timedelta(seconds=left)
    return max(whole - _TO_ANSWER, timedelta())
