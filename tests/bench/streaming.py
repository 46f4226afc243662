"""Streamed tokens side by side: the mesh, plain Envoy and, where they are given, other gateways, on one upstream in one run.

`python -m tests.bench.streaming [--litellm PATH] [--tensorzero PYTHON]`: the `litellm` command and the Python of environments
of their own. The mesh runs with
everything on: Envoy, JWT, admission, policy, leases, the live tail. Prints the table; `--write` puts it into streaming.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import psutil
import uvloop
import yaml

from agentnet.inference.v1 import inference_service_pb2 as pb
from agentnet.inference.v1 import inference_service_pb2_grpc as rpc
from agentnet.inference.v1 import message_pb2
from deploy.local.mesh import EmbeddedMesh, Options, embedded_mesh
from deploy.local.state import State
from tests.support.valkey import free_port

RESULTS = Path(__file__).with_name("streaming.json")
_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_HTTP2 = {
    "typed_extension_protocol_options": {
        _OPTIONS: {
            "@type": f"type.googleapis.com/{_OPTIONS}",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
    }
}
MODEL = "gpt-4o-mini"  # a name both price books know
KEY = "sk-bench"


@dataclass(frozen=True, slots=True)
class Load:
    """So many streams at once, each so long, with such a gap between tokens."""

    name: str
    streams: int
    tokens: int
    gap_ms: int

    @property
    def prompt(self) -> str:
        return f"tokens={self.tokens} gap_ms={self.gap_ms}"


@dataclass(frozen=True, slots=True)
class Contender:
    """A way to the model: one streamed call, one whole one, and the processes that carry them."""

    name: str
    stream: Callable[[str], Awaitable[tuple[float, int]]]
    whole: Callable[[str], Awaitable[None]]
    processes: Callable[[], Sequence[int]]


@dataclass(frozen=True, slots=True)
class Measured:
    """What one load showed of one contender."""

    cpu_per_million: float
    tokens_per_second: float
    first_token_p50_ms: float
    first_token_p99_ms: float
    rss_mb: int


# More ways to a model at this URL.
Ways = Callable[[AsyncExitStack, Path, str], Awaitable[Sequence[Contender]]]

LOADS = (
    Load("16 streams, 20 ms a token", 16, 250, 20),
    Load("64 streams, 20 ms a token", 64, 250, 20),
    Load("64 streams, no gap", 64, 1000, 0),
)


def cpu(pids: Sequence[int]) -> float:
    """Seconds of processor time of processes and their children, of each once."""
    roots = [psutil.Process(pid) for pid in pids]
    each = {process for root in roots for process in (root, *root.children(recursive=True))}
    return sum(times.user + times.system for times in (process.cpu_times() for process in each))


def cpu_by_process(mesh: EmbeddedMesh) -> dict[str, float]:
    """The same of each part of the mesh by its name; what the fork server forked is no part of it."""
    parts = {part["name"]: part["pid"] for part in mesh.status()["processes"]}
    own = psutil.Process(parts["forkserver"]).cpu_times()
    return {name: own.user + own.system if name == "forkserver" else cpu([pid]) for name, pid in parts.items()}


async def measure(contender: Contender, load: Load) -> Measured:
    for _ in range(3):
        await contender.stream("tokens=5 gap_ms=0")
    pids = contender.processes()
    before, began = cpu(pids), time.perf_counter()
    found = await asyncio.gather(*(contender.stream(load.prompt) for _ in range(load.streams)))
    elapsed, used = time.perf_counter() - began, cpu(pids) - before
    produced = sum(count for _, count in found)
    if produced != load.streams * load.tokens:
        raise RuntimeError(f"{contender.name} lost tokens: {produced} of {load.streams * load.tokens}")
    firsts = sorted(first * 1000 for first, _ in found)
    return Measured(
        cpu_per_million=round(used / produced * 1_000_000, 1),
        tokens_per_second=round(produced / elapsed),
        first_token_p50_ms=round(statistics.median(firsts), 2),
        first_token_p99_ms=round(firsts[int(len(firsts) * 0.99)], 2),
        rss_mb=sum(psutil.Process(pid).memory_info().rss for pid in pids) // 1_000_000,
    )


@asynccontextmanager
async def process(*command: str, port: int, **environment: str) -> AsyncIterator[subprocess.Popen[bytes]]:
    """A process that listens, ready in the block."""
    with tempfile.TemporaryFile() as log:
        running = subprocess.Popen(command, env={**os.environ, **environment}, stdout=log, stderr=log)
        try:
            await listening(running, port)
            yield running
        finally:
            running.terminate()
            running.wait(20)


async def listening(running: subprocess.Popen[bytes], port: int) -> None:
    for _ in range(600):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            if running.poll() is not None:
                raise RuntimeError(f"{running.args!r} ended with {running.returncode}") from None
            await asyncio.sleep(0.1)
        else:
            writer.close()
            return
    raise RuntimeError(f"{running.args!r} does not listen")


def over_http(
    name: str, url: str, session: aiohttp.ClientSession, processes: Callable[[], Sequence[int]], *, model: str = MODEL
) -> Contender:
    """OpenAI's API, read as bytes: the client must not be what is measured."""

    async def stream(prompt: str) -> tuple[float, int]:
        body = {"model": model, "stream": True, "messages": [{"role": "user", "content": prompt}]}
        began, first, count = time.perf_counter(), 0.0, 0
        async with session.post(url, json=body, headers={"authorization": f"Bearer {KEY}"}) as answer:
            answer.raise_for_status()
            async for data in answer.content.iter_any():
                found = data.count(b'"content":"word "') + data.count(b'"content":"more "')
                first = first or (time.perf_counter() - began if found else 0.0)
                count += found
        return first, count

    async def whole(prompt: str) -> None:
        body = {"model": model, "messages": [{"role": "user", "content": prompt}]}
        async with session.post(url, json=body, headers={"authorization": f"Bearer {KEY}"}) as answer:
            answer.raise_for_status()
            if b"word" not in await answer.read():
                raise RuntimeError(f"{name} said nothing")

    return Contender(name, stream, whole, processes)


