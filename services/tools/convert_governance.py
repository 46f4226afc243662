"""States, levels, audit and usage between the contract and the registry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from agentnet.tools.v1 import governance_pb2 as pb
from agentnet.tools.v1 import tool_pb2
from services.tools.descriptions import FORMATS
from services.tools.lifecycle import Level, State
from services.tools.permissions import Role
from services.tools.registry import Usage
from services.tools.store import AuditEntry
from shared import fields
from shared.errors import FieldRequired, InvalidArgument
from shared.paging import paged

_LEVELS: Final = {
    tool_pb2.GOVERNANCE_LEVEL_UNSPECIFIED: Level.INTERNAL,
    **{tool_pb2.GovernanceLevel.Value(f"GOVERNANCE_LEVEL_{level.name}"): level for level in Level},
}
_STATES: Final = {tool_pb2.ToolState.Value(f"TOOL_STATE_{state.name}"): state for state in State}
_TO_LEVEL: Final = {level: number for number, level in _LEVELS.items()}
_TO_STATE: Final = {state: number for number, state in _STATES.items()}
_MAX_NOTE: Final = 2000


def level(found: tool_pb2.GovernanceLevel.ValueType) -> str:
    if found not in _LEVELS:
        raise InvalidArgument("governance_level is not one of the contract's", field="tool.governance_level")
    return _LEVELS[found].value


def level_message(found: str) -> tool_pb2.GovernanceLevel.ValueType:
    return _TO_LEVEL[Level(found)]


def state_message(found: str) -> tool_pb2.ToolState.ValueType:
    return _TO_STATE[State(found)]


def state_filter(found: tool_pb2.ToolState.ValueType) -> str:
    """A state to look for; unspecified is none."""
    return _state(found).value if found else ""


def wanted_state(found: tool_pb2.ToolState.ValueType) -> State:
    if not found:
        raise FieldRequired("state")
    return _state(found)


def _state(found: tool_pb2.ToolState.ValueType) -> State:
    if found not in _STATES:
        raise InvalidArgument("state is not one of the contract's", field="state")
    return _STATES[found]


def roles(found: Sequence[str]) -> tuple[str, ...]:
    known = [role.value for role in Role]
    if any(role not in known for role in found):
        raise InvalidArgument(f"a role is one of {', '.join(known)}", field="tool.allowed_roles")
    return tuple(dict.fromkeys(found))


def note(found: str) -> str:
    return fields.text(found, "note", limit=_MAX_NOTE)


def description_format(found: str) -> str:
    if found and found not in FORMATS:
        raise InvalidArgument(f"format is one of {', '.join(FORMATS)}", field="format")
    return found


def audit_response(request: pb.ListToolAuditRequest, found: Sequence[AuditEntry]) -> pb.ListToolAuditResponse:
    shown, token = paged(found, request, scope=f"audit|{request.name}", name=lambda one: one.id)
    return pb.ListToolAuditResponse(entries=[_entry(one) for one in shown], next_page_token=token)


def _entry(found: AuditEntry) -> pb.ToolAuditEntry:
    message = pb.ToolAuditEntry(
        id=found.id,
        tool=found.tool,
        action=found.action,
        actor=found.actor,
        from_state=found.from_state,
        to_state=found.to_state,
        note=found.note,
    )
    message.create_time.FromDatetime(found.created_at)
    return message


def usage_response(found: Usage) -> pb.GetToolUsageResponse:
    message = pb.ToolUsage(tool=found.tool, total=found.total, today=found.today, by_status=found.by_status)
    for span, value in zip((message.p50, message.p95, message.p99), found.percentiles, strict=True):
        span.FromTimedelta(value)
    return pb.GetToolUsageResponse(usage=message)


def schemas_response(document: dict[str, Any]) -> pb.GetToolSchemasResponse:
    return pb.GetToolSchemasResponse(document=fields.struct(document))
