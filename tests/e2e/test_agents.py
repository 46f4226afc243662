"""Agents through the whole mesh, over REST: imported, asked, governed, followed, dispatched."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from tests.e2e.conftest import Rest, reason_of

FILE = """
agents:
  - name: Clerk
    prompt: You decide refunds.
    engine: rules
    capabilities: [refunds]
    style: {conciseness: 0.9}
    engine_config:
      rules:
        - {when: asked.contains('number'), answer: It is 123-45-6789.}
        - {when: asked.contains('refund'), answer: Refunds take three days.}
      otherwise: Ask a person.
"""


async def until(rest: Rest, path: str, wanted: Callable[[Any], bool]) -> Any:
    """What is there, once it is as wanted: following the logs takes a moment."""
    for _ in range(100):
        status, found = await rest("GET", path)
        assert status == 200, found
        if wanted(found):
            return found
        await asyncio.sleep(0.1)
    raise AssertionError(f"{path} never came to be as wanted: {found}")


async def test_an_agent_with_an_engine_lives_in_the_mesh_like_any_other(rest: Rest) -> None:
    status, broken = await rest("POST", "/v1/agents:import", {"document": FILE.replace("rules:", "rulez:")})
    assert (status, reason_of(broken)) == (400, "AGENT_FILE_INVALID")
    status, made = await rest("POST", "/v1/agents:import", {"document": FILE})
    assert (status, made["created"]) == (200, ["Clerk@1.0.0"])

    task = {"messages": [{"role": "user", "content": "How long does a refund take?"}], "conversation_id": "c1"}
    status, answer = await rest("POST", "/v1/dispatch", task)
    assert (status, answer["turn"]["content"]) == (200, "Refunds take three days.")
    assert answer["delegation"]["target"] == "Clerk@1.0.0"
    assert "can do refunds" in answer["delegation"]["choice"]["reason"]
    assert answer["turn"]["style_insights"] == ["conciseness 0.9: 4.0 words a sentence"]

    status, secret = await rest("POST", "/v1/agents/Clerk/infer", {"prompt": "What is my number?"})
    assert (status, "123-45-6789" in str(secret)) == (200 if "turn" in secret else 400, False)

    metrics = await until(rest, "/v1/agents/Clerk/metrics", lambda found: int(found["metrics"].get("calls", 0)) >= 2)
    assert metrics["metrics"]["agent"] == "Clerk"
    session_id = answer["delegation"]["session_id"]
    graph = await until(rest, f"/v1/sessions/{session_id}/graph", lambda found: bool(found.get("trees")))
    assert graph["trees"][0]["nodes"][0]["text"] == "How long does a refund take?"
    wanted = {"session.started", "agent.handoff", "turn.completed", "session.finished"}
    path = f"/v1/events?session_id={session_id}"
    events = await until(rest, path, lambda found: wanted <= {event["name"] for event in found.get("events", [])})
    assert len(events["events"]) == len(wanted)


async def test_a_chain_of_agents_runs_to_its_end(rest: Rest) -> None:
    for name in ("First", "Second"):
        agent = {"name": name, "system_prompt": "r", "model": "synthetic", "sampling": {"max_output_tokens": 5}}
        assert (await rest("POST", "/v1/agents", agent))[0] == 200
    edge = {"source": "First", "target": "Second", "kind": "chains_to"}
    assert (await rest("POST", "/v1/relationships", edge))[0] == 200
    status, begun = await rest("POST", "/v1/agents/First/chain", {"prompt": "say: five little words are here"})
    assert status == 200, begun
    ended = ("completed", "failed", "cancelled")
    found = await until(rest, f"/v1/chains/{begun['chain']['id']}", lambda found: found["chain"]["status"] in ended)
    assert [step["status"] for step in found["chain"]["steps"]] == ["completed", "completed"]
    assert found["chain"]["steps"][1]["source"] == "First@1.0.0"
