"""Sessions with a model behind HTTP: the whole mesh beside LangGraph and langchain-openai, on one model server, in one run.

`python -m tests.bench.sessions_mesh [--langgraph PYTHON]`: 500 sessions of 4 agents and 4 rounds begun over gRPC at the edge,
32 tokens a turn at 20 ms a token from `tests/bench/upstream.py`. agentnet runs as `agentnet up` has it, policy, money and log
included; what it does beyond, searching memory before a turn and keeping an episode after it, is off unless `--memory`. LangGraph
runs in one process and in two, each with a pool of connections to a Postgres with the same settings. That
venv has langgraph, langgraph-checkpoint-postgres, langchain-openai, openai[aiohttp], psycopg[binary,pool], uvloop. Tokens are
counted on both sides, and one that is lost fails the run. `--seconds 240` has agentnet alone keep that many sessions running
and fails when memory grows.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import asyncpg
import grpc
import uvloop

from agentnet.orchestrator.v1 import agent_pb2, agent_service_pb2, agent_service_pb2_grpc, session_pb2
from agentnet.orchestrator.v1 import session_service_pb2 as pb
from agentnet.orchestrator.v1 import session_service_pb2_grpc as rpc
from deploy.local.mesh import EmbeddedMesh
from tests.bench.processes import parts, resident, spent, spent_by_part
from tests.bench.sessions import database, listening_pid
from tests.bench.sessions_model import AGENTS, ROUNDS
from tests.bench.streaming import MODEL, mesh_of, process
from tests.support.postgres import running_cluster
from tests.support.valkey import free_port

ROOT: Final = Path(__file__).resolve().parents[2]
CONNECTIONS: Final = 4
POLL_SECONDS: Final = 0.1
SAMPLES_SECONDS: Final = 1.0
_SAMPLES: Final = 24
_REST_SECONDS: Final = 5.0
FLAT: Final = 1.05
# What has no part in a session, and what all share.
_APART: Final = ("model", "forkserver", "evaluation", "tools")


@dataclass(frozen=True, slots=True)
class Load:
    """So many sessions at once, so many tokens a turn, so many seconds between two; whether somebody reads each session."""

    sessions: int
    tokens: int
    gap: float
    read: bool

    @property
    def turns(self) -> int:
        return self.sessions * AGENTS * ROUNDS

    @property
    def tokens_a_session(self) -> int:
        return AGENTS * ROUNDS * self.tokens

    @property
    def model_seconds(self) -> float:
        """What the model takes for a session's turns; it gives the first token at once."""
        return AGENTS * ROUNDS * (self.tokens - 1) * self.gap

    @property
    def stream(self) -> str:
        """LangGraph's mode of streaming."""
        return "custom" if self.read else ""

    @property
    def topic(self) -> str:
        return f"Zero-loss failover, tokens={self.tokens} gap_ms={self.gap * 1000:.0f}"


@dataclass(slots=True)
class Result:
    """What a load showed of one side: processor seconds and megabytes by process; what it would have cost to do nothing."""

    seconds: float
    cpu: dict[str, float]
    idle: float = 0.0
    rss: dict[str, list[int]] = field(default_factory=dict)


