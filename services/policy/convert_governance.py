"""Between the contract and governance: overrides."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp

from agentnet.policy.v1 import override_service_pb2 as pb
from services.policy.overrides import LONGEST, Hold, Override
from shared import fields
from shared.errors import FieldRequired, InvalidArgument
from shared.paging import paged

_MAX_RULES: Final = 32
_HOUR: Final = timedelta(hours=1)


def new_override(request: pb.CreateOverrideRequest) -> dict[str, Any]:
    return {
        "rules": _rules(request),
        "agent": fields.text(request.agent, "agent", limit=64),
        "session_id": fields.text(request.session_id, "session_id", limit=64),
        "reason": fields.required(request.reason, "reason", limit=500),
        "ttl": _ttl(request),
        "tool": fields.text(request.tool, "tool", limit=64),
    }


def hold(request: pb.DecideHoldRequest) -> Hold:
    named = fields.text if request.tool and request.request_id else fields.required
    return Hold(
        rules=tuple(_rules(request)),
        agent=named(request.agent, "agent", limit=64),
        session_id=fields.identifier(request.session_id, "session_id"),
        tool=fields.text(request.tool, "tool", limit=64),
        request_id=fields.text(request.request_id, "request_id", limit=64),
    )


def word(request: pb.DecideHoldRequest) -> dict[str, Any]:
    reason = fields.text(request.reason, "reason", limit=500)
    return {"approved": request.approved, "reason": reason, "ttl": _ttl(request)}


def _rules(request: pb.CreateOverrideRequest | pb.DecideHoldRequest) -> list[str]:
    if not request.rules:
        raise FieldRequired("rules")
    fields.at_most(len(request.rules), "rules", limit=_MAX_RULES)
    return [fields.identifier(rule, "rules") for rule in request.rules]


def _ttl(request: pb.CreateOverrideRequest | pb.DecideHoldRequest) -> timedelta:
    ttl = fields.span(request.ttl, "ttl") if request.HasField("ttl") else _HOUR
    if not timedelta() < ttl <= LONGEST:
        raise InvalidArgument("ttl must be more than nothing and at most 24 hours", field="ttl")
    return ttl


def override_use(request: pb.UseOverrideRequest) -> dict[str, str]:
    return {
        "token": fields.required(request.token, "token", limit=4096),
        "agent": fields.text(request.agent, "agent", limit=100),
        "session_id": fields.text(request.session_id, "session_id", limit=64),
        "tool": fields.text(request.tool, "tool", limit=64),
        "request_id": fields.text(request.request_id, "request_id", limit=64),
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
        request_id=one.request_id,
    )


def instant(value: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(value)
    return stamp
