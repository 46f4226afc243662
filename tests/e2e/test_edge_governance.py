"""What happens to a call on its way: policy, budgets, the sandbox, memory; and what it leaves in logs."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from typing import Any

import grpc
import pytest

from agentnet.client import AgentNet, AgentNetError
from agentnet.inference.v1 import inference_service_pb2, message_pb2
from tests.e2e.conftest import Mesh, Rest, field_of, reason_of, wait_until


async def test_policy_redacts_inside_the_stream_and_records_the_violation(client: AgentNet, mesh: Mesh) -> None:
    request = inference_service_pb2.GenerateRequest(
        model="synthetic",
        messages=[
            message_pb2.Message(
                role=message_pb2.ROLE_USER, content=[message_pb2.ContentPart(text="say: key AKIAABCDEFGHIJKLMNOP end")]
            )
        ],
    )
    with pytest.raises(AgentNetError) as raised:
        async for _ in client.inference.generate(request):
            pass
    assert (raised.value.code, raised.value.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "POLICY_BLOCKED")
    document = (
        "rules:\n  - {name: no_mesh, type: keyword, severity: major, target: output, keywords: [mesh, lease, log]}"
    )
    async with AgentNet.connect(mesh.edge, credential=mesh.token(tenant="guarded")) as own:
        await own.policies.create("words", document, labels=["production"])
        redacted = await _until_redacted(own)
        assert "[REDACTED:no_mesh]" in redacted
        assert not {"mesh", "lease", "log"} & set(redacted.split())
        violations = [found async for found in own.policies.violations()]
        assert {found.monitor_name for found in violations} == {"no_mesh"}


@pytest.mark.heavy
async def test_the_embedded_model_classifies_and_gives_a_number(mesh: Mesh) -> None:
    rule = "{name: mood, type: llm_classifier, severity: major, params: {model: toxicity-screen, threshold: 0}}"
    async with AgentNet.connect(mesh.edge, credential=mesh.token(tenant="classified")) as own:
        await own.policies.create("moods", f"rules:\n  - {rule}", labels=["production"])
        judged = await own.policies.check("I hate you.")
    assert {one.name: one.problem for one in judged.monitors}["mood"] == ""
    (found,) = judged.findings
    assert re.search(r"the classifier toxicity-screen says yes \(score [01]\.\d\d\)", found.rationale)


async def _until_redacted(client: AgentNet) -> str:
    """A label moves everywhere within a second."""
    for _ in range(15):
        text = "".join(
            [piece async for piece in client.inference.stream_text("tell", model="synthetic", max_output_tokens=200)]
        )
        if "REDACTED" in text:
            return text
        await asyncio.sleep(0.1)
    return text


async def test_an_api_key_works_until_it_is_revoked(client: AgentNet, mesh: Mesh) -> None:
    made = await client.keys.create("for a program", roles=["tenant_user"])
    status, body = await Rest(mesh, None)("GET", "/v1/caller", **{"x-api-key": made.secret})
    assert (status, body["principal"]["credential_kind"]) == (200, "CREDENTIAL_KIND_API_KEY")
    await client.keys.revoke(made.key.id)
    for _ in range(60):
        status, body = await Rest(mesh, None)("GET", "/v1/caller", **{"x-api-key": made.secret})
        if status == 401:
            break
        await asyncio.sleep(0.1)
    assert (status, reason_of(body)) == (401, "API_KEY_INVALID")


async def test_a_spent_budget_stops_the_next_call(mesh: Mesh) -> None:
    async with AgentNet.connect(mesh.edge, credential=mesh.token(tenant="poor")) as poor:
        await poor.costs.set_budget(1)
        with pytest.raises(AgentNetError) as raised:
            async for _ in poor.inference.stream_text("hello"):
                pass
        assert (raised.value.code, raised.value.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "BUDGET_EXHAUSTED")


async def test_a_tool_runs_in_the_sandbox_over_rest(rest: Rest) -> None:
    tool = {
        "name": "adder",
        "exec_mode": "python",
        "input_schema": {"type": "object", "properties": {"a": {"type": "number"}}, "required": ["a"]},
        "allowed_agents": ["Athena"],
        "function": {"code": "def adder(a):\n    print('adding')\n    return {'sum': a + 1}"},
    }
    status, _ = await rest("POST", "/v1/tools", tool)
    assert status == 200
    status, done = await rest("POST", "/v1/tools/invoke", {"name": "adder", "arguments": {"a": 41}})
    assert (status, done["finished"]["result"], done["stdout"]) == (200, {"sum": 42}, "adding\n")
    assert done["finished"]["isolation"] == "bubblewrap+seccomp+rlimits"
    status, error = await rest("POST", "/v1/tools/invoke", {"name": "adder", "arguments": {"a": "x"}})
    assert (status, reason_of(error), field_of(error)) == (400, "TOOL_ARGUMENTS_INVALID", "arguments.a")
    status, error = await rest("POST", "/v1/tools/invoke", {"name": "adder", "agent": "Apollo", "arguments": {"a": 1}})
    assert (status, reason_of(error)) == (403, "TOOL_NOT_ALLOWED")


async def test_a_call_that_waits_for_leave_is_made_with_an_operators_token_which_nobody_logs(mesh: Mesh) -> None:
    rule = "{name: big, type: tool_arguments, severity: severe, action: require_approval, params: {when: args.a > 100}}"
    tool = {"name": "payer", "exec_mode": "python", "allowed_agents": ["*"],
            "function": {"code": "def payer(a):\n    return a"}}  # fmt: skip
    rest = Rest(mesh, mesh.token(tenant="careful"))
    assert (await rest("POST", "/v1/tools", tool))[0] == 200
    call = {"name": "payer", "arguments": {"a": 101}, "agent": "Athena"}
    async with AgentNet.connect(mesh.edge, credential=mesh.token(tenant="careful")) as own:
        await own.policies.create("leave", f"rules:\n  - {rule}", labels=["production"])
        for _ in range(15):  # a label moves everywhere within a second
            status, error = await rest("POST", "/v1/tools/invoke", call)
            if status != 200:
                break
            await asyncio.sleep(0.1)
        assert (status, reason_of(error)) == (400, "CALL_APPROVAL_REQUIRED")

        wanted = {"rules": ["big"], "reason": "the rent", "tool": "payer", "agent": "Athena", "ttl": "60s"}
        nobody = Rest(mesh, mesh.token(tenant="careful", role="tenant_user"))
        assert reason_of((await nobody("POST", "/v1/overrides", wanted))[1]) == "ROLE_INSUFFICIENT"
        status, made = await rest("POST", "/v1/overrides", wanted)
        assert status == 200
        done = await own.tools.invoke("payer", {"a": 101}, agent="Athena", override_token=made["token"])
        assert done.finished.result.number_value == 101
    assert made["override"]["id"]
    assert made["token"] not in mesh.logs()


async def test_what_a_rule_holds_in_a_session_waits_for_an_operator_through_a_kill(mesh: Mesh) -> None:
    rule = "{name: deals, type: keyword, severity: severe, action: require_approval, keywords: [handshake], target: output}"
    olga, ned = (Rest(mesh, mesh.token(tenant="asked", role=role)) for role in ("operator", "tenant_user"))
    async with AgentNet.connect(mesh.edge, credential=mesh.token(tenant="asked")) as own:
        await own.policies.create("deals", f"rules:\n  - {rule}", labels=["production"])
    broker = {"name": "Broker", "version": "1.0.0", "system_prompt": "You trade.", "model": "synthetic"}
    assert (await olga("POST", "/v1/agents", broker))[0] == 200
    wanted = await _held(ned)
    assert (wanted["rules"], wanted["bundles"]) == (["deals"], ["deals@1.0.0"])
    session = f"/v1/sessions/{wanted['session_id']}"
    old = mesh.process("orchestrator")
    os.kill(old["pid"], signal.SIGKILL)
    wait_until(
        lambda: (
            mesh.process("orchestrator")["health"] == "serving" and mesh.process("orchestrator")["pid"] != old["pid"]
        ),
        seconds=30,
    )

    status, error = await ned("POST", f"{session}/inputs/{wanted['id']}", {"approved": True})
    assert (status, reason_of(error)) == (403, "ROLE_INSUFFICIENT")
    status, _ = await olga("POST", f"{session}/inputs/{wanted['id']}", {"approved": True, "answer": "signed"})
    assert status == 200
    for _ in range(100):
        found = (await ned("GET", session))[1]["session"]
        if found["status"] == "SESSION_STATUS_COMPLETED":
            break
        await asyncio.sleep(0.2)
    assert found["result"] == "A handshake on it."
    (made,) = (await olga("GET", "/v1/overrides"))[1]["overrides"]
    assert (made["rules"], made["session_id"], made["reason"]) == (["deals"], found["id"], "signed")


async def _held(ned: Rest) -> dict[str, Any]:
    """What a session asks; a label moves everywhere within a second, until then nothing holds it."""
    start = {"topic": "say: A handshake on it.", "agents": ["Broker"], "mode": "single"}
    for _ in range(15):
        session = (await ned("POST", "/v1/sessions", start))[1]["session"]["id"]
        for _ in range(50):
            status = (await ned("GET", f"/v1/sessions/{session}"))[1]["session"]["status"]
            if inputs := (await ned("GET", f"/v1/sessions/{session}/inputs"))[1]["inputs"]:
                return dict(inputs[0])
            if status == "SESSION_STATUS_COMPLETED":
                break
            await asyncio.sleep(0.1)
    raise AssertionError("no rule held it")


async def test_memory_recalls_by_meaning_and_forgets(client: AgentNet) -> None:
    kept = await client.memories.remember("The edge routers are rebooted on Sunday night.", tags=["ops"])
    await client.memories.remember("Bananas are yellow.")
    (best, *_) = await client.memories.recall("When do we restart the routers?")
    assert best.memory.id == kept.id
    assert best.score > 0.4
    await client.memories.forget(kept.id)
    found = await client.memories.recall("When do we restart the routers?", min_score=0.3)
    assert all(match.memory.id != kept.id for match in found)


async def test_a_generation_is_attached_to_again_with_the_same_events(client: AgentNet) -> None:
    prompt = message_pb2.Message(role=message_pb2.ROLE_USER, content=[message_pb2.ContentPart(text="count")])
    request = inference_service_pb2.GenerateRequest(
        generation_id="gen-again", model="synthetic", messages=[prompt], max_output_tokens=30
    )
    first = [event async for event in client.inference.generate(request)]
    again = [event async for event in client.inference.attach("gen-again", after=3)]
    repeated = [event async for event in client.inference.generate(request)]
    assert again == first[3:]
    assert repeated == first


async def test_no_prompt_token_or_secret_is_logged(mesh: Mesh, client: AgentNet, credential: str) -> None:
    marker = "xyzzy-the-prompt-nobody-may-log"
    session = await client.sessions.start(marker, agents=["Hermes"])
    async for _ in client.sessions.watch(session.id):
        pass
    logs = mesh.logs()
    secrets = json.loads((mesh.state / "secrets.json").read_text()).values()
    assert session.id in logs
    assert marker not in logs
    assert credential not in logs
    assert not [secret for secret in secrets if secret in logs]


async def test_an_archived_agent_starts_nothing_new(rest: Rest) -> None:
    await rest("POST", "/v1/agents", {"name": "Retired", "system_prompt": "r"})
    status, _ = await rest("POST", "/v1/agents/Retired/state", {"state": "AGENT_STATE_ARCHIVED"})
    assert status == 200
    status, error = await rest("POST", "/v1/sessions", {"topic": "x", "agents": ["Retired"]})
    assert (status, reason_of(error)) == (400, "AGENT_ARCHIVED")


async def test_one_trace_runs_through_every_hop(mesh: Mesh, rest: Rest) -> None:
    body = {"name": "Traced", "system_prompt": "t", "model": "synthetic"}
    await rest("POST", "/v1/agents", body)
    status, ran = await rest("POST", "/v1/agents/Traced/infer", {"prompt": "say: trace"})
    assert status == 200
    session = ran["session_id"]
    traces: dict[str, set[str]] = {}
    for service in ("orchestrator", "inference", "cost", "memory"):
        for line in (mesh.state / "logs" / f"{service}.log").read_text().splitlines():
            if session in line and '"trace_id"' in line:
                traces.setdefault(json.loads(line)["trace_id"], set()).add(service)
    assert any({"inference", "cost"} <= services for services in traces.values())
