"""From the claims of a verified token to a principal, as each issuer writes them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from services.gateway.errors import ClaimMissing
from shared.identity import CredentialKind, Grant, Principal

TENANT: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
ROLE: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
_MAX_SUBJECT: Final = 255
_MAX_ROLES: Final = 64


@dataclass(frozen=True, slots=True)
class ClaimMapping:
    """Where an issuer's tokens say what, by claim name or dotted path, for example "realm_access.roles" (Keycloak) or
    "https://agentnet.example/roles" (Auth0). `tenants` and `role_names` translate the issuer's words into ours.
    """

    subject: str = "sub"
    tenant: str = "tenant"
    roles: str = "roles"
    grant: str = "grant"
    tenants: Mapping[str, str] = field(default_factory=dict)
    role_names: Mapping[str, str] = field(default_factory=dict)
    fixed_tenant: str = ""


OURS: Final = ClaimMapping()


def principal_of(claims: Mapping[str, Any], mapping: ClaimMapping = OURS) -> Principal:
    """The principal of a verified token; whether its roles exist is for the directory to say. Raises ClaimMissing."""
    return Principal(
        tenant_id=_tenant(claims, mapping),
        subject=_subject(claims, mapping),
        roles=_roles(claims, mapping),
        kind=CredentialKind.TOKEN,
        expires_at=_end(claims),
        grant=_grant(claims, mapping),
    )


def find(claims: Mapping[str, Any], path: str) -> Any:
    """The claim of that very name, or the one at that dotted path; None when there is neither."""
    if path in claims:
        return claims[path]
    head, dot, rest = path.partition(".")
    inner = claims.get(head)
    return find(inner, rest) if dot and isinstance(inner, Mapping) else None


def _subject(claims: Mapping[str, Any], mapping: ClaimMapping) -> str:
    subject = find(claims, mapping.subject)
    if not isinstance(subject, str) or not 0 < len(subject) <= _MAX_SUBJECT:
        raise ClaimMissing(f"the token needs the claim {mapping.subject}", claim=mapping.subject)
    return subject


def _tenant(claims: Mapping[str, Any], mapping: ClaimMapping) -> str:
    """Keycloak's `organization` is a list or an object of one; more than one would leave the choice to the caller."""
    if mapping.fixed_tenant:
        return mapping.fixed_tenant
    said = find(claims, mapping.tenant)
    if isinstance(said, list | dict) and len(said) == 1:
        (said,) = said
    tenant = mapping.tenants.get(said, said) if isinstance(said, str) else None
    if not isinstance(tenant, str) or not TENANT.fullmatch(tenant):
        message = f"the token needs the claim {mapping.tenant}: lower-case letters, digits and dashes"
        raise ClaimMissing(message, claim=mapping.tenant)
    return tenant


def _roles(claims: Mapping[str, Any], mapping: ClaimMapping) -> frozenset[str]:
    said = find(claims, mapping.roles)
    if isinstance(said, str):
        said = said.split()
    names = [name for name in said if isinstance(name, str)] if isinstance(said, list) else []
    ours = (mapping.role_names.get(name, name) for name in names[:_MAX_ROLES])
    return frozenset(name for name in ours if ROLE.fullmatch(name))


def _end(claims: Mapping[str, Any]) -> datetime:
    ends = claims.get("exp")
    if not isinstance(ends, int | float):
        raise ClaimMissing("the token needs the claim exp", claim="exp")
    return datetime.fromtimestamp(ends, UTC)


def _grant(claims: Mapping[str, Any], mapping: ClaimMapping) -> Grant | None:
    """Only narrows, so what is not understood is refused."""
    said = find(claims, mapping.grant)
    if said is None:
        return None
    try:
        return Grant.from_claim(said)
    except (TypeError, AttributeError):
        raise ClaimMissing("the token's claim grant is not one of ours", claim="grant") from None
