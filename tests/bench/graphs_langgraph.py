"""The same graphs in LangGraph with its Postgres checkpointer; run by the python of a venv of its own, prints JSON."""

from __future__ import annotations

import asyncio
import json
import operator
import sys
import time
import uuid
from collections.abc import Coroutine
from typing import Annotated, Any, TypedDict

import uvloop
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import END, START, StateGraph
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

LAYERS = (1, 16, 16, 16, 1)
POOL = 16


class State(TypedDict):
    said: Annotated[list[str], operator.add]


def answer(seconds: float) -> Any:
    async def node(_state: State) -> State:
        if seconds:
            await asyncio.sleep(seconds)
        return {"said": ["done"]}

    return node


def chain(count: int) -> StateGraph[Any]:
    graph: StateGraph[Any] = StateGraph(State)
    for place in range(count):
        graph.add_node(f"n{place}", answer(0))
        graph.add_edge(f"n{place - 1}" if place else START, f"n{place}")
    graph.add_edge(f"n{count - 1}", END)
    return graph


def layered() -> StateGraph[Any]:
    graph: StateGraph[Any] = StateGraph(State)
    before: list[str] = []
    for layer, width in enumerate(LAYERS):
        names = [f"l{layer}n{place}" for place in range(width)]
        for name in names:
            graph.add_node(name, answer(0.02))
            graph.add_edge(before or START, name) if before else graph.add_edge(START, name)
        before = names
    graph.add_edge(before[0], END)
    return graph


async def timed(graph: Any, times: int) -> float:
    began = time.perf_counter()
    runs = (
        graph.ainvoke({"said": []}, {"configurable": {"thread_id": uuid.uuid4().hex}, "recursion_limit": 1000})
        for _ in range(times)
    )
    await asyncio.gather(*runs)
    return time.perf_counter() - began


async def many(sessions: int, timing: Coroutine[Any, Any, float]) -> dict[str, float]:
    """Steps a second, and what one costs this process."""
    began = time.process_time()
    seconds = await timing
    cpu = time.process_time() - began
    return {"steps_per_second": sessions * 4 / seconds, "cpu_ms": cpu / (sessions * 4) * 1e3}


async def main(dsn: str, sessions: int) -> None:
    options = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
    async with AsyncConnectionPool(dsn, min_size=POOL, max_size=POOL, kwargs=options, timeout=120) as pool:
        saver = AsyncPostgresSaver(pool)
        await saver.setup()
        long, short, wide = (graph.compile(checkpointer=saver) for graph in (chain(100), chain(4), layered()))
        await timed(short, 1)
        found = {
            "sequential_ms": await timed(long, 1) / 100 * 1e3,
            **await many(sessions, timed(short, sessions)),
            "fan_out_ms": await timed(wide, 1) * 1e3,
            "twenty_fan_outs_ms": await timed(wide, 20) * 1e3,
        }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(sys.argv[1], int(sys.argv[2])))
