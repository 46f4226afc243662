"""What a served policy heard of risks, and what its rules made of it."""

from __future__ import annotations

import asyncio

import grpc

from agentnet.policy.v1 import risk_service_pb2 as pb
from agentnet.policy.v1.risk_service_pb2_grpc import RiskServiceStub
from tests.support.identity import Keys


async def heard(policy: grpc.aio.Channel, keys: Keys, risk: str, *, at_least: int = 1, tenant: str = "acme") -> int:
    """How many events of a risk the register counts, once there are so many."""
    stub = RiskServiceStub(policy)
    async with asyncio.timeout(5):
        while True:
            answer = await stub.ListRisks(pb.ListRisksRequest(), metadata=keys.metadata(tenant))
            (events,) = [one.events for one in answer.risks if one.name == risk]
            if events >= at_least:
                return events
            await asyncio.sleep(0.02)


async def enforced(policy: grpc.aio.Channel, keys: Keys) -> list[tuple[str, str]]:
    """Which rules hold, and for whom."""
    request = pb.ListEnforcementActionsRequest(active=True)
    answer = await RiskServiceStub(policy).ListEnforcementActions(request, metadata=keys.metadata())
    return sorted((one.rule, one.target) for one in answer.actions)


async def mitigated(policy: grpc.aio.Channel, keys: Keys, risk: str) -> list[tuple[str, str]]:
    """What was done about a risk, and who did it."""
    answer = await RiskServiceStub(policy).ListRisks(pb.ListRisksRequest(), metadata=keys.metadata())
    (found,) = [one.mitigations for one in answer.risks if one.name == risk]
    return [(one.text, one.owner) for one in found]
