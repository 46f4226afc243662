"""PolicyService: convert in, one call of the library, convert out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

from agentnet.policy.v1 import policy_service_pb2 as pb
from agentnet.policy.v1 import policy_service_pb2_grpc as rpc
from services.policy import convert
from services.policy.library import Library
from shared.clock import Clock
from shared.identity import CredentialKind, current


class PolicyService(rpc.PolicyServiceServicer):
    """May it?"""

    def __init__(self, library: Library, *, clock: Clock, heartbeat: timedelta) -> None:
        self._library = library
        self._clock = clock
        self._heartbeat = heartbeat

    async def CreateBundle(self, request: pb.CreateBundleRequest, context: Any) -> pb.CreateBundleResponse:
        added = await self._library.add(current().tenant_id, **convert.new_bundle(request))
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
        found = await self._library.label(current().tenant_id, name, version, label=label, remove=request.remove)
        return pb.LabelBundleResponse(bundle=convert.bundle(found))

    async def AttachBundle(self, request: pb.AttachBundleRequest, context: Any) -> pb.AttachBundleResponse:
        attachment = convert.attachment(request)
        found = await self._library.attach(current().tenant_id, attachment, remove=request.remove)
        return convert.attachments_response(found)

    async def Check(self, request: pb.CheckRequest, context: Any) -> pb.CheckResponse:
        names = [convert.reference(name, "bundles") for name in request.bundles]
        text, target = convert.checked_text(request), convert.target(request)
        ruling = await self._library.check(current().tenant_id, text, target=target, names=names, agent=request.agent)
        return convert.check_response(ruling)

    async def WatchBundles(
        self, request: pb.WatchBundlesRequest, context: Any
    ) -> AsyncIterator[pb.WatchBundlesResponse]:
        caller = current()
        seen_by = None if caller.kind is CredentialKind.SERVICE else caller.tenant_id
        async for enforced in self._library.watch(request.after_revision, heartbeat=self._heartbeat):
            full = self._library.with_default(enforced) if enforced else None
            yield convert.snapshot(full, seen_by=seen_by, now=self._clock.now())

    async def RecordViolations(self, request: pb.RecordViolationsRequest, context: Any) -> pb.RecordViolationsResponse:
        recorded = await self._library.record(current().tenant_id, convert.violations(request))
        return pb.RecordViolationsResponse(recorded=recorded)

    async def ListViolations(self, request: pb.ListViolationsRequest, context: Any) -> pb.ListViolationsResponse:
        asked = convert.list_violations(request)
        found = await self._library.violations(
            current().tenant_id, asked.chosen, newest_first=asked.newest_first, page=asked.page
        )
        return convert.violations_response(found, asked)
