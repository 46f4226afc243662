"""What can go wrong with what we know."""

from __future__ import annotations

from shared.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Reason,
    ResourceExhausted,
    Unavailable,
)


class MemoryNotFound(NotFound):
    """No such memory in this tenant."""

    reason = Reason.ERROR_REASON_MEMORY_NOT_FOUND


class FactNotFound(NotFound):
    """No such fact in this tenant."""

    reason = Reason.ERROR_REASON_FACT_NOT_FOUND


class ReceiptNotFound(NotFound):
    """No such receipt in this tenant."""

    reason = Reason.ERROR_REASON_RECEIPT_NOT_FOUND


class EmbeddingSetNotFound(NotFound):
    """No such embedding set in this tenant. Store its texts first."""

    reason = Reason.ERROR_REASON_EMBEDDING_SET_NOT_FOUND


class MemoryExists(AlreadyExists):
    """Another memory has this content already. Change that one."""

    reason = Reason.ERROR_REASON_MEMORY_EXISTS


class MemoryFull(ResourceExhausted):
    """The tenant keeps as many memories as it may. Forget some, or raise the limit."""

    reason = Reason.ERROR_REASON_MEMORY_FULL


class EmbeddingWidthInvalid(InvalidArgument):
    """No table is as wide as this vector. Use the mesh's embedding model."""

    reason = Reason.ERROR_REASON_EMBEDDING_WIDTH_INVALID


class FilterUnknown(InvalidArgument):
    """Memories are not filtered by this. The error names what they are filtered by."""

    reason = Reason.ERROR_REASON_FILTER_UNKNOWN


class EmbeddingUnavailable(Unavailable):
    """No vector can be had now. Retry."""


class PolicyBlocked(FailedPrecondition):
    """A rule does not let this be remembered."""

    reason = Reason.ERROR_REASON_POLICY_BLOCKED


class PolicyUnavailable(Unavailable):
    """No policy has been received yet and this mesh is strict."""

    reason = Reason.ERROR_REASON_POLICY_UNAVAILABLE
