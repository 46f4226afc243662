"""What a client is told when the mesh says no: code, reason, field, what to do."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2 as _details_pb2  # pyright: ignore[reportMissingTypeStubs]
from google.rpc import status_pb2 as _status_pb2  # pyright: ignore[reportMissingTypeStubs]

from agentnet.common.v1 import error_reason_pb2, failure_pb2

# Google publishes no types for these.
_error_details: Any = _details_pb2
_statuses: Any = _status_pb2

_DETAILS = "grpc-status-details-bin"


class AgentNetError(Exception):
    """A call the mesh refused or could not do.

    `code` is the gRPC code, `reason` a word of `agentnet.common.v1.ErrorReason` without its prefix (empty when the call
    never reached the mesh), `field` the field at fault, `facts` what else is known.
    """

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode,
        reason: str = "",
        field: str = "",
        facts: dict[str, str] | None = None,
        retry_after: timedelta | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason
        self.field = field
        self.facts = facts or {}
        self.retry_after = retry_after

    @property
    def suggestion(self) -> str:
        """What to do about it, in one sentence; empty when the message says it."""
        return _SUGGESTIONS.get(self.reason, _BY_CODE.get(self.code, ""))


class ConfigError(AgentNetError):
    """What was given to be kept does not fit its form: agents, bundles, graphs, prices, prompts, suites."""


class RateLimitError(AgentNetError):
    """Too much at once. `retry_after` says when to come back, where the mesh knows."""


class ToolError(AgentNetError):
    """A tool, a function or the sandbox around it."""


class LLMError(AgentNetError):
    """A model or its provider."""


class LLMRateLimitError(LLMError, RateLimitError):
    """A provider that limits us."""


class MeshNotFound(AgentNetError):
    """No address was given and no local mesh was found."""

    def __init__(self) -> None:
        super().__init__("no mesh is running here", code=grpc.StatusCode.UNAVAILABLE, reason="MESH_NOT_FOUND")


def from_rpc(error: grpc.aio.AioRpcError) -> AgentNetError:
    """Reads google.rpc.Status from the trailers of a failed call."""
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS and isinstance(value, bytes):
            try:
                return _from_status(_statuses.Status.FromString(value), error.code())
            except DecodeError:
                break
    return AgentNetError(error.details() or error.code().name.lower(), code=error.code())


def from_failure(failure: failure_pb2.Failure) -> AgentNetError:
    """A failure inside a stream, as an error."""
    code = grpc.StatusCode.UNAVAILABLE if failure.retryable else grpc.StatusCode.ABORTED
    reason = error_reason_pb2.ErrorReason.Name(failure.reason).removeprefix("ERROR_REASON_")
    return kind_of(reason)(failure.message, code=code, reason=reason, facts=dict(failure.metadata))


def kind_of(reason: str) -> type[AgentNetError]:
    """The most telling class for a reason: ConfigError, RateLimitError, ToolError, LLMError or AgentNetError itself."""
    if reason in _KINDS:
        return _KINDS[reason]
    return next((kind for prefix, kind in _KINDS_BY_PREFIX.items() if reason.startswith(prefix)), AgentNetError)


def _from_status(status: Any, code: grpc.StatusCode) -> AgentNetError:
    info, bad, retry = _error_details.ErrorInfo(), _error_details.BadRequest(), _error_details.RetryInfo()
    for detail in status.details:
        any(detail.Unpack(kind) for kind in (info, bad, retry))
    return kind_of(str(info.reason))(
        str(status.message),
        code=code,
        reason=str(info.reason),
        field=str(bad.field_violations[0].field) if bad.field_violations else "",
        facts=dict(info.metadata),
        retry_after=retry.retry_delay.ToTimedelta() if retry.HasField("retry_delay") else None,
    )


_KINDS: dict[str, type[AgentNetError]] = {
    "PROVIDER_RATE_LIMITED": LLMRateLimitError,
    **dict.fromkeys(("RATE_LIMITED", "OVERLOADED", "TOOL_QUOTA_EXHAUSTED"), RateLimitError),
    **dict.fromkeys(("SANDBOX_UNAVAILABLE", "EGRESS_REFUSED"), ToolError),
    **dict.fromkeys(("STREAM_BROKEN", "CONTEXT_TOO_LONG", "CONTENT_FILTERED", "OUTPUT_INVALID"), LLMError),
    **dict.fromkeys(
        (
            "AGENT_FILE_INVALID", "BUNDLE_INVALID", "GRAPH_INVALID", "OPTIONS_CONTRADICT", "PRICE_BOOK_INVALID",
            "PROMPT_INVALID", "RELATIONSHIP_INVALID", "SUITE_INVALID",
        ),
        ConfigError,
    ),
}  # fmt: skip
_KINDS_BY_PREFIX: dict[str, type[AgentNetError]] = {
    "TOOL_": ToolError,
    "FUNCTION_": ToolError,
    "MODEL_": LLMError,
    "PROVIDER_": LLMError,
    "GENERATION_": LLMError,
}
_SUGGESTIONS = {
    "MESH_NOT_FOUND": "Start one with `agentnet up`, or set AGENTNET_ADDRESS.",
    "AGENT_NOT_FOUND": "`agentnet agent list` shows the agents there are.",
    "AGENT_TEMPLATE_NOT_FOUND": "`agentnet agent templates` shows the templates there are.",
    "NO_AGENT_ABLE": "`agentnet agent minions` shows who takes work.",
    "DELEGATION_TOO_WIDE": "Ask for less than what it comes from has.",
    "AGENT_VERSION_EXISTS": "Versions never change; choose a new one.",
    "SESSION_NOT_FOUND": "Check the id; sessions of other tenants are not visible.",
    "CREDENTIALS_MISSING": "Set AGENTNET_TOKEN or AGENTNET_API_KEY; `agentnet token` prints one for the local mesh.",
    "TOKEN_EXPIRED": "Get a new token; `agentnet token` prints one for the local mesh.",
    "TOKEN_MALFORMED": "Set AGENTNET_TOKEN to a JWT; `agentnet token` prints one for the local mesh.",
    "TOKEN_UNTRUSTED": "The token is of another mesh; `agentnet token` prints one for the local mesh.",
    "API_KEY_INVALID": "The key is unknown or revoked; make a new one.",
    "BUDGET_EXHAUSTED": "`agentnet cost budgets` shows what is left; raise one with `agentnet cost limit`.",
    "BUDGET_APPROVAL_REQUIRED": "`agentnet cost budgets` shows which asks; approve it with `agentnet cost approve`.",
    "BUDGET_NOT_FOUND": "`agentnet cost budgets` shows the budgets there are.",
    "PRICE_NOT_FOUND": "Price the model with `agentnet cost import`.",
    "TASK_GRAPH_NOT_FOUND": "`agentnet graph list` shows the graphs there are.",
    "PLAN_INVALID": "Plan with a stronger model, or write the graph by hand.",
    "CHECKPOINT_NOT_FOUND": "Checkpoints of other tenants are not visible; the id may be wrong.",
    "EVALUATION_NOT_FOUND": "`agentnet eval list` shows the evaluations there are.",
    "EVALUATION_RUNNING": "Wait for it; `agentnet eval show` tells how far it is.",
    "MEMORY_NOT_FOUND": "`agentnet memory search` finds memories; those of other tenants are not visible.",
    "MEMORY_FULL": "`agentnet memory stats` shows what is kept; bound it with `agentnet memory retain`.",
    "SEQUENCE_OUT_OF_RANGE": "Watch from an earlier sequence.",
}
_BY_CODE = {
    grpc.StatusCode.UNAVAILABLE: "See `agentnet status`; if it is down, start it with `agentnet up`.",
    grpc.StatusCode.DEADLINE_EXCEEDED: "Try again with more time.",
}
