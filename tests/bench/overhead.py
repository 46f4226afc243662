"""What the mesh adds to a model without latency: `make bench` prints the table and writes results.json."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc

from agentnet.client import AgentNet
from agentnet.inference.v1 import inference_service_pb2 as pb
from agentnet.inference.v1 import inference_service_pb2_grpc as rpc
from agentnet.inference.v1 import message_pb2
from agentnet.orchestrator.v1 import agent_pb2
from deploy.local.mesh import EmbeddedMesh, Options, embedded_mesh
from deploy.local.state import State
from shared.clock import SystemClock
from shared.identity import HEADER, Principal, Signer

FIRST_TOKEN_CALLS = 200
STREAMS = 16
TOKENS = 2000
SESSIONS = 20
RESULTS = Path(__file__).with_name("results.json")
TICKS = os.sysconf("SC_CLK_TCK")


def request(tokens: int) -> pb.GenerateRequest:
    part = message_pb2.ContentPart(text="measure")
    message = message_pb2.Message(role=message_pb2.ROLE_USER, content=[part])
    return pb.GenerateRequest(model="synthetic", messages=[message], max_output_tokens=tokens)


async def first_token(stub: Any, metadata: Any) -> float:
    """Milliseconds from the call to the first text."""
    began = time.perf_counter()
    call = stub.Generate(request(1), metadata=metadata)
    async for answer in call:
        if answer.event.HasField("text"):
            elapsed = (time.perf_counter() - began) * 1000
    return elapsed


async def drain(stub: Any, metadata: Any) -> int:
    count = 0
    async for answer in stub.Generate(request(TOKENS), metadata=metadata):
        count += answer.event.text.token_count
    return count


def cpu(pid: int) -> float:
    """Seconds of processor time of one process."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / TICKS


def rss(pid: int) -> int:
    """Megabytes resident."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1_000_000


def pids(mesh: EmbeddedMesh) -> dict[str, int]:
    return {part["name"]: part["pid"] for part in mesh.status()["processes"]}


async def measure(mesh: EmbeddedMesh) -> dict[str, Any]:
    state = mesh.plan.state
    token = json.loads((state.folder / "client.json").read_text())["token"]
    edge = (("authorization", f"Bearer {token}"),)
    signer = Signer.from_file("gateway", state.key("gateway.pem"), SystemClock())
    signed = signer.sign(Principal("default", "bench", frozenset({"admin"})), timedelta(hours=1))
    direct = ((HEADER, signed),)
    async with (
        grpc.aio.insecure_channel(mesh.edge) as through,
        grpc.aio.insecure_channel(mesh.plan.address("inference")) as beside,
    ):
        edge_stub, direct_stub = rpc.InferenceServiceStub(through), rpc.InferenceServiceStub(beside)
        for _ in range(20):
            await first_token(edge_stub, edge)
            await first_token(direct_stub, direct)
        with_edge, without = [], []
        for _ in range(FIRST_TOKEN_CALLS):  # side by side, so that drift meets both
            with_edge.append(await first_token(edge_stub, edge))
            without.append(await first_token(direct_stub, direct))
        path = [pids(mesh)[name] for name in ("inference", "envoy")]
        before, began = sum(cpu(pid) for pid in path), time.perf_counter()
        produced = sum(await asyncio.gather(*(drain(edge_stub, edge) for _ in range(STREAMS))))
        elapsed, used = time.perf_counter() - began, sum(cpu(pid) for pid in path) - before
    turns, seconds = await sessions(mesh.edge, token)
    return {
        "first token through the edge, p50 ms": round(statistics.median(with_edge), 2),
        "first token from inference itself, p50 ms": round(statistics.median(without), 2),
        "added by the edge, p50 ms": round(statistics.median(with_edge) - statistics.median(without), 2),
        f"tokens/s, {STREAMS} streams of {TOKENS}": round(produced / elapsed),
        "CPU s per million tokens (inference + Envoy)": round(used / produced * 1_000_000, 1),
        f"turns/s, {SESSIONS} sessions of 2 rounds": round(turns / seconds, 1),
        **{f"RSS MB, {name}": rss(pid) for name, pid in pids(mesh).items()},
    }


async def sessions(edge: str, token: str) -> tuple[int, float]:
    async with AgentNet.connect(edge, credential=token) as client:
        for name in ("BenchA", "BenchB"):
            sampling = agent_pb2.SamplingConfig(max_output_tokens=20)
            agent = agent_pb2.Agent(name=name, system_prompt="b", model="synthetic", sampling=sampling)
            await client.agents.create(agent)

        async def one() -> int:
            session = await client.sessions.start("bench", agents=["BenchA", "BenchB"], max_rounds=2, convergence=False)
            events = [event async for event in client.sessions.watch(session.id)]
            return sum(event.HasField("turn_finished") for event in events)

        began = time.perf_counter()
        turns = sum(await asyncio.gather(*(one() for _ in range(SESSIONS))))
        return turns, time.perf_counter() - began


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with embedded_mesh(Options(State(Path(folder) / "state"))) as mesh:
            measured = await measure(mesh)
    commit = subprocess.run(("git", "rev-parse", "--short", "HEAD"), capture_output=True, text=True, check=True)
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    results = {"machine": machine, "commit": commit.stdout.strip(), "command": "make bench", "measured": measured}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    sys.stdout.write("| what | value |\n|---|---|\n")
    sys.stdout.write("".join(f"| {name} | {value} |\n" for name, value in measured.items()))


if __name__ == "__main__":
    asyncio.run(main())
