"""Sessions of an agent that has tools, and what its model asks of them."""

from __future__ import annotations

import json
from typing import Any

from agentnet.inference.v1 import message_pb2
from agentnet.orchestrator.v1 import agent_pb2
from services.orchestrator.peers import Utterance
from shared.paging import Page
from tests.support.orchestrator import TENANT, ScriptedInference, World


def call(tool: str, **arguments: Any) -> message_pb2.ToolCall:
    return message_pb2.ToolCall(id=f"model_{tool}", name=tool, arguments=json.dumps(arguments))


def script(*steps: str | list[message_pb2.ToolCall]) -> Any:
    """One answer for each iteration of a turn; the last one from then on."""

    def reply(utterance: Utterance) -> str | list[message_pb2.ToolCall]:
        return steps[min(len(utterance.exchanges), len(steps) - 1)]

    return reply


async def asked(
    *steps: str | list[message_pb2.ToolCall],
    tools: tuple[str, ...] = ("search", "book"),
    stop_tools_when: dict[str, str] | None = None,
    **parts: Any,
) -> tuple[World, str]:
    """A session of Clio, who may search, book and ask a person."""
    world = World()
    world.inference = ScriptedInference(reply=script(*steps))
    clio = agent_pb2.Agent(
        name="Clio", version="1.0.0", system_prompt="You look things up.", state=agent_pb2.AGENT_STATE_ACTIVE,
        tools=tools, functions=["ask_human"],
        stop_tools_when=stop_tools_when,
    )  # fmt: skip
    await world.agents.create(TENANT, clio)
    session_id = await world.start(agents=["Clio"], mode="single", max_rounds=1, **parts)
    return world, session_id


async def only_turn(world: World, session_id: str) -> Any:
    (turn,) = await world.store.turns(TENANT, session_id, agent="", round_number=0, page=Page())
    return turn


async def events(world: World, session_id: str, kind: str) -> list[Any]:
    return [getattr(event, kind) for event in await world.log(session_id) if event.WhichOneof("payload") == kind]


TWO = [call("search", q="raft"), call("search", q="paxos")]
