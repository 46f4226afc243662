"""What sessions cost: 500 at once, 4 agents x 4 rounds, a synthetic model at 20 ms a token, on real Postgres and Valkey.

`python -m tests.bench.sessions --langgraph /path/to/venv/bin/python` runs the same load on LangGraph with its Postgres
checkpointer, on the same Postgres, in the same run. That venv is made for the benchmark alone: langgraph,
langgraph-checkpoint-postgres, psycopg[binary,pool], uvloop. So many processes orchestrate in both as --processes says; the
model is part of them and is measured alone too. Garbage is collected in both as rarely as in a started service. Besides the load at 20 ms a token, the same sessions with a model that answers at once show what
orchestration itself takes.
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
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import asyncpg
import psutil
import structlog
import uvloop

from agentnet.orchestrator.v1 import agent_pb2, event_pb2, session_pb2
from services.orchestrator.agents import ACTIVE, Agents
from services.orchestrator.agents.cache import Versions
from services.orchestrator.agents.cache import listen as agents_changed
from services.orchestrator.drivers.postgres import PostgresDriver, draining, listen
from services.orchestrator.drivers.session import SessionDriver
from services.orchestrator.forks.effects import Origins
from services.orchestrator.holds import Holds
from services.orchestrator.leases_postgres import PostgresLeaseStore, Renewal
from services.orchestrator.preparing import Limits
from services.orchestrator.sessions import Sessions
from services.orchestrator.store import Lease
from services.orchestrator.store_postgres import PostgresAgentStore, PostgresSessionStore
from services.orchestrator.tail import RedisTail
from services.orchestrator.toolwork import ToolWork
from services.orchestrator.turns import Turns
from services.orchestrator.watch import Watcher
from shared.clock import SystemClock
from shared.identity import Principal
from shared.ids import RandomIds
from shared.postgres import open_database
from shared.redis import open_redis
from shared.rpc.server import settle
from tests.bench.processes import spent
from tests.bench.sessions_model import AGENTS, ROUNDS, Forgetful, Load, Model, Toolless, Unheld, model_alone
from tests.support.postgres import running_cluster
from tests.support.valkey import free_port, running_valkey

ADA = Principal("bench", "ada", frozenset({"tenant_user"}))
TTL = timedelta(seconds=10)
ROOT = Path(__file__).resolve().parents[2]
_OTHER: Final = "orchestrator "


@dataclass(slots=True)
class Counting:
    """A driver that tells when so many sessions have ended."""

    real: SessionDriver
    left: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def drive(self, lease: Lease, signalled: asyncio.Event) -> None:
        await self.real.drive(lease, signalled)
        self.left -= 1
        if not self.left:
            self.ended.set()


@dataclass(slots=True)
class Result:
    """What one load showed of one side. CPU in seconds; latency in milliseconds a token, to a reader."""

    seconds: float
    cpu: dict[str, float]
    rss_mb: list[int] = field(default_factory=list)
    latency: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Bench:
    """One replica, in this process."""

    sessions: Sessions
    driver: Counting
    model: Model
    processes: dict[str, int]
    admin_dsn: str

    async def run(self, load: Load) -> Result:
        """From the first session's acceptance to the last one's end."""
        self.model.load, self.driver.left = load, load.sessions
        self.model.left_at.clear()
        self.model.watched.clear()
        self.driver.ended.clear()
        before, began, memory = cpu(self.processes), time.perf_counter(), list[int]()
        started = await asyncio.gather(*(self._start() for _ in range(load.sessions)))
        readers = [asyncio.create_task(self._watch(session_id)) for session_id in started[: load.readers]]
        sampling = asyncio.create_task(sample(memory))
        await self._ended(started)
        seconds = time.perf_counter() - began
        after = cpu(self.processes)
        sampling.cancel()
        latency = [late for found in await asyncio.gather(*readers) for late in found]
        await self._check(started, load)
        return Result(seconds, {name: after[name] - before[name] for name in after}, memory, latency)

    async def _ended(self, started: Sequence[str]) -> None:
        """Other replicas drive their part and do not tell."""
        if not any(name.startswith(_OTHER) for name in self.processes):
            await self.driver.ended.wait()
            return
        connection = await asyncpg.connect(self.admin_dsn)
        try:
            count = "select count(*) from orchestrator.session where ended_at is not null and id = any($1)"
            while await connection.fetchval(count, list(started)) < len(started):
                await asyncio.sleep(0.05)
        finally:
            await connection.close()

    async def _start(self) -> str:
        session = session_pb2.Session(
            topic_start="Zero-loss failover", mode="brainstorm", strategy="round_robin", max_rounds=ROUNDS,
            agents=[f"Expert{place}" for place in range(AGENTS)],
        )  # fmt: skip
        return (await self.sessions.start(ADA, session, request_id=None)).id

    async def _watch(self, session_id: str) -> list[float]:
        self.model.watched.add(session_id)
        found: list[float] = []
        async with aclosing(self.sessions.watch(ADA.tenant_id, session_id, after=0)) as entries:
            async for entry in entries:
                now = time.perf_counter()
                event = event_pb2.SessionEvent.FromString(entry.payload if entry else b"")
                if event.HasField("tokens_produced"):
                    tokens = event.tokens_produced
                    count = tokens.generation_sequence
                    places = range(count - tokens.token_count + 1, count + 1)
                    left = (self.model.left_at.get((f"{tokens.turn_id}-1", place)) for place in places)
                    found += [(now - at) * 1000 for at in left if at]
        return found

    async def _check(self, started: Sequence[str], load: Load) -> None:
        for session_id in started:
            session = await self.sessions.find(ADA.tenant_id, session_id)
            expected = (session_pb2.STOP_REASON_MAX_ROUNDS, AGENTS * ROUNDS * load.tokens)
            if (session.stop_reason, session.usage.output_tokens) != expected:
                raise RuntimeError(f"a session went wrong: {session}")


def cpu(processes: dict[str, int]) -> dict[str, float]:
    """Seconds of processor time so far, by part, children included."""
    return {name: spent(pid, alone=name == "orchestrator") for name, pid in processes.items()}


async def sample(memory: list[int]) -> None:
    while True:
        memory.append(psutil.Process().memory_info().rss // 1_000_000)
        await asyncio.sleep(1)


@dataclass(frozen=True, slots=True)
class Where:
    """The stores that all replicas share."""

    dsn: str
    driver_dsn: str
    redis_url: str
    admin_dsn: str


@asynccontextmanager
async def others(where: Where, load: Load, number: int) -> AsyncIterator[dict[str, int]]:
    """So many replicas beside this process, by name; they are gone at the end of the block."""
    given = json.dumps([asdict(where), asdict(load)])
    command = (sys.executable, "-m", "tests.bench.sessions", "--replica", given)
    started = [subprocess.Popen((*command, str(place)), cwd=ROOT, stdout=subprocess.PIPE) for place in range(number)]
    try:
        for one in started:
            if one.stdout is None or not await asyncio.to_thread(one.stdout.readline):
                raise RuntimeError("a replica did not start")
        yield {f"{_OTHER}{place}": one.pid for place, one in enumerate(started)}
    finally:
        for one in started:
            one.kill()
            one.wait()


async def beside(where: Where, load: Load, name: str) -> None:
    """A replica in a process of its own, until it is killed."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    async with replica(where, {}, name) as bench:
        settle()
        bench.model.load = load
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


