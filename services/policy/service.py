"""PolicyService: convert in, one call of the library, convert out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

from agentnet.policy.v1 import attachment_pb2
from agentnet.policy.v1 import policy_service_pb2 as pb
from agentnet.policy.v1 import policy_service_pb2_grpc as rpc
from services.policy import convert
from services.policy.audit import AuditLog
from services.policy.judging import Judge
from services.policy.library import Library
from services.policy.threats import Watchtower
from shared.clock import Clock
from shared.identity import CredentialKind, current


class PolicyService(rpc.PolicyServiceServicer):
    """May it?"""

    def __init__(
        self,
        library: Library,
        judge: Judge,
        audit: AuditLog,
        watchtower: Watchtower,
        *,
        clock: Clock,
        heartbeat: timedelta,
        reported: float,
    ) -> None:
        self._watchtower = watchtower
        self._library = library
        self._judge = judge
        self._audit = audit
        self._clock = clock
        self._heartbeat = heartbeat
        self._reported = reported

    async def CreateBundle(self, request: pb.CreateBundleRequest, context: Any) -> pb.CreateBundleResponse:
        caller = current()
        added = await self._library.add(caller.tenant_id, **convert.new_bundle(request))
        await self._audit.record(
            caller.tenant_id,
            caller.subject,
            "bundle.create",
            added.label,
            digest=added.digest,
            labels=list(added.labels),
        )
        return pb.CreateBundleResponse(bundle=convert.bundle(added))

    async def GetBundle(self, request: pb.GetBundleRequest, context: Any) -> pb.GetBundleResponse:
        name, version = convert.reference(request.name)
        found = await self._library.find(current().tenant_id, name, version)
        return pb.GetBundleResponse(bundle=convert.bundle(found))

    async def ListBundles(self, request: pb.ListBundlesRequest, context: Any) -> pb.ListBundlesResponse:
        return convert.listed(request, await self._library.every(current().tenant_id, name=request.name))

    async def LabelBundle(self, request: pb.LabelBundleRequest, context: Any) -> pb.LabelBundleResponse:
        name, version = convert.reference(request.name)
        label = convert.label(request.label, "label")
        caller = current()
        found = await self._library.label(caller.tenant_id, name, version, label=label, remove=request.remove)
        act = "bundle.unlabel" if request.remove else "bundle.label"
        await self._audit.record(caller.tenant_id, caller.subject, act, found.label, label=label)
        return pb.LabelBundleResponse(bundle=convert.bundle(found))

    async def AttachBundle(
        self, request: attachment_pb2.AttachBundleRequest, context: Any
    ) -> attachment_pb2.AttachBundleResponse:
        attachment, caller = convert.attachment(request), current()
        found = await self._library.attach(caller.tenant_id, attachment, remove=request.remove)
        act = "bundle.detach" if request.remove else "bundle.attach"
        await self._audit.record(caller.tenant_id, caller.subject, act, request.name, agent=attachment.agent)
        return convert.attachments_response(found)

    async def Check(self, request: pb.CheckRequest, context: Any) -> pb.CheckResponse:
        caller = current()
        outcome = await self._judge.judge(caller.tenant_id, caller.subject, convert.question(request, caller.roles))
        return convert.check_response(outcome)

    async def WatchBundles(
        self, request: pb.WatchBundlesRequest, context: Any
    ) -> AsyncIterator[pb.WatchBundlesResponse]:
        caller = current()
        seen_by = None if caller.kind is CredentialKind.SERVICE else caller.tenant_id
        async for enforced in self._library.watch(request.after_revision, heartbeat=self._heartbeat):
            full = self._library.with_default(enforced) if enforced else None
            for part in convert.snapshot(full, seen_by=seen_by, reported=self._reported, now=self._clock.now()):
                yield part

    async def RecordViolations(self, request: pb.RecordViolationsRequest, context: Any) -> pb.RecordViolationsResponse:
        tenant, reported = current().tenant_id, convert.violations(request)
        recorded = await self._library.record(tenant, reported)
        if recorded:
            await self._watchtower.seen(tenant, reported)
        return pb.RecordViolationsResponse(recorded=recorded)

    async def ListViolations(self, request: pb.ListViolationsRequest, context: Any) -> pb.ListViolationsResponse:
        asked = convert.list_violations(request)
        found = await self._library.violations(
            current().tenant_id, asked.chosen, newest_first=asked.newest_first, page=asked.page
        )
        return convert.violations_response(found, asked)
