"""Agents as tasks, in the words of MCP's extension (SEP-2663), against the edge; what the suite of MCP asks is in test_node."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio

from tests.support.edge import Answer, Edge, running_edge
from tests.support.scripted_inference import ScriptedInference
from tests.support.scripted_orchestrator import ScriptedSessions, serve_orchestrator

pytestmark = pytest.mark.asyncio(loop_scope="module")
SESSIONS: list[ScriptedSessions] = []
TASKS = {"extensions": {"io.modelcontextprotocol/tasks": {}}}
REVISION = "2026-07-28"


def serve(server: grpc.aio.Server) -> None:
    ScriptedInference().serve(server)
    SESSIONS.append(serve_orchestrator(server))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Edge]:
    async with running_edge(tmp_path_factory.mktemp("edge"), serve=serve) as running:
        yield running


async def post(edge: Edge, method: str, params: dict[str, Any], *, able: Any = TASKS, named: str = "") -> Answer:
    name = named or params.get("taskId") or params["name"]
    meta = {
        "io.modelcontextprotocol/protocolVersion": REVISION, "io.modelcontextprotocol/clientCapabilities": able,
    }  # fmt: skip
    message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": meta}}
    headers = {"mcp_protocol_version": REVISION, "mcp_method": method, "mcp_name": name}
    authorization = f"Bearer {edge.token()}"
    return await edge.rest("POST", "/mcp", message, authorization=authorization, accept="application/json", **headers)


async def result(edge: Edge, method: str, params: dict[str, Any], **given: Any) -> Any:
    answer = await post(edge, method, params, **given)
    assert answer.status == 200, answer.text
    return answer.body["result"]


async def begun(edge: Edge, prompt: str) -> str:
    task = await result(edge, "tools/call", {"name": "agent_Athena", "arguments": {"prompt": prompt}})
    assert (task["resultType"], task["status"] in {"working", "input_required", "completed"}) == ("task", True)
    assert "result" not in task
    return str(task["taskId"])


async def test_an_agent_is_a_task_for_who_knows_of_tasks_and_a_call_for_who_does_not(edge: Edge) -> None:
    task_id = await begun(edge, "Say hello.")
    assert task_id.startswith("ses_")
    found = await result(edge, "tasks/get", {"taskId": task_id})
    assert (found["resultType"], found["status"]) == ("complete", "completed")
    assert found["result"]["content"] == [{"type": "text", "text": "Say hello."}]
    assert (found["createdAt"], found["lastUpdatedAt"]) == ("2027-01-15T08:00:00+00:00", "2027-01-15T08:00:02+00:00")
    assert found["ttlMs"] is None
    call = {"name": "agent_Athena", "arguments": {"prompt": "Say hello."}}
    waited = await result(edge, "tools/call", call, able={})
    assert (waited["resultType"], waited["content"][0]["text"]) == ("complete", "Say hello.")
    refused = await result(edge, "tools/call", {"name": "agent_Zeus", "arguments": {"prompt": "x"}})
    assert (refused["isError"], refused["content"][0]["text"][:15]) == (True, "AGENT_NOT_FOUND")


async def test_a_task_is_called_off_once_and_stays_so(edge: Edge) -> None:
    task_id = await begun(edge, "Wait.")
    assert (await result(edge, "tasks/get", {"taskId": task_id}))["status"] == "working"
    for _ in range(2):
        ended = await result(edge, "tasks/cancel", {"taskId": task_id})
        assert {name for name in ended if name != "_meta"} == {"resultType"}
    assert (await result(edge, "tasks/get", {"taskId": task_id}))["status"] == "cancelled"


async def test_what_an_agent_asks_a_person_is_asked_of_the_client(edge: Edge) -> None:
    task_id = await begun(edge, "Ask.")
    waiting = await result(edge, "tasks/get", {"taskId": task_id})
    assert waiting["status"] == "input_required"
    ask = waiting["inputRequests"]["inp_1"]
    assert (ask["method"], ask["params"]["message"]) == ("elicitation/create", "Which one?")
    assert ask["params"]["requestedSchema"]["required"] == ["answer"]
    for given in ({"unknown": {}}, {"inp_1": {"action": "accept", "content": {"answer": "The red one."}}}):
        await result(edge, "tasks/update", {"taskId": task_id, "inputResponses": given})
    assert [(one.input_id, one.answer) for one in SESSIONS[0].given] == [("inp_1", "The red one.")]
    found = await result(edge, "tasks/get", {"taskId": task_id})
    assert (found["status"], found["result"]["content"][0]["text"]) == ("completed", "The red one.")


async def test_who_does_not_know_of_tasks_or_names_another_is_refused(edge: Edge) -> None:
    task_id = await begun(edge, "Say hello.")
    for params, given, code in (
        ({"taskId": task_id}, {"able": {}}, -32021), ({"taskId": task_id}, {"named": "other"}, -32020),
        ({"taskId": "ses_none"}, {}, -32602),
    ):  # fmt: skip
        refused = await post(edge, "tasks/get", params, **given)
        assert refused.body["error"]["code"] == code
