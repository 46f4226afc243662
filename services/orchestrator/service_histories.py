"""HistoryService: convert in, one call of the domain, convert out."""

from __future__ import annotations

from typing import Any, Final

from agentnet.orchestrator.v1 import history_service_pb2 as pb
from agentnet.orchestrator.v1 import history_service_pb2_grpc
from services.orchestrator import convert_histories as convert
from services.orchestrator.histories import Histories
from shared import fields
from shared.identity import current

HISTORIES: Final = "agentnet.orchestrator.v1.HistoryService"


class HistoryService(history_service_pb2_grpc.HistoryServiceServicer):
    """What can be done with logs."""

    def __init__(self, histories: Histories) -> None:
        self._histories = histories

    async def ReplaySession(self, request: pb.ReplaySessionRequest, context: Any) -> pb.ReplaySessionResponse:
        return await self._histories.replay(current().tenant_id, convert.session_id(request.session_id))

    async def ForkSession(self, request: pb.ForkSessionRequest, context: Any) -> pb.ForkSessionResponse:
        session_id, fork = convert.fork(request)
        request_id = fields.request_id(request.request_id)
        return pb.ForkSessionResponse(
            session=await self._histories.fork(current(), session_id, fork, request_id=request_id)
        )

    async def DiffSessions(self, request: pb.DiffSessionsRequest, context: Any) -> pb.DiffSessionsResponse:
        left = convert.session_id(request.session_id)
        right = fields.identifier(request.other_session_id, "other_session_id")
        return await self._histories.diff(current().tenant_id, left, right)

    async def AuditSession(self, request: pb.AuditSessionRequest, context: Any) -> pb.AuditSessionResponse:
        return await self._histories.audit(current().tenant_id, convert.session_id(request.session_id))

    async def ExportSession(self, request: pb.ExportSessionRequest, context: Any) -> pb.ExportSessionResponse:
        session_id = convert.session_id(request.session_id)
        return pb.ExportSessionResponse(document=await self._histories.export(current().tenant_id, session_id))

    async def ImportSession(self, request: pb.ImportSessionRequest, context: Any) -> pb.ImportSessionResponse:
        request_id = fields.request_id(request.request_id)
        document = convert.document(request)
        return pb.ImportSessionResponse(
            session=await self._histories.take_in(current(), document, request_id=request_id)
        )
