"""What a function in the sandbox asks for by `fetch`: a request that the mesh makes, to hosts that were granted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any, Final

import httpx2

from services.tools import egress, sanitise
from services.tools.conversation import Asked
from services.tools.executor import Work
from services.tools.runner import MAX_BODY
from services.tools.secrets import Secrets
from services.tools.store import Function
from shared.errors import MeshError

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})
# What the mesh decides about a request, and a function does not.
_OWN_HEADERS: Final = frozenset({"host", "authorization", "content-length", "transfer-encoding", "connection"})

Reply = Mapping[str, Any]


class Fetching:
    """Makes requests for functions, under the operator's allow-list and the tool's own."""

    def __init__(self, allowed: egress.Egress, secrets: Secrets) -> None:
        self._allowed = allowed
        self._secrets = secrets

    def of(self, work: Work) -> Callable[[Asked], Awaitable[Reply]] | None:
        """Who answers a call's `fetch`; None when its tool was granted no host. Raises SecretNotFound."""
        function = work.tool.function
        if function is None or not function.network:
            return None
        headers = self._credentials(work)

        async def fetch(asked: Asked) -> Reply:
            try:
                reply = await self._made(asked, function, headers)
            except (httpx2.HTTPError, httpx2.InvalidURL, ValueError, OverflowError) as error:
                return {"error": f"the host gave no whole answer: {type(error).__name__}"}
            except (MeshError, _RefusedError) as error:
                return {"error": str(error)}
            masked: Reply = sanitise.data(reply, work.secrets)
            return masked

        return fetch

    async def _made(self, asked: Asked, function: Function, own: dict[str, str]) -> Reply:
        url, method, headers, body = _checked(asked, function.network)
        async with (
            egress.client(self._allowed, timeout=function.timeout.total_seconds()) as client,
            client.stream(method, url, headers=headers | own, content=body) as response,
        ):
            found = bytearray()
            async for part in response.aiter_bytes():
                found += part
                if len(found) > MAX_BODY:
                    raise _RefusedError(f"the answer has more than {MAX_BODY} bytes")
            text = found.decode(response.encoding or "utf-8", errors="replace")
            return {"status": response.status_code, "headers": dict(response.headers), "body": text}

    def _credentials(self, work: Work) -> dict[str, str]:
        if not work.tool.auth:
            return {}
        return {"Authorization": f"Bearer {self._secrets.use(work, work.tool.auth['key_id'])}"}


class _RefusedError(Exception):
    """What the function asked for is not done."""


def _checked(asked: Asked, granted: tuple[str, ...]) -> tuple[httpx2.URL, str, dict[str, str], str | None]:
    """A function may say anything: nothing of it is believed."""
    url, body = httpx2.URL(str(asked.get("url", ""))), asked.get("body")
    method = str(asked.get("method", "GET")).upper()
    if url.scheme not in ("http", "https") or not url.host or url.userinfo:
        raise _RefusedError("fetch takes an http or https address")
    if not any(fnmatchcase(url.host.lower().rstrip("."), pattern) for pattern in granted):
        raise _RefusedError(f"{url.host} is not among the tool's hosts, which are {', '.join(granted)}")
    if method not in _METHODS:
        raise _RefusedError(f"method is one of {', '.join(sorted(_METHODS))}")
    if body is not None and (not isinstance(body, str) or len(body.encode()) > MAX_BODY):
        raise _RefusedError(f"a body is text of at most {MAX_BODY} bytes")
    headers = asked.get("headers") or {}
    if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
        raise _RefusedError("headers are texts by name")
    return url, method, {name: value for name, value in headers.items() if name.lower() not in _OWN_HEADERS}, body
