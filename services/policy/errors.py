"""What can go wrong with rules."""

from __future__ import annotations

from shared.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, PermissionDenied, Reason


class BundleInvalid(InvalidArgument):
    """The document does not parse or breaks the schema. Line and path are in the facts."""

    reason = Reason.ERROR_REASON_BUNDLE_INVALID


class BundleNotFound(NotFound):
    """No such bundle or version."""

    reason = Reason.ERROR_REASON_BUNDLE_NOT_FOUND


class BundleVersionExists(AlreadyExists):
    """Versions are immutable. Choose a new one."""

    reason = Reason.ERROR_REASON_BUNDLE_VERSION_EXISTS


class ClassifierUnavailable(FailedPrecondition):
    """A rule names an ONNX model that is not in the folder, or whose form is not that of a classifier."""

    reason = Reason.ERROR_REASON_CLASSIFIER_UNAVAILABLE


class RuleUnknown(InvalidArgument):
    """No bundle of the tenant has a rule of this name. `known` names those nearest to it."""

    reason = Reason.ERROR_REASON_NAME_UNKNOWN


class OverrideInvalid(PermissionDenied):
    """The override token is not of this mesh, not for this caller, or was taken back."""

    reason = Reason.ERROR_REASON_OVERRIDE_INVALID


class OverrideExpired(PermissionDenied):
    """The override token's time has passed. Ask for a new one."""

    reason = Reason.ERROR_REASON_OVERRIDE_EXPIRED


class NotEntitled(PermissionDenied):
    """Only operators and admins decide what rules hold."""

    reason = Reason.ERROR_REASON_ROLE_INSUFFICIENT


class OverrideOutOfScope(PermissionDenied):
    """The credential is narrowed so that it gives out no overrides, or was delegated."""

    reason = Reason.ERROR_REASON_SCOPE_INSUFFICIENT


class OverrideNotFound(NotFound):
    """No such override."""

    reason = Reason.ERROR_REASON_OVERRIDE_NOT_FOUND


class DecisionNotFound(NotFound):
    """No such recorded decision."""

    reason = Reason.ERROR_REASON_DECISION_NOT_FOUND


class RiskNotFound(NotFound):
    """No such risk in the register."""

    reason = Reason.ERROR_REASON_RISK_NOT_FOUND


class ExportNotAllowed(PermissionDenied):
    """The caller's role may not see or take out what it asks for."""

    reason = Reason.ERROR_REASON_EXPORT_NOT_ALLOWED