@asynccontextmanager
async def replica(where: Where, processes: dict[str, int], name: str = "bench") -> AsyncIterator[Bench]:
    clock, ids, model = SystemClock(), RandomIds(), Model(Load(1, 1, 0))
    async with (
        open_database(where.dsn, pool=8, stateless=True) as database,
        open_database(where.driver_dsn, pool=2) as leases,
        open_redis(where.redis_url) as redis,
    ):
        store, tail = PostgresSessionStore(database, log_key=b"bench"), RedisTail(redis, ttl=timedelta(minutes=5))
        experts = [agent_pb2.Agent(name=f"Expert{place}", version="1.0.0", state=ACTIVE) for place in range(AGENTS)]
        agent_store = PostgresAgentStore(database)
        versions = Versions(agent_store, clock)
        agents = Agents(agent_store, experts, clock=clock, ids=ids, versions=versions)
        tools = ToolWork(Toolless(), Origins(store), clock, Holds(Unheld()))
        turns = Turns(
            agents=agents, inference=model, memory=Forgetful(), tools=tools,
            clock=clock, ids=ids, limits=Limits(96),
        )  # fmt: skip
        counting = Counting(SessionDriver(store, tail, turns, clock, max_takeovers=5))
        driver = PostgresDriver(PostgresLeaseStore(leases), counting, name, TTL, timedelta(milliseconds=500), 500)
        watcher = Watcher(store, tail, poll=timedelta(milliseconds=500))
        sessions = Sessions(store, agents, watcher, clock, ids, timedelta(seconds=10))
        with Renewal(where.driver_dsn, name, ttl=TTL, driven=driver.driven):
            async with draining(driver):
                hearing = listen(where.driver_dsn, driver), agents_changed(where.dsn, versions), tail.listen()
                work = (driver.claim(), *hearing)
                background = [asyncio.create_task(one) for one in work]
                try:
                    yield Bench(sessions, counting, model, processes, where.admin_dsn)
                finally:
                    for task in background:
                        task.cancel()
                    await asyncio.gather(*background, return_exceptions=True)


