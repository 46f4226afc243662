"""The same sessions in LangGraph with its Postgres checkpointer; run by the python of a venv of its own, prints JSON.

Four agents speak in turns, round after round; what they say stands in the state, is checkpointed after each turn, and their
tokens stream to the caller, as they do from a session's log.
"""

from __future__ import annotations

import asyncio
import gc
import json
import operator
import resource
import sys
import time
import uuid
from typing import Annotated, Any, TypedDict

import uvloop
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

POOL = 8


class State(TypedDict):
    said: Annotated[list[str], operator.add]


def agent(tokens: int, gap: float) -> Any:
    async def node(_state: State) -> State:
        write, said, began = get_stream_writer(), [], time.perf_counter()
        for place in range(tokens):
            late = began + (place + 1) * gap - time.perf_counter()
            if late > 0:
                await asyncio.sleep(late)
            write(" word")
            said.append(" word")
        return {"said": ["".join(said)]}

    return node


def session(agents: int, rounds: int, tokens: int, gap: float) -> StateGraph[Any]:
    graph: StateGraph[Any] = StateGraph(State)
    for place in range(agents):
        graph.add_node(f"a{place}", agent(tokens, gap))
        graph.add_edge(f"a{place - 1}" if place else START, f"a{place}")
    over = agents * rounds
    graph.add_conditional_edges(f"a{agents - 1}", lambda state: END if len(state["said"]) >= over else "a0")
    return graph


async def run(graph: Any, tokens: int) -> None:
    config = {"configurable": {"thread_id": uuid.uuid4().hex}, "recursion_limit": 1000}
    heard = 0
    async for _ in graph.astream({"said": []}, config, stream_mode="custom"):
        heard += 1
    if heard != tokens:
        raise RuntimeError(f"tokens were lost: {heard} of {tokens}")


async def sample(memory: list[int]) -> None:
    while True:
        with open("/proc/self/statm") as statm:
            memory.append(int(statm.read().split()[1]) * resource.getpagesize() // 1_000_000)
        await asyncio.sleep(1)


async def main(dsn: str, sessions: int, agents: int, rounds: int, tokens: int, gap: float) -> None:
    options = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
    async with AsyncConnectionPool(dsn, min_size=POOL, max_size=POOL, kwargs=options, timeout=240) as pool:
        saver = AsyncPostgresSaver(pool)
        await saver.setup()
        graph = session(agents, rounds, tokens, gap).compile(checkpointer=saver)
        short = session(agents, 1, 1, 0.0).compile(checkpointer=saver)
        await run(short, agents)
        gc.collect()
        gc.freeze()
        gc.set_threshold(10_000, 20, 20)  # as the services' own
        memory: list[int] = []
        sampling = asyncio.create_task(sample(memory))
        before, began = time.process_time(), time.perf_counter()
        await asyncio.gather(*(run(graph, agents * rounds * tokens) for _ in range(sessions)))
        seconds, spent = time.perf_counter() - began, time.process_time() - before
        sampling.cancel()
    found = {"seconds": seconds, "cpu": spent, "rss_mb": memory}
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    numbers = [int(given) for given in sys.argv[2:6]]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(sys.argv[1], *numbers, float(sys.argv[6])))
