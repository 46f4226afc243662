"""What sessions cost: 500 at once, 4 agents x 4 rounds, a synthetic model at 20 ms a token, on real Postgres and Valkey.

`python -m tests.bench.sessions --langgraph /path/to/venv/bin/python` runs the same load on LangGraph with its Postgres
checkpointer, on the same Postgres, in the same run. That venv is made for the benchmark alone: langgraph,
langgraph-checkpoint-postgres, psycopg[binary,pool], uvloop. One process orchestrates in both; the model is part of it and is
measured alone too. Besides the load at 20 ms a token, the same sessions with a model that answers at once show what
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
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import asyncpg
import psutil
import structlog
import uvloop

from agentnet.inference.v1 import generation_pb2, message_pb2
from agentnet.orchestrator.v1 import agent_pb2, event_pb2, session_pb2
from services.orchestrator.agents import ACTIVE, Agents
from services.orchestrator.drivers.postgres import PostgresDriver, draining, listen
from services.orchestrator.drivers.session import SessionDriver
from services.orchestrator.forks.effects import Origins
from services.orchestrator.leases_postgres import PostgresLeaseStore, Renewal
from services.orchestrator.peers import ToolAnswer, TurnMemory, Utterance
from services.orchestrator.preparing import Limits
from services.orchestrator.sessions import Sessions
from services.orchestrator.speech import Call
from services.orchestrator.store import Lease
from services.orchestrator.store_postgres import PostgresAgentStore, PostgresSessionStore
from services.orchestrator.tail import RedisTail
from services.orchestrator.toolwork import ToolWork
from services.orchestrator.turns import Turns
from services.orchestrator.watch import Watcher
from shared.clock import SystemClock
from shared.errors import NotFound, Reason
from shared.identity import Principal
from shared.ids import RandomIds
from shared.postgres import open_database
from shared.redis import open_redis
from tests.support.postgres import running_cluster
from tests.support.valkey import free_port, running_valkey

ADA = Principal("bench", "ada", frozenset({"tenant_user"}))
TTL = timedelta(seconds=10)
ROOT = Path(__file__).resolve().parents[2]
AGENTS: Final = 4
ROUNDS: Final = 4
_WORD: Final = " word"


@dataclass(frozen=True, slots=True)
class Load:
    """So many sessions at once, so many tokens a turn, so many seconds between two. `readers` sessions are watched."""

    sessions: int
    tokens: int
    gap: float
    readers: int = 0

    @property
    def turns(self) -> int:
        return self.sessions * AGENTS * ROUNDS

    @property
    def model_seconds(self) -> float:
        """What one session waits for the model at least."""
        return AGENTS * ROUNDS * self.tokens * self.gap


async def words(load: Load) -> AsyncGenerator[int, None]:
    """Tokens by the clock: one that is late is followed at once, as a model server's are."""
    began = time.perf_counter()
    for place in range(load.tokens):
        late = began + (place + 1) * load.gap - time.perf_counter()
        if late > 0:
            await asyncio.sleep(late)
        yield place


@dataclass(slots=True)
class Model:
    """Speaks at its pace and notes when each token left it, by session and turn's place in it."""

    load: Load
    left_at: dict[tuple[str, int], float] = field(default_factory=dict)
    watched: set[str] = field(default_factory=set)

    async def generate(self, caller: Principal, utterance: Utterance) -> AsyncGenerator[Any, None]:
        watched = utterance.session_id in self.watched
        async for place in words(self.load):
            if watched:
                self.left_at[utterance.generation_id, place + 1] = time.perf_counter()
            text = generation_pb2.TextProduced(text=_WORD, token_count=1)
            yield generation_pb2.GenerationEvent(sequence=place + 1, text=text)
        finished = generation_pb2.GenerationFinished()
        finished.usage.output_tokens = self.load.tokens
        yield generation_pb2.GenerationEvent(sequence=self.load.tokens + 1, finished=finished)

    async def attach(self, caller: Principal, generation_id: str, *, after: int) -> AsyncGenerator[Any, None]:
        async for event in self.generate(caller, None):  # type: ignore[arg-type] # nothing breaks here
            yield event

    async def cancel(self, caller: Principal, generation_id: str) -> None:
        return None

    async def embed(self, caller: Principal, texts: Sequence[str]) -> list[Sequence[float]]:
        return [(1.0,) for _ in texts]

    async def context_tokens(self, caller: Principal, model: str) -> int:
        return 0


class Toolless:
    """Has no tools."""

    async def describe(self, caller: Principal, names: Sequence[str]) -> tuple[message_pb2.ToolDefinition, ...]:
        return ()

    async def invoke(self, caller: Principal, call: Call, **_: Any) -> ToolAnswer:
        raise NotFound(f"there is no tool {call.tool}", reason=Reason.ERROR_REASON_TOOL_NOT_FOUND)

    async def stream(self, caller: Principal, call: Call, **_: Any) -> AsyncGenerator[Any, None]:
        yield await self.invoke(caller, call)


