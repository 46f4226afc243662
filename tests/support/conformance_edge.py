"""`python -m tests.support.conformance_edge PORT`: an edge with a conformance agent, and in front of it an Envoy that adds a
credential, because the published suites send none. It prints its address and serves until it is stopped.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import envoy
import grpc

from deploy.envoy.inputs import socket, typed
from tests.support.conformance_agent import ConformanceAgent
from tests.support.conformance_mcp import conformance_server
from tests.support.edge import Serve, running_edge
from tests.support.scripted_inference import ScriptedInference
from tests.support.scripted_orchestrator import serve_orchestrator

HTTP = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER = {"name": "router", "typed_config": typed("envoy.extensions.filters.http.router.v3.Router")}


def serve_all(server: grpc.aio.Server) -> None:
    ScriptedInference().serve(server)
    serve_orchestrator(server)


@asynccontextmanager
async def conformance_edge(port: int, serve: Serve = serve_all) -> AsyncIterator[str]:
    """The address in front."""
    address = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as folder:
        async with running_edge(
            Path(folder), serve=serve, work=ConformanceAgent(), mcp=conformance_server(), public_url=address, webhook_private=True,
            limits={"user": {"per_second": 10_000, "burst": 10_000}, "method": {"per_second": 10_000, "burst": 10_000}},
        ) as edge:  # fmt: skip
            token = edge.token(ttl=timedelta(hours=2))
            host, _, upstream = edge.address.rpartition(":")
            process = _front(Path(folder), port, (host, int(upstream)), token)
            try:
                await answering(f"{address}/livez")
                yield address
            finally:
                process.kill()
                process.wait()


async def answering(url: str) -> None:
    async with aiohttp.ClientSession() as session:
        for _ in range(200):
            try:
                async with session.get(url) as answer:
                    if answer.ok:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.05)
    raise TimeoutError(url)


def _front(folder: Path, port: int, upstream: tuple[str, int], token: str) -> subprocess.Popen[bytes]:
    file = folder / "front.json"
    file.write_text(json.dumps(_config(port, upstream, token)))
    binary = Path(envoy.__file__).parent / "_bin" / "envoy"
    command = (str(binary), "-c", str(file), "--concurrency", "1", "--log-level", "error", "--disable-hot-restart")
    return subprocess.Popen(command, env={**os.environ})


def _config(port: int, upstream: tuple[str, int], token: str) -> dict[str, Any]:
    added = [
        {"header": {"key": "authorization", "value": f"Bearer {token}"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
    ]
    route = {"match": {"prefix": "/"}, "route": {"cluster": "edge", "timeout": "0s"}, "request_headers_to_add": added}
    hosts = [{"name": "all", "domains": ["*"], "routes": [route]}]
    manager = typed(
        HTTP, stat_prefix="front", codec_type="AUTO", http_filters=[ROUTER], route_config={"virtual_hosts": hosts}
    )
    options = typed(
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        use_downstream_protocol_config={"http2_protocol_options": {}},
    )
    cluster = {
        "name": "edge",
        "type": "STATIC",
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
        "load_assignment": {
            "cluster_name": "edge",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket(upstream)}}]}],
        },
    }
    chains = [{"filters": [{"name": "http", "typed_config": manager}]}]
    listener = {"name": "front", "address": socket(("127.0.0.1", port)), "filter_chains": chains}
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


async def main() -> None:
    async with conformance_edge(int(sys.argv[1])) as address:
        print(address, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