def theirs(python: str, dsns: Sequence[str], load: Load, postgres: int) -> Result:
    """Each process has its part of the sessions, in a database of its own; what took longest counts."""
    script = str(ROOT / "tests/bench/sessions_langgraph.py")
    given: dict[str, Any] = {"sessions": load.sessions // len(dsns), "agents": AGENTS, "rounds": ROUNDS}
    given |= {"tokens": load.tokens, "gap": load.gap}
    before = cpu({"postgres": postgres})
    told = [json.dumps(given | {"dsn": dsn}) for dsn in dsns]
    working = [subprocess.Popen((python, script, one), stdout=subprocess.PIPE, text=True) for one in told]
    found = [json.loads(one.communicate()[0]) for one in working]
    spent = cpu({"postgres": postgres})["postgres"] - before["postgres"]
    seconds, own = max(one["seconds"] for one in found), sum(one["cpu"] for one in found)
    return Result(seconds, {"orchestrator": own, "postgres": spent}, found[0]["rss_mb"])


async def database(cluster: Any, name: str) -> str:
    """A database of its own for a process of the other side."""
    admin = await asyncpg.connect(cluster.dsn("postgres"))
    try:
        await admin.execute(f"create database {name}")
    finally:
        await admin.close()
    return str(cluster.dsn("postgres", database=name))


def listening_pid(port: int) -> int:
    """The process that listens on a port."""
    found = (one.pid for one in psutil.net_connections("tcp") if one.status == "LISTEN" and one.laddr.port == port)
    return next(int(pid) for pid in found if pid)


async def main(python: str | None, loads: Sequence[Load], number: int = 1) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory() as folder:
        state, port = Path(folder), free_port()
        state.chmod(0o755)
        (state / "valkey").mkdir()
        with running_cluster(state / "pg") as cluster, running_valkey(state / "valkey", port) as redis_url:
            other = [await database(cluster, f"langgraph{place}") for place in range(number)] if python else []
            postgres = listening_pid(cluster.port)
            processes = {"orchestrator": psutil.Process().pid, "postgres": postgres, "redis": listening_pid(port)}
            dsns = (cluster.dsn("orchestrator"), cluster.dsn("orchestrator_driver"))
            where = Where(*dsns, redis_url, cluster.dsn("postgres"))
            async with replica(where, processes) as bench:
                await bench.run(Load(4, 2, 0))
                settle()
                _head()
                for load in loads:
                    alone = await model_alone(load)
                    async with others(where, load, number - 1) as running:
                        bench.processes = processes | running
                        _print("agentnet", load, await bench.run(load), alone)
                    if python and not load.readers:
                        found = await asyncio.to_thread(theirs, python, other, load, postgres)
                        _print("LangGraph + Postgres", load, found, alone)


def _head() -> None:
    sys.stdout.write(
        "| load | side | seconds | over model time | sessions/s | CPU ms a turn: orchestrator, model aside / Postgres / Redis"
        " | RSS MB first, most | token to reader p50 / p99 ms |\n|---|---|---|---|---|---|---|---|\n"
    )


def _print(side: str, load: Load, found: Result, alone: float) -> None:
    over = f"{(found.seconds / load.model_seconds - 1) * 100:.1f} %" if load.gap else "-"
    own = sum(spent for name, spent in found.cpu.items() if name.startswith("orchestrator")) - alone
    spent = " / ".join(
        f"{one / load.turns * 1000:.2f}" for one in (own, found.cpu["postgres"], found.cpu.get("redis", 0))
    )
    late = sorted(found.latency)
    latency = f"{statistics.median(late):.2f} / {late[int(len(late) * 0.99)]:.2f}" if late else "-"
    what = f"{load.sessions} x {AGENTS} agents x {ROUNDS} rounds x {load.tokens} tokens, {load.gap * 1000:.0f} ms"
    what += f", {load.readers} read" if load.readers else ""
    memory = f"{found.rss_mb[0]}, {max(found.rss_mb)}"
    sys.stdout.write(
        f"| {what} | {side} | {found.seconds:.2f} | {over} | {load.sessions / found.seconds:.1f} | {spent} | {memory} | {latency} |\n"
    )
    sys.stdout.flush()


def loads(sessions: int, tokens: int) -> list[Load]:
    """The load itself, watched in part, lightly, and with a model that answers at once."""
    return [
        Load(sessions, tokens, 0.02),
        Load(sessions, tokens, 0.0),
        Load(sessions, 1, 0.0),
        Load(sessions // 25, tokens, 0.02, readers=sessions // 25),
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--langgraph", help="the python of a venv that has LangGraph")
    parser.add_argument("--sessions", type=int, default=500)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--processes", type=int, default=1, help="that orchestrate, of each side")
    parser.add_argument("--replica", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if given.replica:
            where, load = json.loads(given.replica[0])
            runner.run(beside(Where(**where), Load(**load), f"bench {given.replica[1]}"))
        else:
            runner.run(main(given.langgraph, loads(given.sessions, given.tokens), given.processes))
