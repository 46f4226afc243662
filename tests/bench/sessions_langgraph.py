"""The same sessions in LangGraph with its Postgres checkpointer; run by the python of a venv of its own, prints JSON.

Four agents speak in turns, round after round; what they say stands in the state, is checkpointed after each turn, and their
tokens stream to the caller, as they do from a session's log. With a `url` a model behind it speaks, through langchain-openai,
prompted in the words agentnet's agents are; without one the agents speak by the clock themselves.
"""

from __future__ import annotations

import asyncio
import gc
import json
import operator
import os
import resource
import sys
import time
import uuid
from dataclasses import dataclass, replace
from typing import Annotated, Any, TypedDict

import uvloop
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

POOL = 8
SUMMARY_CHARACTERS = 1_200  # of earlier rounds in a prompt


@dataclass(frozen=True)
class Load:
    """What is asked for. `stream` is the mode a caller reads the model's tokens in; empty: it waits for the end alone."""

    dsn: str
    sessions: int
    agents: int
    rounds: int
    tokens: int
    gap: float
    url: str = ""
    stream: str = "custom"

    @property
    def topic(self) -> str:
        return f"Zero-loss failover, tokens={self.tokens} gap_ms={self.gap * 1000:.0f}"


class State(TypedDict):
    said: Annotated[list[str], operator.add]


def by_the_clock(load: Load) -> Any:
    async def node(_state: State) -> State:
        write, said, began = get_stream_writer(), [], time.perf_counter()
        for place in range(load.tokens):
            late = began + (place + 1) * load.gap - time.perf_counter()
            if late > 0:
                await asyncio.sleep(late)
            write(" word")
            said.append(" word")
        return {"said": ["".join(said)]}

    return node


def chat_model(load: Load) -> Any:
    """As its documentation has it for many calls at once: OpenAI's client on aiohttp with a pool as large as the load, no
    tracing, and no timer for each chunk.
    """
    import httpx2
    from langchain_openai import ChatOpenAI
    from openai import DefaultAioHttpClient

    limits = httpx2.Limits(max_connections=2 * load.sessions, max_keepalive_connections=2 * load.sessions)
    client = DefaultAioHttpClient(limits=limits)
    streaming = {"stream_usage": True, "stream_chunk_timeout": None} if load.stream else {"disable_streaming": True}
    return ChatOpenAI(
        model="gpt-4o-mini", api_key="sk-bench", base_url=load.url, http_async_client=client, max_tokens=96, **streaming
    )


def prompt(load: Load, place: int, said: list[str]) -> list[tuple[str, str]]:
    number = len(said) // load.agents + 1
    lines = [f"Expert{at % load.agents}: {text.strip()}" for at, text in enumerate(said)]
    own = len(said) - load.agents
    parts = []
    if own > 0:
        parts.append("Said in earlier rounds, in short:\n" + "\n".join(lines[:own])[:SUMMARY_CHARACTERS])
    if own >= 0:
        parts.append(f"You said last:\n{said[own].strip()}")
    if new := lines[max(own + 1, 0) :]:
        parts.append(("New since then" if own >= 0 else "Said so far") + ":\n" + "\n".join(new))
    asked = "Give your idea." if number == 1 else "Improve the ideas above with one new, concrete point."
    parts.append(f"The topic is: {load.topic}. {asked}")
    told = f"You are in a brainstorm with other experts, round {number} of {load.rounds}. Do not repeat others."
    system = f"You are Expert{place}, and you answer in two or three plain sentences.\n\n{told}"
    return [("system", system), ("user", "\n\n".join(parts))]


def by_model(load: Load, model: Any, place: int) -> Any:
    async def node(state: State) -> State:
        asked = prompt(load, place, state["said"])
        if load.stream != "custom":
            return {"said": [(await model.ainvoke(asked)).content]}
        write, said = get_stream_writer(), []
        async for chunk in model.astream(asked):
            if chunk.content:
                write(chunk.content)
                said.append(chunk.content)
        return {"said": ["".join(said)]}

    return node


def session(load: Load, model: Any) -> StateGraph[Any]:
    graph: StateGraph[Any] = StateGraph(State)
    for place in range(load.agents):
        node = by_model(load, model, place) if model else by_the_clock(load)
        graph.add_node(f"a{place}", node)
        graph.add_edge(f"a{place - 1}" if place else START, f"a{place}")
    over = load.agents * load.rounds
    graph.add_conditional_edges(f"a{load.agents - 1}", lambda state: END if len(state["said"]) >= over else "a0")
    return graph


async def run(load: Load, graph: Any) -> None:
    """One session, whose tokens are counted: those its caller was streamed, or those that its state ended with."""
    config = {"configurable": {"thread_id": uuid.uuid4().hex}, "recursion_limit": 1000}
    heard = 0
    if not load.stream:
        said = (await graph.ainvoke({"said": []}, config))["said"]
        heard = sum(len(text.split()) for text in said)
    elif load.stream == "messages":
        async for chunk, _ in graph.astream({"said": []}, config, stream_mode="messages"):
            heard += bool(chunk.content)
    else:
        async for _ in graph.astream({"said": []}, config, stream_mode="custom"):
            heard += 1
    expected = load.agents * load.rounds * load.tokens
    if heard != expected:
        raise RuntimeError(f"tokens were lost: {heard} of {expected}")


async def sample(memory: list[int]) -> None:
    while True:
        with open("/proc/self/statm") as statm:
            memory.append(int(statm.read().split()[1]) * resource.getpagesize() // 1_000_000)
        await asyncio.sleep(1)


async def main(load: Load) -> None:
    options = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
    async with AsyncConnectionPool(load.dsn, min_size=POOL, max_size=POOL, kwargs=options, timeout=240) as pool:
        await AsyncPostgresSaver(pool).setup()
        model = chat_model(load) if load.url else None
        # A saver does one thing at a time whatever its pool has: one for each connection.
        graphs = [session(load, model).compile(checkpointer=AsyncPostgresSaver(pool)) for _ in range(POOL)]
        short = replace(load, rounds=1, tokens=1, gap=0.0)
        await run(short, session(short, model).compile(checkpointer=AsyncPostgresSaver(pool)))
        gc.collect()
        gc.freeze()
        gc.set_threshold(10_000, 20, 20)  # as the services' own
        memory: list[int] = []
        sampling = asyncio.create_task(sample(memory))
        before, began = time.process_time(), time.perf_counter()
        await asyncio.gather(*(run(load, graphs[place % POOL]) for place in range(load.sessions)))
        seconds, spent = time.perf_counter() - began, time.process_time() - before
        sampling.cancel()
    found = {"seconds": seconds, "cpu": spent, "rss_mb": memory}
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    os.environ["LANGSMITH_TRACING"] = "false"
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(Load(**json.loads(sys.argv[1]))))
