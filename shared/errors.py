"""What every error of the mesh says: code, reason, facts, the field at fault and when to try again."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar

from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode

from agentnet.common.v1 import error_reason_pb2 as reasons
from agentnet.common.v1 import failure_pb2

Reason = reasons.ErrorReason
DOMAIN = "agentnet"
STATUS_TRAILER = "grpc-status-details-bin"

_PREFIX = "ERROR_REASON_"
_NAMES = frozenset(Reason.keys())
_CODES = {code.value[0]: code for code in StatusCode}


class MeshError(Exception):
    """The root of every error the mesh answers with.

    MeshError
     ├ InvalidArgument      the caller must change the request
     │  └ FieldRequired, FieldTooLong, PageTokenInvalid
     ├ NotFound             no such thing in this tenant
     ├ AlreadyExists        the name or key is taken
     ├ Unauthenticated      who are you?
     ├ PermissionDenied     you may not
     ├ FailedPrecondition   not in this state
     ├ OutOfRange           past the end
     ├ ResourceExhausted    come back later, or raise a limit
     ├ Aborted              lost a race; start again
     ├ Unavailable          retry with backoff
     ├ Unimplemented        in the contract, not served here
     ├ DeadlineExceeded     too slow for the caller's deadline
     └ Internal             a fault of ours

    A service's own errors set `code` and `reason` on their class, so that one interceptor serves all.
    """

    code: ClassVar[StatusCode] = StatusCode.INTERNAL
    reason: reasons.ErrorReason.ValueType = Reason.ERROR_REASON_INTERNAL

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        retry_after: timedelta | None = None,
        reason: reasons.ErrorReason.ValueType | None = None,
        **facts: str,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.retry_after = retry_after
        self.facts = facts
        if reason is not None:
            self.reason = reason

    @property
    def reason_name(self) -> str:
        return Reason.Name(self.reason).removeprefix(_PREFIX)

    @property
    def retryable(self) -> bool:
        return self.code in _RETRYABLE

    def status(self) -> status_pb2.Status:
        """This error as it goes over the wire."""
        info = error_details_pb2.ErrorInfo(reason=self.reason_name, domain=DOMAIN, metadata=self.facts)
        details: list[any_pb2.Any] = [_pack(info)]
        if self.field is not None:
            violation = error_details_pb2.BadRequest.FieldViolation(field=self.field, description=self.message)
            details.append(_pack(error_details_pb2.BadRequest(field_violations=[violation])))
        if self.retry_after is not None:
            delay = duration_pb2.Duration()
            delay.FromTimedelta(self.retry_after)
            details.append(_pack(error_details_pb2.RetryInfo(retry_delay=delay)))
        return status_pb2.Status(code=self.code.value[0], message=self.message, details=details)

    def failure(self) -> failure_pb2.Failure:
        """This error as data inside an event."""
        return failure_pb2.Failure(
            reason=self.reason, message=self.message[:1000], retryable=self.retryable, metadata=self.facts
        )


class InvalidArgument(MeshError):
    """The request breaks the contract. Mend the field named."""

    code = StatusCode.INVALID_ARGUMENT
    reason = Reason.ERROR_REASON_FIELD_INVALID


class FieldRequired(InvalidArgument):
    """A required field is empty."""

    reason = Reason.ERROR_REASON_FIELD_REQUIRED

    def __init__(self, field: str, message: str = "") -> None:
        super().__init__(message or f"{field} is required", field=field)


class FieldTooLong(InvalidArgument):
    """A field is over its limit."""

    reason = Reason.ERROR_REASON_FIELD_TOO_LONG

    def __init__(self, field: str, *, length: int, limit: int, unit: str = "characters") -> None:
        message = f"{field} has {length} {unit}; at most {limit} are allowed"
        super().__init__(message, field=field, length=str(length), limit=str(limit))


class PageTokenInvalid(InvalidArgument):
    """The page token is not of this list. Start at the first page."""

    reason = Reason.ERROR_REASON_PAGE_TOKEN_INVALID

    def __init__(self) -> None:
        super().__init__("page_token is not of this list; start at the first page", field="page_token")


class NotFound(MeshError):
    """No such thing in this tenant."""

    code = StatusCode.NOT_FOUND


class AlreadyExists(MeshError):
    """The name or key is taken. Choose another."""

    code = StatusCode.ALREADY_EXISTS


class Unauthenticated(MeshError):
    """The caller did not prove who it is."""

    code = StatusCode.UNAUTHENTICATED
    reason = Reason.ERROR_REASON_IDENTITY_MISSING


class PermissionDenied(MeshError):
    """The caller may not do this."""

    code = StatusCode.PERMISSION_DENIED
    reason = Reason.ERROR_REASON_ROLE_INSUFFICIENT


class FailedPrecondition(MeshError):
    """The thing is not in a state that allows this."""

    code = StatusCode.FAILED_PRECONDITION


class OutOfRange(MeshError):
    """Past the end."""

    code = StatusCode.OUT_OF_RANGE


class ResourceExhausted(MeshError):
    """A limit is reached. Wait for RetryInfo, or raise the limit."""

    code = StatusCode.RESOURCE_EXHAUSTED
    reason = Reason.ERROR_REASON_OVERLOADED


class Aborted(MeshError):
    """A race was lost. Start again."""

    code = StatusCode.ABORTED


class Cancelled(MeshError):
    """The caller called it off."""

    code = StatusCode.CANCELLED


class Unavailable(MeshError):
    """Something this call needs does not answer. Retry with backoff."""

    code = StatusCode.UNAVAILABLE
    reason = Reason.ERROR_REASON_DEPENDENCY_UNAVAILABLE


class Unimplemented(MeshError):
    """The contract has it and this mesh does not serve it."""

    code = StatusCode.UNIMPLEMENTED
    reason = Reason.ERROR_REASON_NOT_SERVED


class DeadlineExceeded(MeshError):
    """The caller's deadline passed first."""

    code = StatusCode.DEADLINE_EXCEEDED
    reason = Reason.ERROR_REASON_DEADLINE_EXCEEDED


