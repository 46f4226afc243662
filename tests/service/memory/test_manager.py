"""The memory of an agent, through the Python client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import grpc
import pytest

from agentnet.client.knowledge import Memories
from agentnet.client.memories import MemoryManager
from agentnet.memory.v1 import memory_pb2
from services.memory.tokens import estimate


class Loopback:
    """A transport straight to the served memory service, with a signed identity in place of the edge."""

    def __init__(self, served: Any, address: str) -> None:
        self.channel = grpc.aio.insecure_channel(address)
        self._served = served

    def options(self, *, timeout: float | None = 5) -> dict[str, Any]:
        return {"metadata": self._served.caller(), "timeout": timeout}


@pytest.fixture
async def transport(served: Any) -> AsyncIterator[Any]:
    loopback = Loopback(served, served.address)
    yield loopback
    await loopback.channel.close()


async def test_an_interaction_is_kept_and_comes_back_in_the_next_session(served: Any, transport: Any) -> None:
    memory: Any = MemoryManager(transport, "Athena")
    prompts: list[str] = []

    async def answer(prompt: str) -> str:
        prompts.append(prompt)
        return "Noted: the launch moves to March."

    await memory.interact("monday", "ada", "Move the launch to March.", answer)
    served.clock.advance(timedelta(days=1))
    await memory.remember_preferences("ada", {"tone": "dry", "language": "German"})
    await memory.remember_preferences("ada", {"tone": "warm"})
    await memory.interact("tuesday", "ada", "When is the launch?", answer)
    assert prompts[0] == "Move the launch to March."
    assert "Noted: the launch moves to March." in prompts[1]
    assert "user:ada prefers tone: warm" in prompts[1]
    assert "dry" not in prompts[1]
    assert await memory.preferences("ada") == {"tone": "warm", "language": "German"}


async def test_storing_and_injecting_are_switches(served: Any, transport: Any) -> None:
    memory: Any = MemoryManager(transport, "Athena", auto_store_interactions=False, auto_inject_context=False)

    async def answer(prompt: str) -> str:
        return prompt

    assert await memory.interact("s", "ada", "Remember me?", answer) == "Remember me?"
    assert list(await memory.retrieve_relevant("Remember me?")) == []
    assert await memory.store_interaction("s", [("ada", " ")]) == []


async def test_what_is_relevant_is_found_by_type_and_the_context_fits(served: Any, transport: Any) -> None:
    memory: Any = MemoryManager(transport, "Athena", max_tokens=120)
    await memory.store_interaction("s", [("ada", "The cat sleeps in the barn."), ("Athena", "Cats do.")], tags=["cats"])
    await memory.store_facts([("cat", "sleeps_in", "barn")], session_id="s")
    of_type = await memory.retrieve_relevant("cat barn", memory_types=[memory_pb2.MEMORY_TYPE_LONG_TERM])
    episodes = await memory.retrieve_relevant("cat barn", memory_types=[memory_pb2.MEMORY_TYPE_EPISODIC])
    own = await memory.retrieve_relevant("cat", own=True)
    assert list(of_type) == []
    assert episodes[0].memory.content == "ada: The cat sleeps in the barn."
    assert {match.memory.agent for match in own} == {"Athena", ""}
    context = await memory.get_context_for_agent(
        "t", "cat", subjects=["cat"], handoff_from="Apollo", handoff_note="Ask."
    )
    assert "Apollo hands over to you." in context
    assert 0 < estimate(context) <= 120


async def test_what_the_user_said_is_known_in_the_same_session_and_in_the_next(served: Any, transport: Any) -> None:
    memory: Any = MemoryManager(transport, "Athena")
    prompts: list[str] = []

    async def answer(prompt: str) -> str:
        prompts.append(prompt)
        return "All right."

    await memory.interact("monday", "ada", "My boat is called Comet.", answer)
    await memory.interact("monday", "ada", "What did I just say?", answer)
    served.clock.advance(timedelta(days=1))
    await memory.interact("tuesday", "ada", "What is my boat called?", answer)
    assert "The last turns:\nada: My boat is called Comet.\nAthena: All right." in prompts[1]
    assert "(2026-01-01) ada: My boat is called Comet." in prompts[2]
    assert "The last turns" not in prompts[2]


async def test_a_deletion_through_the_client_gives_the_receipt(served: Any, transport: Any) -> None:
    memories = Memories(transport)
    kept = await memories.remember("The door code is 4711.")
    receipt = await memories.forget(kept.id)
    assert (receipt.subject_id, receipt.requested_by) == (kept.id, "ada")
    assert list(await memories.recall("door code")) == []
