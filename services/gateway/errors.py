"""Why a caller is not let in."""

from __future__ import annotations

from shared.errors import AlreadyExists, NotFound, PermissionDenied, Reason, Unauthenticated, Unavailable, Unimplemented


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


class RequestIdReused(AlreadyExists):
    """A key was already made for this request_id; its secret cannot be shown again."""

    reason = Reason.ERROR_REASON_REQUEST_ID_REUSED


class MeshUnhealthy(Unavailable):
    """Parts the main job needs are down. The facts list them."""