def asked_for(prompt: str) -> pb.GenerateRequest:
    """What every way over gRPC is asked."""
    message = message_pb2.Message(role=message_pb2.ROLE_USER, content=[message_pb2.ContentPart(text=prompt)])
    return pb.GenerateRequest(model=MODEL, messages=[message], max_output_tokens=4096, packing=True, no_fallback=True)


async def read(answers: Any) -> tuple[float, int]:
    """A stream that begins now: seconds to its first token, and how many came."""
    began, first, count = time.perf_counter(), 0.0, 0
    async for answer in answers:
        for event in (answer.event, *answer.more):
            if event.HasField("text"):
                first = first or time.perf_counter() - began
                count += event.text.token_count
            elif event.HasField("failed"):
                raise RuntimeError(event.failed.failure.message)
    return first, count


def over_grpc(mesh: EmbeddedMesh, stub: Any, token: str) -> Contender:
    """The mesh's edge."""
    metadata = (("authorization", f"Bearer {token}"),)

    async def stream(prompt: str) -> tuple[float, int]:
        return await read(stub.Generate(asked_for(prompt), metadata=metadata))

    def processes() -> Sequence[int]:
        return [part["pid"] for part in mesh.status()["processes"] if part["name"] in ("inference", "envoy")]

    async def whole(prompt: str) -> None:
        answer = await stub.GenerateText(pb.GenerateTextRequest(generation=asked_for(prompt)), metadata=metadata)
        if "word" not in answer.text:
            raise RuntimeError("agentnet said nothing")

    return Contender("agentnet", stream, whole, processes)


