"""What can go wrong with a model."""

from __future__ import annotations

from shared.errors import (
    Aborted,
    Cancelled,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    OutOfRange,
    Reason,
    ResourceExhausted,
    Unavailable,
)


class ModelNotFound(NotFound):
    """No such model. The facts list those there are."""

    reason = Reason.ERROR_REASON_MODEL_NOT_FOUND


class GenerationNotFound(NotFound):
    """No such generation in this tenant."""

    reason = Reason.ERROR_REASON_GENERATION_NOT_FOUND


class GenerationExpired(OutOfRange):
    """It is over and its events are gone."""

    reason = Reason.ERROR_REASON_GENERATION_EXPIRED


class GenerationLost(Aborted):
    """Its owner died before it ended. Start a new one."""

    reason = Reason.ERROR_REASON_GENERATION_LOST


class GenerationCancelled(Cancelled):
    """Someone called it off."""

    reason = Reason.ERROR_REASON_GENERATION_CANCELLED


class PolicyBlocked(FailedPrecondition):
    """A rule blocks it. The facts name the rule."""

    reason = Reason.ERROR_REASON_POLICY_BLOCKED


class PolicyUnavailable(Unavailable):
    """No policy was ever received and this mesh is strict."""

    reason = Reason.ERROR_REASON_POLICY_UNAVAILABLE


class ProviderRateLimited(ResourceExhausted):
    """The provider asks to slow down."""

    reason = Reason.ERROR_REASON_PROVIDER_RATE_LIMITED


class ProviderUnavailable(Unavailable):
    """The provider does not answer."""

    reason = Reason.ERROR_REASON_PROVIDER_UNAVAILABLE


class ProviderAuthFailed(FailedPrecondition):
    """The provider refuses our credentials."""

    reason = Reason.ERROR_REASON_PROVIDER_AUTH_FAILED


class ProviderRejected(InvalidArgument):
    """The provider calls the request wrong."""

    reason = Reason.ERROR_REASON_PROVIDER_REJECTED


class ContextTooLong(InvalidArgument):
    """The prompt does not fit."""

    reason = Reason.ERROR_REASON_CONTEXT_TOO_LONG


class ProviderTimeout(DeadlineExceeded):
    """The provider took too long."""

    reason = Reason.ERROR_REASON_PROVIDER_TIMEOUT


class StreamBroken(Unavailable):
    """The provider's stream ended in the middle."""

    reason = Reason.ERROR_REASON_STREAM_BROKEN


class BudgetExhausted(ResourceExhausted):
    """The money ran out while tokens flowed."""

    reason = Reason.ERROR_REASON_BUDGET_EXHAUSTED
