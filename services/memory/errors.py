"""What can go wrong with what we know."""

from __future__ import annotations

from shared.errors import NotFound, Reason, Unavailable


class MemoryNotFound(NotFound):
    """No such memory in this tenant."""

    reason = Reason.ERROR_REASON_MEMORY_NOT_FOUND


class EmbeddingUnavailable(Unavailable):
    """No vector can be had now. Retry."""