class Forgetful:
    """A memory that knows nothing."""

    async def recall(self, caller: Principal, **_: Any) -> TurnMemory:
        return TurnMemory()

    async def append(self, caller: Principal, **_: Any) -> None:
        return None


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
        await self.driver.ended.wait()
        seconds = time.perf_counter() - began
        after = cpu(self.processes)
        sampling.cancel()
        latency = [late for found in await asyncio.gather(*readers) for late in found]
        await self._check(started, load)
        return Result(seconds, {name: after[name] - before[name] for name in after}, memory, latency)

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
    spent = {}
    for name, pid in processes.items():
        process = psutil.Process(pid)
        own = [process, *process.children(recursive=True)] if name != "orchestrator" else [process]
        times = [one.cpu_times() for one in own]
        ended = process.cpu_times().children_user + process.cpu_times().children_system if name == "postgres" else 0.0
        spent[name] = sum(one.user + one.system for one in times) + ended
    return spent


async def sample(memory: list[int]) -> None:
    while True:
        memory.append(psutil.Process().memory_info().rss // 1_000_000)
        await asyncio.sleep(1)


async def model_alone(load: Load) -> float:
    """CPU seconds of the model itself: what neither side can be blamed for."""

    async def session() -> None:
        for _ in range(AGENTS * ROUNDS):
            async for _place in words(load):
                generation_pb2.TextProduced(text=_WORD, token_count=1)

    began = time.process_time()
    await asyncio.gather(*(session() for _ in range(load.sessions)))
    return time.process_time() - began


@asynccontextmanager
async def replica(dsn: str, driver_dsn: str, redis_url: str, processes: dict[str, int]) -> AsyncIterator[Bench]:
    clock, ids, model = SystemClock(), RandomIds(), Model(Load(1, 1, 0))
    async with (
        open_database(dsn, pool=8, stateless=True) as database,
        open_database(driver_dsn, pool=2) as leases,
        open_redis(redis_url) as redis,
    ):
        store, tail = PostgresSessionStore(database, log_key=b"bench"), RedisTail(redis, ttl=timedelta(minutes=5))
        experts = [agent_pb2.Agent(name=f"Expert{place}", version="1.0.0", state=ACTIVE) for place in range(AGENTS)]
        agents = Agents(PostgresAgentStore(database), experts, clock=clock, ids=ids)
        turns = Turns(
            agents=agents, inference=model, memory=Forgetful(), tools=ToolWork(Toolless(), Origins(store), clock),
            clock=clock, ids=ids, limits=Limits(96),
        )  # fmt: skip
        counting = Counting(SessionDriver(store, tail, turns, clock, max_takeovers=5))
        driver = PostgresDriver(PostgresLeaseStore(leases), counting, "bench", TTL, timedelta(milliseconds=500), 500)
        watcher = Watcher(store, tail, poll=timedelta(milliseconds=500))
        sessions = Sessions(store, agents, watcher, clock, ids, timedelta(seconds=10))
        with Renewal(driver_dsn, "bench", ttl=TTL, driven=driver.driven):
            async with draining(driver):
                work = (driver.claim(), listen(driver_dsn, driver), tail.listen())
                background = [asyncio.create_task(one) for one in work]
                try:
                    yield Bench(sessions, counting, model, processes)
                finally:
                    for task in background:
                        task.cancel()
                    await asyncio.gather(*background, return_exceptions=True)


def theirs(python: str, dsn: str, load: Load, postgres: int) -> Result:
    script = str(ROOT / "tests/bench/sessions_langgraph.py")
    command = (python, script, dsn, *map(str, (load.sessions, AGENTS, ROUNDS, load.tokens, load.gap)))
    before = cpu({"postgres": postgres})
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    spent = cpu({"postgres": postgres})["postgres"] - before["postgres"]
    return Result(found["seconds"], {"orchestrator": found["cpu"], "postgres": spent}, found["rss_mb"])


async def database(cluster: Any) -> str:
    """A database of its own for the other side."""
    admin = await asyncpg.connect(cluster.dsn("postgres"))
    try:
        await admin.execute("create database langgraph")
    finally:
        await admin.close()
    return str(cluster.dsn("postgres", database="langgraph"))


def listening_pid(port: int) -> int:
    """The process that listens on a port."""
    found = (one.pid for one in psutil.net_connections("tcp") if one.status == "LISTEN" and one.laddr.port == port)
    return next(int(pid) for pid in found if pid)


async def main(python: str | None, loads: Sequence[Load]) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory() as folder:
        state, port = Path(folder), free_port()
        state.chmod(0o755)
        (state / "valkey").mkdir()
        with running_cluster(state / "pg") as cluster, running_valkey(state / "valkey", port) as redis_url:
            other = await database(cluster) if python else ""
            postgres = listening_pid(cluster.port)
            processes = {"orchestrator": psutil.Process().pid, "postgres": postgres, "redis": listening_pid(port)}
            async with replica(
                cluster.dsn("orchestrator"), cluster.dsn("orchestrator_driver"), redis_url, processes
            ) as bench:
                await bench.run(Load(4, 2, 0))
                _head()
                for load in loads:
                    alone = await model_alone(load)
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
    own = found.cpu["orchestrator"] - alone
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
    given = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(given.langgraph, loads(given.sessions, given.tokens)))
