"""What can go wrong with a prompt."""

from __future__ import annotations

from shared.errors import InvalidArgument, NotFound, Reason


class PromptNotFound(NotFound):
    """No such prompt, version or label in this tenant."""

    reason = Reason.ERROR_REASON_PROMPT_NOT_FOUND


class PromptInvalid(InvalidArgument):
    """A template does not parse, or it and the variables do not fit. Line and column are in the facts."""

    reason = Reason.ERROR_REASON_PROMPT_INVALID
