"""Why a caller is not let in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.errors import (
    AlreadyExists,
    FailedPrecondition,
    NotFound,
    PermissionDenied,
    Reason,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)

if TYPE_CHECKING:
    from services.gateway.limits import Level


class CredentialsMissing(Unauthenticated):
    """Nothing says who calls. Send a bearer token or an API key."""

    reason = Reason.ERROR_REASON_CREDENTIALS_MISSING


class TokenMalformed(Unauthenticated):
    """What came as a token is none."""

    reason = Reason.ERROR_REASON_TOKEN_MALFORMED


class TokenExpired(Unauthenticated):
    """Get a new token."""

    reason = Reason.ERROR_REASON_TOKEN_EXPIRED


class TokenUntrusted(Unauthenticated):
    """Another issuer's, or signed in a way this mesh does not trust."""

    reason = Reason.ERROR_REASON_TOKEN_UNTRUSTED


class ClaimMissing(Unauthenticated):
    """The token does not say what the mesh must know."""

    reason = Reason.ERROR_REASON_TOKEN_CLAIM_MISSING


class KeyInvalid(Unauthenticated):
    """Unknown, revoked or ended; the three are not told apart."""

    reason = Reason.ERROR_REASON_API_KEY_INVALID


class RoleInsufficient(PermissionDenied):
    """None of the caller's roles may do this."""

    reason = Reason.ERROR_REASON_ROLE_INSUFFICIENT


class MethodUnknown(Unimplemented):
    """No such path or method."""


class KeyNotFound(NotFound):
    """No such key in this tenant."""

    reason = Reason.ERROR_REASON_API_KEY_NOT_FOUND


class KeyEnded(FailedPrecondition):
    """The key is revoked or has ended, and nothing follows it."""

    reason = Reason.ERROR_REASON_API_KEY_INVALID


class RequestIdReused(AlreadyExists):
    """A key was already made for this request_id; its secret cannot be shown again."""

    reason = Reason.ERROR_REASON_REQUEST_ID_REUSED


class MeshUnhealthy(Unavailable):
    """Parts the main job needs are down. The facts list them."""


class RateLimited(ResourceExhausted):
    """Too much at once. RetryInfo and retry-after say when to come back."""

    reason = Reason.ERROR_REASON_RATE_LIMITED
    level: Level


class ScopeInsufficient(PermissionDenied):
    """The credential was narrowed to scopes, and the method's is not among them."""

    reason = Reason.ERROR_REASON_SCOPE_INSUFFICIENT


class TenantSuspended(PermissionDenied):
    """The whole tenant is shut out. Ask the operator of the mesh."""

    reason = Reason.ERROR_REASON_TENANT_SUSPENDED


class UserSuspended(PermissionDenied):
    """The user is shut out. Ask an admin of the tenant."""

    reason = Reason.ERROR_REASON_USER_SUSPENDED


class TenantNotFound(NotFound):
    """No such tenant, or the caller is not of the platform's own."""

    reason = Reason.ERROR_REASON_TENANT_NOT_FOUND


class UserNotFound(NotFound):
    """No such user or service account in this tenant."""

    reason = Reason.ERROR_REASON_USER_NOT_FOUND


class RoleNotFound(NotFound):
    """No such role in this tenant."""

    reason = Reason.ERROR_REASON_ROLE_NOT_FOUND


class DelegationTooWide(PermissionDenied):
    """A delegated token may only be narrower than the credential it comes from."""

    reason = Reason.ERROR_REASON_DELEGATION_TOO_WIDE


class IssuerUnavailable(Unavailable):
    """The keys of the token's issuer cannot be fetched."""


class WebhookNotFound(NotFound):
    """No such webhook in this tenant."""

    reason = Reason.ERROR_REASON_WEBHOOK_NOT_FOUND


class DeliveryNotFound(NotFound):
    """No such delivery of this webhook."""

    reason = Reason.ERROR_REASON_DELIVERY_NOT_FOUND
