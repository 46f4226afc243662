"""The edge as strangers meet it: gRPC, REST, server-sent events, gRPC-Web."""

from __future__ import annotations

import json
import struct

import aiohttp
import pytest

from agentnet.gateway.v1 import identity_service_pb2
from tests.e2e.conftest import Mesh, Rest, field_of, reason_of


async def test_agents_are_created_read_updated_and_run_over_rest(rest: Rest) -> None:
    agent = {"name": "Rester", "system_prompt": "r", "model": "synthetic", "sampling": {"max_output_tokens": 5}}
    status, made = await rest("POST", "/v1/agents", agent)
    assert (status, made["agent"]["version"]) == (200, "1.0.0")
    status, again = await rest("POST", "/v1/agents", agent)
    assert (status, reason_of(again)) == (409, "AGENT_VERSION_EXISTS")
    status, changed = await rest("PATCH", "/v1/agents/Rester", {"description": "changed"})
    assert (status, changed["agent"]["version"]) == (200, "1.0.1")
    status, old = await rest("GET", "/v1/agents/Rester@1.0.0")
    assert (status, old["agent"]["description"]) == (200, "")
    status, ran = await rest("POST", "/v1/agents/Rester/infer", {"prompt": "say: five little words are here"})
    assert (status, ran["turn"]["content"].split()) == (200, ["five", "little", "words", "are", "here"])


async def test_the_seeds_session_body_is_accepted_as_it_stands(rest: Rest) -> None:
    body = {
        "topic": "Designing resilient edge network",
        "mode": "brainstorm",
        "strategy": "round_robin",
        "agents": ["Athena@1.0.0", "Apollo@1.0.0"],
        "max_rounds": 6,
        "convergence": True,
        "metadata": {"project": "edgeX"},
    }
    status, started = await rest("POST", "/v1/sessions", body)
    session = started["session"]
    assert status == 200
    assert (session["mode"], session["agents"], session["max_rounds"]) == ("brainstorm", body["agents"], 6)
    assert session["metadata"] == {"project": "edgeX"}
    status, found = await rest("GET", f"/v1/sessions/{session['id']}")
    assert (status, found["session"]["id"]) == (200, session["id"])
    status, turns = await rest("GET", f"/v1/sessions/{session['id']}/turns?page_size=1")
    assert (status, "turns" in turns) == (200, True)
    status, error = await rest("POST", f"/v1/sessions/{session['id']}/advance", {})
    assert (status, reason_of(error)) == (400, "SESSION_STATE_INVALID")
    status, _ = await rest("POST", f"/v1/sessions/{session['id']}/cancel", {})
    assert status == 200


@pytest.mark.parametrize("path", ["/metrics/health", "/v1/metrics/health", "/health", "/healthz", "/readyz", "/livez"])
async def test_health_needs_no_credential(mesh: Mesh, path: str) -> None:
    status, body = await Rest(mesh, None)("GET", path)
    assert (status, body["state"]) == (200, "HEALTH_STATE_SERVING")


async def test_lists_page_without_losing_or_repeating_any(rest: Rest) -> None:
    for number in range(5):
        await rest("POST", "/v1/agents", {"name": f"Paged{number}", "system_prompt": "p", "capabilities": ["paging"]})
    names, token = [], ""
    while True:
        query = f"/v1/agents?capability=paging&page_size=2&order_by=name&page_token={token}"
        status, page = await rest("GET", query)
        assert status == 200
        assert len(page["agents"]) <= 2
        names += [agent["name"] for agent in page["agents"]]
        if not (token := page["next_page_token"]):
            break
    assert names == [f"Paged{number}" for number in range(5)]
    status, error = await rest("GET", "/v1/agents?page_token=bm9uc2Vuc2U")
    assert (status, reason_of(error), field_of(error)) == (400, "PAGE_TOKEN_INVALID", "page_token")


async def test_a_stream_over_rest_is_server_sent_events(mesh: Mesh, rest: Rest, credential: str) -> None:
    await rest("POST", "/v1/agents", {"name": "Streamer", "system_prompt": "s", "model": "synthetic"})
    _, started = await rest("POST", "/v1/sessions", {"topic": "say: hello over sse", "agents": ["Streamer"]})
    url = f"http://{mesh.edge}/v1/sessions/{started['session']['id']}/events"
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {credential}"}) as session:
        async with session.get(url) as answer:
            assert answer.content_type == "text/event-stream"
            text = await answer.text()
    events = [json.loads(line.removeprefix("data: "))["event"] for line in text.splitlines() if line]
    assert [int(event["sequence"]) for event in events] == list(range(1, len(events) + 1))
    assert "session_finished" in events[-1]


async def test_the_request_id_is_made_kept_and_echoed(mesh: Mesh, credential: str) -> None:
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {credential}"}) as session:
        async with session.get(f"http://{mesh.edge}/v1/caller") as answer:
            made = answer.headers["x-request-id"]
    assert len(made) > 20
    assert made in (mesh.state / "logs" / "gateway.log").read_text()


async def test_grpc_web_and_its_preflight_work(mesh: Mesh, credential: str) -> None:
    url = f"http://{mesh.edge}/agentnet.gateway.v1.IdentityService/GetCaller"
    asked = {"origin": "http://localhost:3000", "access-control-request-method": "POST"}
    headers = {
        "content-type": "application/grpc-web+proto", "x-grpc-web": "1", "origin": "http://localhost:3000",
        "authorization": f"Bearer {credential}",
    }  # fmt: skip
    async with aiohttp.ClientSession() as session:
        async with session.options(url, headers=asked) as answer:
            assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"
        async with session.options(url, headers={**asked, "origin": "http://evil.example"}) as answer:
            assert "access-control-allow-origin" not in answer.headers
        async with session.post(url, data=b"\x00" + struct.pack(">I", 0), headers=headers) as answer:
            body = await answer.read()
    (length,) = struct.unpack(">I", body[1:5])
    caller = identity_service_pb2.GetCallerResponse.FromString(body[5 : 5 + length])
    assert caller.principal.tenant_id == "default"
    assert b"grpc-status:0" in body[5 + length :]