@dataclass(slots=True)
class Mesh:
    """A running mesh and its callers."""

    mesh: EmbeddedMesh
    stubs: Sequence[Any]
    metadata: tuple[tuple[str, str], ...]
    database: asyncpg.Connection[Any]
    idle: float = 0.0

    async def rest(self) -> None:
        """Sees what the mesh costs a second while nothing is asked of it."""
        before, began = spent_by_part(self.mesh), time.perf_counter()
        await asyncio.sleep(_REST_SECONDS)
        after = spent_by_part(self.mesh)
        used = sum(after[name] - before[name] for name in after if name not in _APART)
        self.idle = used / (time.perf_counter() - began)

    async def run(self, load: Load) -> Result:
        """From the first session's start to the last one's end."""
        memory: dict[str, list[int]] = {name: [] for name in parts(self.mesh)}
        before, began = spent_by_part(self.mesh), time.perf_counter()
        sampling = asyncio.create_task(sample(parts(self.mesh), memory))
        started = await asyncio.gather(*(self._start(load, place) for place in range(load.sessions)))
        if load.read:
            heard = await asyncio.gather(*(self.tokens(one, place) for place, one in enumerate(started)))
        else:
            await self._ended(started)
        seconds = time.perf_counter() - began
        after = spent_by_part(self.mesh)
        sampling.cancel()
        if not load.read:
            heard = await asyncio.gather(*(self.tokens(one, place) for place, one in enumerate(started)))
        expect(heard, load)
        used = {name: after[name] - before[name] for name in after}
        return Result(seconds, used, self.idle * seconds, memory)

    async def one_after_another(self, load: Load, place: int, *, until: float) -> int:
        """A caller that has a session running all the time; how many there were."""
        count = 0
        while time.monotonic() < until:
            expect([await self.tokens(await self._start(load, place), place)], load)
            count += 1
        return count

    async def _start(self, load: Load, place: int) -> str:
        request = pb.StartSessionRequest(
            topic=load.topic, mode="brainstorm", strategy="round_robin", max_rounds=ROUNDS, convergence=False,
            agents=[f"Expert{agent}" for agent in range(AGENTS)],
        )  # fmt: skip
        stub = self.stubs[place % len(self.stubs)]
        return str((await stub.StartSession(request, metadata=self.metadata)).session.id)

    async def _ended(self, started: Sequence[str]) -> None:
        count = "select count(*) from orchestrator.session where ended_at is not null and id = any($1)"
        while await self.database.fetchval(count, list(started)) < len(started):
            await asyncio.sleep(POLL_SECONDS)

    async def tokens(self, session_id: str, place: int) -> int:
        """Of its whole log, read to the end. Raises RuntimeError when it ended before its last round."""
        count, stub = 0, self.stubs[place % len(self.stubs)]
        request = pb.WatchSessionRequest(session_id=session_id)
        async for answer in stub.WatchSession(request, metadata=self.metadata):
            count += answer.event.tokens_produced.token_count
            if answer.event.HasField("session_finished"):
                session = answer.event.session_finished.session
                if session.stop_reason != session_pb2.STOP_REASON_MAX_ROUNDS:
                    raise RuntimeError(f"a session went wrong: {session}")
        return count


def expect(heard: Sequence[int], load: Load) -> None:
    if wrong := [count for count in heard if count != load.tokens_a_session]:
        raise RuntimeError(f"{len(wrong)} sessions lost tokens: {wrong[0]} of {load.tokens_a_session}")


async def sample(pids: dict[str, int], memory: dict[str, list[int]], seconds: float = SAMPLES_SECONDS) -> None:
    while True:
        for name, pid in pids.items():
            memory[name].append(resident(pid))
        await asyncio.sleep(seconds)


