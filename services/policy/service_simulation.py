"""SimulationService: convert in, one call of the domain, convert out."""

from __future__ import annotations

from typing import Any

from agentnet.policy.v1 import simulation_service_pb2 as pb
from agentnet.policy.v1 import simulation_service_pb2_grpc as rpc
from services.policy import convert_simulation as convert
from services.policy.audit import AuditLog
from services.policy.judging import Judge
from services.policy.library import Library
from services.policy.simulation import Simulator
from shared import fields
from shared.clock import Clock
from shared.identity import current
from shared.monitors.rules import Bundle


class SimulationService(rpc.SimulationServiceServicer):
    """What if?"""

    def __init__(self, simulator: Simulator, judge: Judge, library: Library, audit: AuditLog, clock: Clock) -> None:
        self._simulator = simulator
        self._judge = judge
        self._library = library
        self._audit = audit
        self._clock = clock

    async def RecordDecisions(self, request: pb.RecordDecisionsRequest, context: Any) -> pb.RecordDecisionsResponse:
        kept = await self._judge.reported(current().tenant_id, convert.inputs(request, self._clock.now()))
        return pb.RecordDecisionsResponse(recorded=kept)

    async def LabelDecision(self, request: pb.LabelDecisionRequest, context: Any) -> pb.LabelDecisionResponse:
        caller = current()
        name = fields.required(request.id, "id", limit=100)
        told = await self._simulator.tell(caller.tenant_id, name, harmful=request.harmful)
        await self._audit.record(caller.tenant_id, caller.subject, "decision.label", name, harmful=request.harmful)
        return pb.LabelDecisionResponse(decision=convert.decision(told))

    async def ListDecisions(self, request: pb.ListDecisionsRequest, context: Any) -> pb.ListDecisionsResponse:
        return convert.listed(request, await self._simulator.recent(current().tenant_id, convert.MOST_LISTED))

    async def ValidateBundle(self, request: pb.ValidateBundleRequest, context: Any) -> pb.ValidateBundleResponse:
        content = await self._library.read(fields.required(request.document, "document", limit=convert.MAX_DOCUMENT))
        return pb.ValidateBundleResponse(digest=content.digest, rules=len(content.rules))

    async def SimulateBundle(self, request: pb.SimulateBundleRequest, context: Any) -> pb.SimulateBundleResponse:
        tenant = current().tenant_id
        wanted = convert.simulate(request, self._clock.now())
        bundle = await self._bundle(tenant, wanted)
        found = await self._simulator.simulate(tenant, bundle, start=wanted.start, end=wanted.end, limit=wanted.limit)
        return convert.simulated(found)

    async def _bundle(self, tenant: str, wanted: convert.Wanted) -> Bundle:
        if wanted.name:
            return (await self._library.find(tenant, wanted.name, wanted.version)).judged_by
        content = await self._library.read(wanted.document)
        return Bundle("candidate", "0.0.0", content.rules, content.mode, content.profiles, content.agents)