def envoy_config(port: int, upstream: int, *, http2: bool = False) -> dict[str, Any]:
    """Envoy as a plain reverse proxy: the floor of what a proxy costs."""

    def endpoint(at: int) -> dict[str, Any]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": at}}

    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "model", "timeout": "0s"}}],
                }
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
            }
        ],
    }
    load = {"cluster_name": "model", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": endpoint(upstream)}}]}]}
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    return {
        "static_resources": {
            "listeners": [{"name": "in", "address": endpoint(port), "filter_chains": [chain]}],
            "clusters": [{"name": "model", "type": "STATIC", "load_assignment": load, **(_HTTP2 if http2 else {})}],
        }
    }


def peers(parser: argparse.ArgumentParser) -> None:
    """The arguments that bring other gateways."""
    parser.add_argument("--litellm", default="", help="its command")
    parser.add_argument("--tensorzero", default="", help="a Python that has its wheel")


async def contenders(
    stack: AsyncExitStack, folder: Path, asked: argparse.Namespace, *more: Ways
) -> tuple[list[Contender], EmbeddedMesh]:
    """Every way to one upstream, running for as long as the stack is open, and the mesh that is one of them."""
    upstream = free_port()
    await stack.enter_async_context(process(sys.executable, "-m", "tests.bench.upstream", str(upstream), port=upstream))
    url = f"http://127.0.0.1:{upstream}/v1/chat/completions"
    connector = aiohttp.TCPConnector(limit=0)
    session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
    found = [over_http("the model itself", url, session, list)]
    found.append(await plain_envoy(stack, folder, upstream, session))
    for ways in more:
        found += await ways(stack, folder, url)
    mesh, way = await mesh_of(stack, folder, upstream)
    found.append(way)
    if asked.litellm:
        found.append(await litellm_proxy(stack, folder, upstream, session, asked.litellm))
    if asked.tensorzero:
        found.append(await tensorzero(stack, folder, upstream, session, asked.tensorzero))
    return found, mesh


async def plain_envoy(stack: AsyncExitStack, folder: Path, upstream: int, session: aiohttp.ClientSession) -> Contender:
    port, path = free_port(), folder / "envoy.json"
    path.write_text(json.dumps(envoy_config(port, upstream)))
    command = ("envoy", "-c", str(path), "--concurrency", "2", "-l", "error", "--use-dynamic-base-id")
    running = await stack.enter_async_context(process(*command, port=port))
    return over_http("plain Envoy", f"http://127.0.0.1:{port}/v1/chat/completions", session, lambda: [running.pid])


async def mesh_of(stack: AsyncExitStack, folder: Path, upstream: int) -> tuple[EmbeddedMesh, Contender]:
    catalog = folder / "catalog.yaml"
    provider = {"kind": "openai", "base_url": f"http://127.0.0.1:{upstream}/v1", "api_key": "env:BENCH_KEY"}
    models = {MODEL: {"provider": "openai", "abilities": ["tools"]}}
    catalog.write_text(yaml.safe_dump({"providers": {"openai": provider}, "models": models}))
    os.environ |= {"AGENTNET_INFERENCE_CATALOG": str(catalog), "BENCH_KEY": KEY}
    mesh = await stack.enter_async_context(embedded_mesh(Options(State(folder / "state"))))
    token = json.loads((mesh.plan.state.folder / "client.json").read_text())["token"]
    channel = await stack.enter_async_context(grpc.aio.insecure_channel(mesh.edge))
    return mesh, over_grpc(mesh, rpc.InferenceServiceStub(channel), token)


async def litellm_proxy(
    stack: AsyncExitStack, folder: Path, upstream: int, session: aiohttp.ClientSession, command: str
) -> Contender:
    port, path = free_port(), folder / "litellm.yaml"
    params = {"model": f"openai/{MODEL}", "api_base": f"http://127.0.0.1:{upstream}/v1", "api_key": KEY}
    config = {
        "model_list": [{"model_name": MODEL, "litellm_params": params}],
        "general_settings": {"master_key": KEY},
        "litellm_settings": {"telemetry": False},
    }
    path.write_text(yaml.safe_dump(config))
    arguments = (command, "--config", str(path), "--port", str(port), "--host", "127.0.0.1")
    running = await stack.enter_async_context(process(*arguments, port=port, LITELLM_LOCAL_MODEL_COST_MAP="True"))
    return over_http("LiteLLM", f"http://127.0.0.1:{port}/v1/chat/completions", session, lambda: [running.pid])


async def tensorzero(
    stack: AsyncExitStack, folder: Path, upstream: int, session: aiohttp.ClientSession, python: str
) -> Contender:
    path = folder / "tensorzero.toml"
    path.write_text(
        f'[gateway]\nobservability.enabled = false\n[models.{MODEL}]\nrouting = ["up"]\n'
        f'[models.{MODEL}.providers.up]\ntype = "openai"\nmodel_name = "{MODEL}"\n'
        f'api_base = "http://127.0.0.1:{upstream}/v1"\napi_key_location = "none"\n'
    )
    script = Path(__file__).with_name("tensorzero_gateway.py")
    running = await asyncio.create_subprocess_exec(python, str(script), str(path), stdout=asyncio.subprocess.PIPE)
    stack.callback(running.terminate)
    assert running.stdout  # it is a pipe
    async with asyncio.timeout(60):
        while not (line := (await running.stdout.readline()).decode().strip()).startswith("http"):
            if not line:
                raise RuntimeError("TensorZero's gateway ended")
    url, model = f"{line}/chat/completions", f"tensorzero::model_name::{MODEL}"
    return over_http("TensorZero", url, session, lambda: [running.pid], model=model)


async def main() -> None:
    parser = argparse.ArgumentParser()
    peers(parser)
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    rows: list[tuple[str, str, Measured]] = []
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            running, _ = await contenders(stack, Path(folder), asked)
            for load in LOADS:
                for contender in running:
                    rows.append((load.name, contender.name, await measure(contender, load)))
    show(rows)
    if asked.write:
        write(rows)


def show(rows: Sequence[tuple[str, str, Measured]]) -> None:
    sys.stdout.write(
        "| load | way | CPU s per 1M tokens | tokens/s | first token p50 / p99 ms | RSS MB |\n|---|---|---|---|---|---|\n"
    )
    for load, name, found in rows:
        firsts = f"{found.first_token_p50_ms} / {found.first_token_p99_ms}"
        sys.stdout.write(
            f"| {load} | {name} | {found.cpu_per_million} | {found.tokens_per_second:.0f} | {firsts} | {found.rss_mb} |\n"
        )


def write(rows: Sequence[tuple[str, str, Measured]]) -> None:
    commit = subprocess.run(("git", "rev-parse", "--short", "HEAD"), capture_output=True, text=True, check=True)
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    measured = [
        {"load": load, "way": name, **{field: getattr(found, field) for field in found.__slots__}}
        for load, name, found in rows
    ]
    results = {"machine": machine, "commit": commit.stdout.strip(), "command": "make bench-streaming", "rows": measured}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    uvloop.run(main())
