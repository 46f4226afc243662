"""Posting to addresses that tenants chose: signed, without redirects, and never to the mesh's own network."""

from __future__ import annotations

import ipaddress
import json
import socket
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from cryptography.exceptions import InvalidTag

from services.gateway.bus.event import Event
from services.gateway.bus.formats import write
from services.gateway.bus.signing import Seal, signature
from services.gateway.bus.store import Webhook
from shared.errors import InvalidArgument

_LIMIT: Final = aiohttp.ClientTimeout(total=10, sock_connect=5)
_READ_BYTES: Final = 4096
_LONGEST_WAIT: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one try went. The code is 0 when no answer came."""

    code: int
    error: str = ""
    retry_after: timedelta | None = None

    @property
    def taken(self) -> bool:
        return 200 <= self.code < 300  # noqa: PLR2004 - HTTP's success


class PublicResolver(AbstractResolver):
    """Resolves names, and refuses those that lead into a private network, at the moment of connecting."""

    def __init__(self) -> None:
        self._resolver = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        public = [one for one in found if ipaddress.ip_address(one["host"]).is_global]
        if not public:
            raise OSError(None, f"{host} is not a public address")
        return public

    async def close(self) -> None:
        await self._resolver.close()


def session(*, private: bool) -> aiohttp.ClientSession:
    """A client for deliveries; with `private` it also reaches private addresses."""
    connector = aiohttp.TCPConnector(limit_per_host=8, resolver=None if private else PublicResolver())
    return aiohttp.ClientSession(connector=connector, timeout=_LIMIT)


def require_address(url: str, *, private: bool) -> str:
    """An address that may be posted to. Raises InvalidArgument."""
    parts = urlsplit(url)
    schemes = {"https", "http"} if private else {"https"}
    if parts.scheme not in schemes or not parts.hostname or parts.username or parts.password:
        raise InvalidArgument(f"url must start with {' or '.join(sorted(schemes))}:// and a host", field="webhook.url")
    try:
        literal = ipaddress.ip_address(parts.hostname)
    except ValueError:
        return url
    if not private and not literal.is_global:
        raise InvalidArgument("url must not name a private address", field="webhook.url")
    return url


class Sender:
    """Posts one event to one webhook."""

    def __init__(self, http: aiohttp.ClientSession, seal: Seal) -> None:
        self._http = http
        self._seal = seal

    async def send(self, tenant: str, webhook: Webhook, event: Event, delivery_id: str, now: datetime) -> Outcome:
        """How it went; never raises for what the address does."""
        kind, body = write(webhook.format, tenant, event)
        data, timestamp = json.dumps(body, ensure_ascii=False, default=str).encode(), int(now.timestamp())
        try:
            secret = self._seal.open(webhook.sealed_secret, webhook.id)
        except InvalidTag:
            return Outcome(0, "the secret cannot be opened: the mesh's key has changed; make the webhook anew")
        headers = {
            "content-type": kind,
            "user-agent": "agentnet-webhooks/1",
            "webhook-id": delivery_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(secret, delivery_id, timestamp, data),
        }
        try:
            return await self._post(webhook.url, data, headers)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return Outcome(0, f"{type(error).__name__}: {error}"[:500])

    async def _post(self, url: str, data: bytes, headers: dict[str, str]) -> Outcome:
        async with self._http.post(url, data=data, headers=headers, allow_redirects=False) as answer:
            await answer.content.read(_READ_BYTES)
            outcome = Outcome(answer.status, retry_after=_wait(answer.headers.get("retry-after", "")))
        return outcome if outcome.taken else Outcome(outcome.code, f"HTTP {outcome.code}", outcome.retry_after)


def _wait(given: Any) -> timedelta | None:
    return min(timedelta(seconds=int(given)), _LONGEST_WAIT) if str(given).isdigit() else None
