"""A browser's credential: a short-lived token of ours, sealed, in a cookie that counts for our own pages."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from cryptography.exceptions import InvalidTag

from services.gateway.bus.signing import Seal
from services.gateway.errors import CredentialsMissing, TokenUntrusted
from services.gateway.permissions import Permissions

PAGE: Final = "x-agentnet-page"
DASHBOARD: Final = "/agentnet.gateway.v1.DashboardService/GetDashboard"
# Bound to a purpose no webhook's id can be.
_PURPOSE: Final = "cookie of the dashboard"
_LONGEST: Final = 8192


class Cookies:
    """Seals tokens and finds them again. `secure`: browsers reach the mesh over TLS."""

    def __init__(self, seal: Seal, permissions: Permissions, *, secure: bool) -> None:
        self._seal = seal
        self._permissions = permissions
        self._name, self._more = ("__Host-agentnet", "; Secure") if secure else ("agentnet", "")

    def made(self, token: str, ttl: timedelta) -> str:
        """The value of set-cookie."""
        sealed = base64.urlsafe_b64encode(self._seal.close(token, _PURPOSE)).decode()
        return self._said(sealed, int(ttl.total_seconds()))

    def ended(self) -> str:
        """The value of set-cookie that takes it away."""
        return self._said("", 0)

    def credential(self, path: str, headers: Mapping[str, str]) -> str:
        """The token in a call's cookie, empty when there is none. Raises CredentialsMissing for a call that a page of
        another site could have made, and TokenUntrusted.
        """
        sealed = self._found(headers.get("cookie", ""))
        if not sealed:
            return ""
        if path != DASHBOARD and not self._of_our_page(path, headers):
            message = f"a cookie alone is no credential; pages send {PAGE} and come from this address"
            raise CredentialsMissing(message)
        try:
            return self._seal.open(base64.urlsafe_b64decode(sealed), _PURPOSE)
        except (InvalidTag, binascii.Error, ValueError):
            raise TokenUntrusted("the cookie is not one of this mesh's; sign in again") from None

    def _of_our_page(self, path: str, headers: Mapping[str, str]) -> bool:
        """A browser names the origin of whatever is no GET; what changes something is never taken without."""
        origin = headers.get("origin")
        if origin is None:
            permission = self._permissions.get(path)
            return PAGE in headers and permission is not None and permission.scope.endswith(":read")
        return PAGE in headers and origin.partition("://")[2] == headers.get("host")

    def _found(self, cookies: str) -> str:
        named = (cookie.strip().partition("=") for cookie in cookies.split(";"))
        return next((value for name, _, value in named if name == self._name and len(value) <= _LONGEST), "")

    def _said(self, value: str, seconds: int) -> str:
        return f"{self._name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{self._more}"
