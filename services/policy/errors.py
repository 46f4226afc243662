"""What can go wrong with rules."""

from __future__ import annotations

from shared.errors import AlreadyExists, InvalidArgument, NotFound, Reason


class BundleInvalid(InvalidArgument):
    """The document does not parse or breaks the schema. Line and path are in the facts."""

    reason = Reason.ERROR_REASON_BUNDLE_INVALID


class BundleNotFound(NotFound):
    """No such bundle or version."""

    reason = Reason.ERROR_REASON_BUNDLE_NOT_FOUND


class BundleVersionExists(AlreadyExists):
    """Versions are immutable. Choose a new one."""

    reason = Reason.ERROR_REASON_BUNDLE_VERSION_EXISTS
