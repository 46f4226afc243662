"""A network that can be cut: a real Envoy between a replica and its peers, with the fault filter."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import envoy

from tests.support.valkey import free_port

_CONNECTION_MANAGER: Final = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3."
_FILTERS: Final = "type.googleapis.com/envoy.extensions.filters.http."
_PROTOCOL: Final = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


@dataclass(slots=True)
class Network:
    """The way to a peer."""

    address: str
    admin: str
    command: tuple[str, ...]
    log: Path
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> None:
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(self.command, stdout=output, stderr=output)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    async def cut(self) -> None:
        """Ends every stream at once; from now on every call is refused."""
        self.stop()
        self.start()
        async with asyncio.timeout(30):
            while True:
                with suppress(aiohttp.ClientConnectionError):
                    return await self._abort(100)
                await asyncio.sleep(0.02)

    async def mend(self) -> None:
        """Calls pass again."""
        await self._abort(0)

    async def aborted(self) -> int:
        """How many calls the fault filter refused."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.admin}/stats?filter=aborts_injected") as said,
        ):
            return int((await said.text()).rpartition(":")[2])

    async def _abort(self, percent: int) -> None:
        url = f"{self.admin}/runtime_modify?fault.http.abort.abort_percent={percent}"
        async with aiohttp.ClientSession() as session, session.post(url) as said:
            said.raise_for_status()


@asynccontextmanager
async def network(folder: Path, target: str) -> AsyncIterator[Network]:
    """A way to `target`, up in the block."""
    port, admin = free_port(), free_port()
    config = folder / "network.json"
    config.write_text(json.dumps(_config(port, admin, target)))
    binary = Path(envoy.__file__).parent / "_bin" / "envoy"
    command = (str(binary), "-c", str(config), "--concurrency", "1", "--log-level", "error", "--disable-hot-restart")
    way = Network(f"127.0.0.1:{port}", f"http://127.0.0.1:{admin}", command, folder / "network.log")
    way.start()
    try:
        yield way
    finally:
        way.stop()


def _config(port: int, admin: int, target: str) -> dict[str, Any]:
    fault = {
        "@type": f"{_FILTERS}fault.v3.HTTPFault",
        "abort": {"http_status": 503, "percentage": {"numerator": 0, "denominator": "HUNDRED"}},
    }
    route = {"cluster": "peers", "timeout": "0s"}
    manager = {
        "@type": f"{_CONNECTION_MANAGER}HttpConnectionManager",
        "stat_prefix": "network",
        "http_filters": [
            {"name": "envoy.filters.http.fault", "typed_config": fault},
            {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{_FILTERS}router.v3.Router"}},
        ],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": route}]}]},
    }  # fmt: skip
    listener = {
        "address": _address("127.0.0.1", port),
        "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}],
    }  # fmt: skip
    host, _, peer = target.rpartition(":")
    cluster = {
        "name": "peers",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": _PROTOCOL,
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
        "load_assignment": {
            "cluster_name": "peers",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(host, int(peer))}}]}],
        },
    }
    return {
        "admin": {"address": _address("127.0.0.1", admin)},
        "layered_runtime": {"layers": [{"name": "admin", "admin_layer": {}}]},
        "static_resources": {"listeners": [listener], "clusters": [cluster]},
    }


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}
