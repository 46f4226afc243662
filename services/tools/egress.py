"""Where tools may reach: hosts that an operator allows, at addresses that are checked and used as they were checked."""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from fnmatch import fnmatchcase
from typing import Final

import httpx2

from services.tools import inflating
from services.tools.errors import EgressRefused, ToolUnreachable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
_PORTS: Final = {"http": 80, "https": 443}


class Egress:
    """The allow-list: names (`api.example.com`, `*.example.com`), addresses and networks, or `*` for every public host.

    Addresses that are not public (loopback, link-local, private, and those that hide one) need to be on it themselves.
    """

    def __init__(self, allowed: Sequence[str], *, resolve: Resolve | None = None) -> None:
        self._networks = tuple(network for entry in allowed if (network := _network(entry)))
        self._names = tuple(entry.lower().rstrip(".") for entry in allowed if not _network(entry))
        self._resolve = resolve or resolved

    async def address(self, host: str, port: int) -> str:
        """An address of the host that may be reached. Raises EgressRefused and ToolUnreachable."""
        if literal := _address(host):
            self._check_address(host, literal, named=False)
            return str(literal)
        name = host.lower().rstrip(".")
        if not any(fnmatchcase(name, pattern) for pattern in self._names):
            raise _refused(host)
        try:
            found = await self._resolve(name, port)
        except OSError as error:
            raise ToolUnreachable(f"{host} has no address", dependency=host) from error
        addresses = [parsed for text in found if (parsed := _address(text))]
        if not addresses:
            raise ToolUnreachable(f"{host} has no address", dependency=host)
        # One bad address among good ones is a host that is not to be trusted with a second look.
        for address in addresses:
            self._check_address(host, address, named=True)
        return str(addresses[0])

    def _check_address(self, host: str, address: Address, *, named: bool) -> None:
        inner = _unwrapped(address)
        if any(inner in network for network in self._networks if network.version == inner.version):
            return
        public = inner.is_global and not inner.is_multicast
        if not public or not (named or "*" in self._names):
            raise _refused(host)


class CheckedTransport(httpx2.AsyncBaseTransport):
    """Sends every request to an address that was checked for this very request: no name is resolved twice."""

    def __init__(self, egress: Egress) -> None:
        self._egress = egress
        self._inner = httpx2.AsyncHTTPTransport(verify=_trusted(), retries=0, trust_env=False)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        host, port = request.url.host, request.url.port or _PORTS[request.url.scheme]
        address = await self._egress.address(host, port)
        headers = request.headers.copy()
        headers["accept-encoding"] = inflating.ACCEPTED
        checked = httpx2.Request(
            request.method,
            request.url.copy_with(host=address),
            headers=headers,
            stream=request.stream,
            extensions={**request.extensions, "sni_hostname": host},
        )
        response = await self._inner.handle_async_request(checked)
        try:
            return inflating.bounded(response)
        except httpx2.DecodingError:
            await response.aclose()
            raise

    async def aclose(self) -> None:
        await self._inner.aclose()


@functools.cache
def _trusted() -> ssl.SSLContext:
    """The authorities that are believed: read once, for it takes longer than most requests."""
    return httpx2.create_ssl_context(trust_env=False)


def client(egress: Egress, *, timeout: float, headers: dict[str, str] | None = None) -> httpx2.AsyncClient:
    """A client that goes nowhere but where it may, follows no redirect and reads no environment."""
    return httpx2.AsyncClient(
        transport=CheckedTransport(egress), timeout=timeout, headers=headers, follow_redirects=False, trust_env=False
    )


async def resolved(host: str, port: int) -> Sequence[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


def _refused(host: str) -> EgressRefused:
    return EgressRefused(f"{host} may not be reached from here", host=host)


def _network(entry: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return None


def _address(text: str) -> Address | None:
    """Only addresses as they are usually written: 0x7f.1 and 2130706433 are names, and no such name is allowed."""
    try:
        return ipaddress.ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return None


def _unwrapped(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for."""
    if isinstance(address, ipaddress.IPv6Address):
        return address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else address)
    return address