@asynccontextmanager
async def meshed(upstream: int) -> AsyncIterator[Mesh]:
    """A mesh whose model is the server at this port, with its agents."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        mesh, _ = await mesh_of(stack, folder, upstream)
        token = json.loads((mesh.plan.state.folder / "client.json").read_text())["token"]
        metadata, stubs = (("authorization", f"Bearer {token}"),), []
        for number in range(CONNECTIONS):
            options = [("grpc.use_local_subchannel_pool", 1), ("agentnet.connection", number)]
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(mesh.edge, options=options))
            stubs.append(rpc.SessionServiceStub(channel))
        agents = agent_service_pb2_grpc.AgentServiceStub(channel)
        for place in range(AGENTS):
            sampling = agent_pb2.SamplingConfig(max_output_tokens=96)
            prompt = f"You are Expert{place}, and you answer in two or three plain sentences."
            agent = agent_pb2.Agent(name=f"Expert{place}", system_prompt=prompt, model=MODEL, sampling=sampling)
            await agents.CreateAgent(agent_service_pb2.CreateAgentRequest(agent=agent), metadata=metadata)
        database = await asyncpg.connect(mesh.plan.cluster.dsn("postgres"))
        stack.push_async_callback(database.close)
        found = Mesh(mesh, stubs, metadata, database)
        await found.run(Load(4, 2, 0.0, read=True))
        await found.rest()
        yield found


async def langgraph(python: str, load: Load, url: str, *, number: int) -> Result:
    """So many processes, each with its part of the sessions and a database of its own; what took longest counts.

    Read, tokens reach the caller as its nodes write them (stream mode "custom"); unread, the model is asked without a stream and
    the caller waits for the end.
    """
    given: dict[str, Any] = {
        "sessions": load.sessions // number,
        "agents": AGENTS,
        "rounds": ROUNDS,
        "tokens": load.tokens,
    }
    given |= {"gap": load.gap, "url": url, "stream": load.stream}
    script = str(ROOT / "tests/bench/sessions_langgraph.py")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with running_cluster(Path(folder) / "pg") as cluster:
            dsns = [await database(cluster, f"langgraph{place}") for place in range(number)]
            postgres = listening_pid(cluster.port)
            before = spent(postgres)
            told = [json.dumps(given | {"dsn": dsn}) for dsn in dsns]
            ran = [await asyncio.create_subprocess_exec(python, script, one, stdout=PIPE) for one in told]
            found = [json.loads((await one.communicate())[0]) for one in ran]
            used = spent(postgres) - before
    memory = {f"process {place}": one["rss_mb"] for place, one in enumerate(found)}
    cpu = {"langgraph": sum(one["cpu"] for one in found), "postgres": used}
    return Result(max(one["seconds"] for one in found), cpu, rss=memory)


def head() -> None:
    sys.stdout.write(
        "| load | side | seconds | over model time | sessions/s | CPU ms a turn, model server aside | RSS MB first, most |\n"
        "|---|---|---|---|---|---|---|\n"
    )


def show(side: str, load: Load, found: Result) -> None:
    over = f"{(found.seconds / load.model_seconds - 1) * 100:.0f} %" if load.gap else "-"
    each = {name: used / load.turns * 1000 for name, used in found.cpu.items() if name not in _APART}
    split = ", ".join(f"{name} {ms:.2f}" for name, ms in sorted(each.items(), key=lambda one: -one[1]))
    held = [sum(megabytes) for megabytes in zip(*found.rss.values(), strict=False)]
    what = f"{load.sessions} x {load.tokens} tokens, {load.gap * 1000:.0f} ms, {'read' if load.read else 'unread'}"
    sys.stdout.write(
        f"| {what} | {side} | {found.seconds:.2f} | {over} | {load.sessions / found.seconds:.2f} "
        f"| {sum(each.values()):.2f}, idle {found.idle / load.turns * 1000:.2f}: {split} | {held[0]}, {max(held)} |\n"
    )
    sys.stdout.flush()


async def side_by_side(asked: argparse.Namespace, upstream: int) -> None:
    """Takes turns, so that drift meets both."""
    head()
    url = f"http://127.0.0.1:{upstream}/v1"
    loads = [Load(asked.sessions, asked.tokens, 0.02, read=False), Load(asked.sessions, asked.tokens, 0.02, read=True)]
    for _ in range(asked.rounds):
        for load in loads:
            async with meshed(upstream) as mesh:
                ours = await mesh.run(load)
            show("agentnet", load, ours)
            for number in (1, 2) if asked.langgraph else ():
                theirs = await langgraph(asked.langgraph, load, url, number=number)
                show(f"LangGraph, {number} process{'es' * (number > 1)}", load, theirs)
                sys.stdout.write(f"{theirs.seconds / ours.seconds:.2f} times its sessions/s\n")


async def soak(asked: argparse.Namespace, upstream: int) -> None:
    """So many sessions running all the time. Raises RuntimeError when a process's memory grows."""
    load, memory = Load(asked.sessions, asked.tokens, 0.02, read=True), dict[str, list[int]]()
    async with meshed(upstream) as mesh:
        pids = {name: pid for name, pid in parts(mesh.mesh).items() if name not in _APART}
        until = time.monotonic() + asked.seconds
        memory |= {name: [] for name in pids}
        sampling = asyncio.create_task(sample(pids, memory, asked.seconds / _SAMPLES))
        callers = (mesh.one_after_another(load, place, until=until) for place in range(load.sessions))
        ended = sum(await asyncio.gather(*callers))
        sampling.cancel()
    sys.stdout.write(f"{ended} sessions without an error, {asked.sessions} at once for {asked.seconds:.0f} s\n")
    sys.stdout.write(f"| process | RSS MB, every {asked.seconds / _SAMPLES:.0f} s |\n|---|---|\n")
    for name, held in memory.items():
        sys.stdout.write(f"| {name} | {' '.join(map(str, held))} |\n")
    for name in ("orchestrator", "inference"):
        quarter = len(memory[name]) // 4
        began, last = statistics.mean(memory[name][quarter : 2 * quarter]), statistics.mean(memory[name][-quarter:])
        if last > began * FLAT:
            raise RuntimeError(f"{name} grows: {began:.0f} MB in the second quarter, {last:.0f} in the last")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--langgraph", default="", help="the python of a venv that has LangGraph")
    parser.add_argument("--sessions", type=int, default=500)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=1, help="of each load, in turns")
    parser.add_argument("--seconds", type=float, default=0, help="how long to keep the sessions running, alone")
    parser.add_argument("--memory", action="store_true", help="with what agentnet searches and keeps by itself")
    asked = parser.parse_args()
    automatic = str(asked.memory).lower()
    os.environ |= {f"AGENTNET_MEMORY_AUTOMATIC_{name}": automatic for name in ("CONTEXT", "EPISODES")}
    upstream = free_port()
    async with process(sys.executable, "-m", "tests.bench.upstream", str(upstream), port=upstream):
        await (soak if asked.seconds else side_by_side)(asked, upstream)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
