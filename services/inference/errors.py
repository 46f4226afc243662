"""What can go wrong with a model."""

from __future__ import annotations

from typing import Final

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


class ApprovalRequired(PolicyBlocked):
    """A rule lets it pass only with an override for it. The facts name the rule."""

    reason = Reason.ERROR_REASON_CALL_APPROVAL_REQUIRED


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


class ProviderOverloaded(Unavailable):
    """The provider says it has too much to do."""

    reason = Reason.ERROR_REASON_PROVIDER_OVERLOADED


class ContentFiltered(FailedPrecondition):
    """The provider's own filter refuses the content."""

    reason = Reason.ERROR_REASON_CONTENT_FILTERED


class ModelUnable(FailedPrecondition):
    """The model cannot do what is asked. The facts say what is missing."""

    reason = Reason.ERROR_REASON_MODEL_UNABLE


class OutputInvalid(FailedPrecondition):
    """The output does not fit the asked schema, and asking again did not mend it."""

    reason = Reason.ERROR_REASON_OUTPUT_INVALID


class ReplayMissed(FailedPrecondition):
    """Strict replay holds no recording of this call. The facts show the nearest one and how it differs."""

    reason = Reason.ERROR_REASON_REPLAY_MISSED


class ProviderTimeout(DeadlineExceeded):
    """The provider took too long."""

    reason = Reason.ERROR_REASON_PROVIDER_TIMEOUT


class StreamBroken(Unavailable):
    """The provider's stream ended in the middle."""

    reason = Reason.ERROR_REASON_STREAM_BROKEN


TRANSIENT: Final = (ProviderRateLimited, ProviderOverloaded, ProviderUnavailable, ProviderTimeout, StreamBroken)
"""Failures the same model may not have a moment later."""

ELSEWHERE: Final = (*TRANSIENT, ProviderAuthFailed, ContextTooLong)
"""Failures another model may not have. What a provider calls wrong or filters out stays refused."""

PROVIDER_FAULTS: Final = (ProviderOverloaded, ProviderUnavailable, ProviderTimeout, StreamBroken, ProviderAuthFailed)
"""Failures that speak against the provider, and open its breaker."""

REFUSED: Final = (
    ProviderRateLimited,
    ProviderOverloaded,
    ProviderUnavailable,
    ProviderAuthFailed,
    ProviderRejected,
    ContextTooLong,
    ReplayMissed,
)
"""Answers by which a provider takes nothing: where no token came before them, none is paid for."""
