"""Between the contract and governance: overrides."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp

from agentnet.policy.v1 import override_service_pb2 as pb
from services.policy.overrides import LONGEST, Override
from shared import fields
from shared.errors import FieldRequired, InvalidArgument
from shared.paging import paged

_MAX_RULES: Final = 32
_HOUR: Final = timedelta(hours=1)


def new_override(request: pb.CreateOverrideRequest) -> dict[str, Any]:
    if not request.rules:
        raise FieldRequired("rules")
    fields.at_most(len(request.rules), "rules", limit=_MAX_RULES)
    ttl = fields.span(request.ttl, "ttl") if request.HasField("ttl") else _HOUR
    if not timedelta() < ttl <= LONGEST:
        raise InvalidArgument("ttl must be more than nothing and at most 24 hours", field="ttl")
    return {
        "rules": [fields.identifier(rule, "rules") for rule in request.rules],
        "agent": fields.text(request.agent, "agent", limit=64),
        "session_id": fields.text(request.session_id, "session_id", limit=64),
        "reason": fields.required(request.reason, "reason", limit=500),
        "ttl": ttl,
        "tool": fields.text(request.tool, "tool", limit=64),
    }


def override_use(request: pb.UseOverrideRequest) -> dict[str, str]:
    return {
        "token": fields.required(request.token, "token", limit=4096),
        "agent": fields.text(request.agent, "agent", limit=100),
        "session_id": fields.text(request.session_id, "session_id", limit=64),
        "tool": fields.text(request.tool, "tool", limit=64),
    }


def overrides_response(request: pb.ListOverridesRequest, found: Sequence[Override]) -> pb.ListOverridesResponse:
    shown, token = paged(found, request, scope="overrides", name=lambda one: one.id)
    return pb.ListOverridesResponse(overrides=[override(one) for one in shown], next_page_token=token)


def override(one: Override) -> pb.Override:
    return pb.Override(
        id=one.id,
        rules=one.rules,
        agent=one.agent,
        session_id=one.session_id,
        reason=one.reason,
        issued_by=one.issued_by,
        create_time=instant(one.created_at),
        expire_time=instant(one.expires_at),
        revoke_time=instant(one.revoked_at) if one.revoked_at else None,
        uses=one.uses,
        tool=one.tool,
    )


def instant(value: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(value)
    return stamp
