"""What can go wrong with doing."""

from __future__ import annotations

from shared.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Reason,
    ResourceExhausted,
    Unavailable,
)


class ToolNotFound(NotFound):
    """No such tool or version in this tenant."""

    reason = Reason.ERROR_REASON_TOOL_NOT_FOUND


class ArtefactNotFound(ToolNotFound):
    """The call left nothing under this name, or it is not kept any more."""


class ToolVersionExists(AlreadyExists):
    """Versions are immutable. Choose a new one."""

    reason = Reason.ERROR_REASON_TOOL_VERSION_EXISTS


class ToolArgumentsInvalid(InvalidArgument):
    """The arguments do not fit the tool's input schema."""

    reason = Reason.ERROR_REASON_TOOL_ARGUMENTS_INVALID


class ToolNotAllowed(PermissionDenied):
    """The agent is not on the tool's list."""

    reason = Reason.ERROR_REASON_TOOL_NOT_ALLOWED


class ToolModeUnavailable(FailedPrecondition):
    """This mesh cannot run the tool's exec_mode."""

    reason = Reason.ERROR_REASON_TOOL_MODE_UNAVAILABLE


class SandboxUnavailable(FailedPrecondition):
    """No isolation can be had on this host."""

    reason = Reason.ERROR_REASON_SANDBOX_UNAVAILABLE


class FunctionRejected(InvalidArgument):
    """The code breaks the static rules. The line is in the facts."""

    reason = Reason.ERROR_REASON_FUNCTION_REJECTED


class FunctionFailed(FailedPrecondition):
    """The function raised, crashed or went over a limit. The status is in the facts."""

    reason = Reason.ERROR_REASON_FUNCTION_FAILED


class ToolStateInvalid(FailedPrecondition):
    """The tool is not in a state that allows this."""

    reason = Reason.ERROR_REASON_TOOL_STATE_INVALID


class ToolApprovalMissing(FailedPrecondition):
    """Reviews that its governance level demands are missing."""

    reason = Reason.ERROR_REASON_TOOL_APPROVAL_MISSING


class ToolStateChanged(Aborted):
    """Another caller moved the tool meanwhile. Read it again."""

    reason = Reason.ERROR_REASON_TOOL_STATE_CHANGED


class ToolQuotaExhausted(ResourceExhausted):
    """The quota, total or of the day, is used up."""

    reason = Reason.ERROR_REASON_TOOL_QUOTA_EXHAUSTED


class ToolCircuitOpen(Unavailable):
    """The tool failed too often and is left alone for a while."""

    reason = Reason.ERROR_REASON_TOOL_CIRCUIT_OPEN


class ToolOutcomeUnknown(FailedPrecondition):
    """It began and nobody knows how it ended. It is not repeated."""

    reason = Reason.ERROR_REASON_TOOL_OUTCOME_UNKNOWN


class ToolCallInProgress(Aborted):
    """A call with this request_id is running."""

    reason = Reason.ERROR_REASON_TOOL_CALL_IN_PROGRESS


class RequestIdReused(AlreadyExists):
    """The same request_id came with another request."""

    reason = Reason.ERROR_REASON_REQUEST_ID_REUSED


class ToolFailed(FailedPrecondition):
    """What the tool calls answered with an error."""

    reason = Reason.ERROR_REASON_TOOL_FAILED


class ToolUnreachable(Unavailable):
    """What the tool calls does not answer."""

    reason = Reason.ERROR_REASON_DEPENDENCY_UNAVAILABLE


class EgressRefused(FailedPrecondition):
    """The address may not be reached from here."""

    reason = Reason.ERROR_REASON_EGRESS_REFUSED


class SecretNotFound(FailedPrecondition):
    """The secret that the tool names is not there."""

    reason = Reason.ERROR_REASON_SECRET_NOT_FOUND


class PolicyBlocked(FailedPrecondition):
    """A rule blocks the call with these arguments."""

    reason = Reason.ERROR_REASON_POLICY_BLOCKED


class CallApprovalRequired(FailedPrecondition):
    """Rules let the call pass only with an override for them. The facts name them and what the override must fit."""

    reason = Reason.ERROR_REASON_CALL_APPROVAL_REQUIRED


class PolicyUnavailable(Unavailable):
    """No policy has been received yet and this mesh is strict."""

    reason = Reason.ERROR_REASON_POLICY_UNAVAILABLE


class ToolSchemaChanged(ToolStateInvalid):
    """The remote tool is no longer what was registered; it is quarantined."""
