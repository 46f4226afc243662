"""What providers say when they refuse, in our words. Their own text is kept from callers: it may quote the prompt."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final

from services.inference.errors import (
    ContentFiltered,
    ContextTooLong,
    ProviderAuthFailed,
    ProviderOverloaded,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
    StreamBroken,
)
from shared.errors import MeshError

_DEFAULT_RETRY: Final = timedelta(seconds=1)
_LONGEST_RETRY: Final = timedelta(hours=1)
_SERVER_ERRORS: Final = 500
_BY_STATUS: Final[Mapping[int, type[MeshError]]] = {
    401: ProviderAuthFailed,
    403: ProviderAuthFailed,
    408: ProviderTimeout,
    429: ProviderRateLimited,
    503: ProviderOverloaded,
    504: ProviderTimeout,
    529: ProviderOverloaded,
}
_TOO_LONG: Final = (
    "context_length_exceeded",
    "exceed_context_size",
    "context size",
    "prompt is too long",
    "maximum context length",
    "maximum input length",
    "too many tokens",
    "`inputs` tokens",
    "`inputs` must have less",
)
_REQUEST_FAULTS: Final[tuple[tuple[type[MeshError], tuple[str, ...]], ...]] = (
    (ContextTooLong, _TOO_LONG),
    (ContentFiltered, ("content_filter", "content_policy_violation", "responsibleaipolicyviolation")),
)
_PROVIDER_FAULTS: Final[tuple[tuple[type[MeshError], tuple[str, ...]], ...]] = (
    (ProviderRateLimited, ("rate_limit", "ratelimit", "insufficient_quota", "too_many_requests")),
    (ProviderOverloaded, ("overloaded", "slow_down", "model_is_loading", "unavailable_error")),
    (ProviderAuthFailed, ("authentication_error", "invalid_api_key", "permission_error")),
    (ProviderTimeout, ("timeout_error",)),
    (ProviderRejected, ("invalid_request_error", "not_found_error", "validation")),
)
_MESSAGES: Final[Mapping[type[MeshError], str]] = {
    ContentFiltered: "the provider's filter refuses the content",
    ContextTooLong: "the prompt does not fit the model's context",
    ProviderAuthFailed: "the provider refuses the configured credentials",
    ProviderOverloaded: "the provider is overloaded",
    ProviderRateLimited: "the provider asks to slow down",
    ProviderRejected: "the provider rejects the request",
    ProviderTimeout: "the provider timed out",
    ProviderUnavailable: "the provider is failing",
    StreamBroken: "the provider failed in the middle",
}


def refusal(
    status: int, headers: Mapping[str, str], body: bytes, *, provider: str, field: str = "messages"
) -> MeshError:
    """A refusal by HTTP status, told apart further by the codes the body holds. What is too long is in the field."""
    kind = _BY_STATUS.get(status) or (ProviderUnavailable if status >= _SERVER_ERRORS else None)
    if kind:
        return _said(kind, provider, retry_after(headers))
    words = body[:65536].decode(errors="replace").lower()
    kind = next((kind for kind, codes in _REQUEST_FAULTS if _holds(words, codes)), ProviderRejected)
    return _said(kind, provider, None, field)


def broken_by(error: Any, *, provider: str) -> MeshError:
    """An error that came in the middle of a stream."""
    words = json.dumps(error).lower()
    faults = (*_REQUEST_FAULTS, *_PROVIDER_FAULTS)
    return _said(next((kind for kind, codes in faults if _holds(words, codes)), StreamBroken), provider, None)


def retry_after(headers: Mapping[str, str]) -> timedelta | None:
    """`retry-after-ms`, or `retry-after` in seconds or as a date, which is read by the provider's own clock."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            asked = timedelta(seconds=float(headers.get(name, "")) * unit)
        except (ValueError, OverflowError):
            continue
        return min(max(timedelta(), asked), _LONGEST_RETRY)
    until, now = _instant(headers.get("retry-after")), _instant(headers.get("date"))
    return min(max(timedelta(), until - now), _LONGEST_RETRY) if until and now else None


def _instant(written: str | None) -> datetime | None:
    try:
        found = parsedate_to_datetime(written or "")
    except ValueError:
        return None
    return found if found.tzinfo else None


def _said(kind: type[MeshError], provider: str, wait: timedelta | None, field: str = "messages") -> MeshError:
    if wait is None and kind in (ProviderRateLimited, ProviderOverloaded):
        wait = _DEFAULT_RETRY
    too_long = field if kind is ContextTooLong else None
    return kind(_MESSAGES[kind], field=too_long, retry_after=wait, provider=provider)


def _holds(words: str, codes: tuple[str, ...]) -> bool:
    return any(code in words for code in codes)
