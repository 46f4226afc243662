"""What can go wrong with doing."""

from __future__ import annotations

from shared.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, PermissionDenied, Reason


class ToolNotFound(NotFound):
    """No such tool or version in this tenant."""

    reason = Reason.ERROR_REASON_TOOL_NOT_FOUND


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
