"""Gateway in the whole mesh: the seed's endpoints, official clients on real models and agents, events and webhooks."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import openai
import pytest

from tests.e2e.conftest import Mesh
from tests.support.receiver import running_receiver


@pytest.fixture
def credential(mesh: Mesh) -> str:
    return str(json.loads((mesh.state / "client.json").read_text())["token"])


async def call(mesh: Mesh, credential: str, method: str, path: str, body: Any = None) -> Any:
    headers = {"authorization": f"Bearer {credential}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        async with session.request(method, f"http://{mesh.edge}{path}", json=body) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()


async def test_policies_violations_and_costs_are_reached_over_rest(mesh: Mesh) -> None:
    token = mesh.token(tenant="seeds")
    rules = [{"name": "no_words", "type": "keyword", "severity": "minor", "target": "output", "keywords": ["mesh"]}]
    for name, document in (
        ("as_json", json.dumps({"rules": rules})),
        ("as_yaml", "rules: [{name: y, type: keyword, severity: minor, target: output, keywords: [zzz]}]\n"),
    ):
        body = {"name": name, "document": document, "labels": ["production"] if name == "as_json" else []}
        made = await call(mesh, token, "POST", "/v1/policies", body)
        assert made["bundle"]["name"] == name
    ask = {"generation": {"model": "synthetic", "messages": [{"role": "ROLE_USER", "content": [{"text": "tell"}]}]}}
    for _ in range(30):
        await call(mesh, token, "POST", "/v1/generations:text", ask)
        violations = (await call(mesh, token, "GET", "/v1/violations"))["violations"]
        if violations:
            break
        await asyncio.sleep(0.1)
    assert {found["monitor_name"] for found in violations} == {"no_words"}
    assert await call(mesh, token, "GET", "/v1/cost/summary")


async def test_an_agent_keeps_every_field_it_is_defined_with(mesh: Mesh, credential: str) -> None:
    agent = {
        "name": "Complete",
        "description": "Has everything.",
        "system_prompt": "You are complete.",
        "input_schema": {"type": "object", "required": ["question"]},
        "output_schema": {"type": "object", "required": ["answer"]},
        "config": {"nested": {"a": [1, "b", None]}},
        "capabilities": ["reason", "write"],
        "max_chain_depth": 5,
        "style": {"logic": 0.9},
        "model": "synthetic",
    }
    await call(mesh, credential, "POST", "/v1/agents", agent)
    found = (await call(mesh, credential, "GET", "/v1/agents/Complete"))["agent"]
    assert {name: found[name] for name in agent} == agent


async def test_openais_client_talks_to_the_real_model_and_to_an_agent(mesh: Mesh, credential: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"http://{mesh.edge}/v1", api_key=credential, max_retries=0) as client:
        models = [model.id async for model in client.models.list()]
        assert "smollm2-135m" in models
        ask = [{"role": "user", "content": "Say hello."}]
        for model in ("smollm2-135m", "agent:Athena"):
            stream = await client.chat.completions.create(
                model=model, messages=ask, max_tokens=16, stream=True, stream_options={"include_usage": True}
            )
            *chunks, last = [chunk async for chunk in stream]
            assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
            assert last.usage
            assert last.usage.completion_tokens > 0
        embedded = await client.embeddings.create(model="minilm-l6-v2", input="hello")
        assert len(embedded.data[0].embedding) == 384


async def test_events_go_through_postgres_and_valkey_to_listeners_and_webhooks(mesh: Mesh) -> None:
    token = mesh.token(tenant="events")
    async with running_receiver() as receiver:
        webhook = {"url": f"{receiver.url}/hook", "event_names": ["ticket.*"]}
        await call(mesh, token, "POST", "/v1/webhooks", {"webhook": webhook})
        published = {"events": [{"name": "ticket.created", "subject": "t-1"}, {"name": "lead.qualified"}]}
        await call(mesh, token, "POST", "/v1/events", published)
        (got,) = await receiver.until("/hook", 1)
    assert got.body["type"] == "agentnet.ticket.created"
    headers = {"authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        async with session.get(f"http://{mesh.edge}/v1/events:subscribe?after_sequence=1") as answer:
            line = await answer.content.readline()
    assert json.loads(line.removeprefix(b"data: "))["event"]["name"] == "lead.qualified"


async def test_refusals_are_audited_in_postgres(mesh: Mesh) -> None:
    auditor = mesh.token(tenant="audited", role="auditor", subject="watcher")
    headers = {"authorization": f"Bearer {auditor}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        async with session.post(f"http://{mesh.edge}/v1/sessions", json={"topic": "x"}) as answer:
            assert answer.status == 403
    for _ in range(50):
        entries = (await call(mesh, auditor, "GET", "/v1/audit?action=admission.refused"))["entries"]
        if entries:
            break
        await asyncio.sleep(0.05)
    assert (entries[0]["subject"], entries[0]["reason"]) == ("watcher", "ROLE_INSUFFICIENT")
    assert entries[0]["target"] == "/agentnet.orchestrator.v1.SessionService/StartSession"
