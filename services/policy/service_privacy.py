"""PrivacyService: convert in, one call of the domain, convert out."""

from __future__ import annotations

from typing import Any, Final

from agentnet.policy.v1 import privacy_service_pb2 as pb
from agentnet.policy.v1 import privacy_service_pb2_grpc as rpc
from services.policy.privacy import Privacy
from shared import fields
from shared.identity import current

_MAX_TEXT: Final = 262_144
_MAX_RECORD: Final = 1_048_576
_MAX_RECORDS: Final = 1000


class PrivacyService(rpc.PrivacyServiceServicer):
    """Who may see what of persons?"""

    def __init__(self, privacy: Privacy) -> None:
        self._privacy = privacy

    async def Pseudonymize(self, request: pb.PseudonymizeRequest, context: Any) -> pb.PseudonymizeResponse:
        text = fields.required(request.text, "text", limit=_MAX_TEXT)
        masked = await self._privacy.pseudonymize(current().tenant_id, text, request.kinds)
        return pb.PseudonymizeResponse(text=masked.text, replaced=masked.counts)

    async def RevealPseudonyms(self, request: pb.RevealPseudonymsRequest, context: Any) -> pb.RevealPseudonymsResponse:
        caller, text = current(), fields.required(request.text, "text", limit=_MAX_TEXT)
        shown = await self._privacy.reveal(caller.tenant_id, caller.subject, caller.roles, text)
        return pb.RevealPseudonymsResponse(text=shown.text, revealed=sum(shown.counts.values()))

    async def RedactExport(self, request: pb.RedactExportRequest, context: Any) -> pb.RedactExportResponse:
        caller = current()
        fields.at_most(len(request.records), "records", limit=_MAX_RECORDS)
        records = [fields.mapping(record, "records", limit=_MAX_RECORD) for record in request.records]
        shown, cut = await self._privacy.export(
            caller.tenant_id, caller.subject, caller.roles, records, role=request.role
        )
        return pb.RedactExportResponse(records=[fields.struct(record) for record in shown], cut=cut)
