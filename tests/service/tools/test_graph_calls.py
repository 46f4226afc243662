"""Nodes of a task graph that call the served tools: an API of the world is asked once, whoever drives the graph."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from google.protobuf import json_format

from agentnet.orchestrator.v1 import task_graph_pb2
from agentnet.tools.v1 import tool_pb2
from services.orchestrator.graphs import shapes
from services.orchestrator.peers_tools import GrpcTools
from services.orchestrator.store import KeptGraph
from services.tools.egress import Egress
from services.tools.executor import Executor
from services.tools.http_api import HttpExecutor
from services.tools.secrets import Secrets
from shared.errors import MeshError
from tests.service.tools.api import Api
from tests.service.tools.calls import register
from tests.support.identity import Keys
from tests.support.orchestrator import ADA, TENANT, TTL, World, driving

SCHEMA = {"type": "object", "properties": {"seats": {"type": "integer"}}, "required": ["seats"]}


@pytest.fixture
def executors(secrets: Secrets) -> dict[str, Executor]:
    return {"external_api": HttpExecutor(Egress(["127.0.0.1/32"]), secrets)}


@pytest.fixture
async def world(channel: grpc.aio.Channel, stub: Any, keys: Keys, api: Api) -> World:
    """An orchestrator on the served tools, which have one: it books, by a POST."""
    http = {"method": "POST", "timeout": "0.3s", "url": f"http://127.0.0.1:{api.port}/"}
    given = {
        "name": "book",
        "exec_mode": "external_api",
        "allowed_agents": ["*"],
        "allowed_roles": ["viewer", "agent", "admin"],
        "input_schema": SCHEMA,
        "http": http,
    }
    await register(stub, keys, json_format.ParseDict(given, tool_pb2.Tool()))
    return World(tools=GrpcTools(channel, keys.signer))  # type: ignore[arg-type] # the real ones for the scripted


def book(name: str = "book", **parts: Any) -> task_graph_pb2.TaskNode:
    node = {"id": name, "tool": "book", "arguments": {"seats": 2}} | parts
    return shapes.node(json_format.ParseDict(node, task_graph_pb2.TaskNode()))


async def result(world: World, kept: KeptGraph, name: str = "book") -> task_graph_pb2.TaskResult:
    shown = await world.graphs.shown(TENANT, kept.graph.id)
    return next(found for found in shown.results if found.node_id == name)


async def test_a_booking_is_made_once_and_a_later_node_books_what_came_of_it(world: World, api: Api) -> None:
    api.answer = {"id": 3}
    more = book("more", depends_on=["book"], arguments={}, argument_expressions={"seats": "results.book.json.id"})
    kept = await world.execute(book(), more)
    await world.drive()
    assert [body for _, _, body, _ in api.asked] == [{"seats": 2}, {"seats": 3}]
    first = await result(world, kept)
    assert (first.effect.tool, first.effect.outcome) == ("book@1.0.0", task_graph_pb2.EFFECT_OUTCOME_DONE)
    assert json_format.MessageToDict(first.effect)["invocationId"].startswith("inv")


async def test_an_api_that_does_not_answer_is_asked_once_and_its_outcome_stays_unknown(world: World, api: Api) -> None:
    api.stall = True
    kept = await world.execute(book())
    await world.drive()
    found = await result(world, kept)
    assert found.effect.outcome == task_graph_pb2.EFFECT_OUTCOME_UNKNOWN
    assert (found.retries, len(api.asked)) == (2, 1)

    api.stall = False
    checkpoint = (await world.graphs.shown(TENANT, kept.graph.id)).last_checkpoint_id
    again = await world.graphs.execute(ADA, None, request_id=None, resume_from=checkpoint)
    await world.drive()
    reconciled = await result(world, again)
    assert reconciled.effect.request_id == found.effect.request_id
    assert reconciled.effect.outcome == task_graph_pb2.EFFECT_OUTCOME_UNKNOWN
    assert len(api.asked) == 1


async def test_an_owner_that_dies_while_the_api_works_leaves_doubt_and_no_second_booking(
    world: World, api: Api
) -> None:
    api.stall = True
    kept = await world.execute(book())
    async with driving(world, "one"):
        while not api.asked:
            await asyncio.sleep(0.01)
    api.stall = False
    world.clock.advance(TTL * 2)
    await world.drive("two")
    assert len(api.asked) == 1
    assert (await result(world, kept)).effect.outcome == task_graph_pb2.EFFECT_OUTCOME_UNKNOWN


async def test_arguments_are_held_against_the_registered_schema(world: World, api: Api) -> None:
    with pytest.raises(MeshError) as refused:
        await world.execute(book(arguments={"seats": "two"}))
    assert (refused.value.reason_name, refused.value.facts["path"]) == ("GRAPH_INVALID", "book.seats")
    assert api.asked == []


async def test_a_tool_that_is_not_registered_is_not_found(world: World) -> None:
    with pytest.raises(MeshError) as refused:
        await world.execute(book(tool="book@9.9.9"))
    assert refused.value.reason_name == "TOOL_NOT_FOUND"