class Internal(MeshError):
    """A fault of ours. The reference finds the log line."""


_RETRYABLE = {StatusCode.UNAVAILABLE, StatusCode.ABORTED, StatusCode.RESOURCE_EXHAUSTED, StatusCode.DEADLINE_EXCEEDED}


def from_status(status: status_pb2.Status) -> MeshError:
    """The error a google.rpc.Status describes, as the generic class of its code."""
    info, field, delay = _details(status)
    kind = _BY_CODE.get(_CODES.get(status.code, StatusCode.UNKNOWN), MeshError)
    reason = Reason.Value(_PREFIX + info.reason) if _PREFIX + info.reason in _NAMES else None
    facts = dict(info.metadata)
    error = _restore(kind, status.message, reason=reason, facts=facts)
    error.field, error.retry_after = field, delay
    return error


def from_failure(failure: failure_pb2.Failure) -> MeshError:
    """The error a Failure of an event describes."""
    kind = Unavailable if failure.retryable else FailedPrecondition
    facts = dict(failure.metadata)
    return _restore(kind, failure.message, reason=failure.reason, facts=facts)


def _restore(
    kind: type[MeshError], message: str, *, reason: reasons.ErrorReason.ValueType | None, facts: dict[str, str]
) -> MeshError:
    error = kind.__new__(kind)
    MeshError.__init__(error, message, reason=reason)
    error.facts = facts
    return error


def _details(
    status: status_pb2.Status,
) -> tuple[error_details_pb2.ErrorInfo, str | None, timedelta | None]:
    info = error_details_pb2.ErrorInfo()
    bad = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    field: str | None = None
    delay: timedelta | None = None
    for detail in status.details:
        if detail.Unpack(bad) and bad.field_violations:
            field = bad.field_violations[0].field
        elif detail.Unpack(retry):
            delay = retry.retry_delay.ToTimedelta()
        else:
            detail.Unpack(info)
    return info, field, delay


def _pack(
    message: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo,
) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


_BY_CODE: dict[StatusCode, type[MeshError]] = {
    kind.code: kind
    for kind in (
        InvalidArgument, NotFound, AlreadyExists, Unauthenticated, PermissionDenied, FailedPrecondition, OutOfRange,
        ResourceExhausted, Aborted, Cancelled, Unavailable, Unimplemented, DeadlineExceeded, Internal,
    )
}  # fmt: skip
