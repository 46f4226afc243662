"""The edge as strangers meet it: gRPC, REST, gRPC-Web, and every kind of bad input."""

from __future__ import annotations

import base64
import io
import json
import re
import struct
from typing import Any

import aiohttp
import grpc
import jwt
import pytest
from google.rpc import error_details_pb2, status_pb2

from agentnet.client import AgentNet, AgentNetError
from agentnet.gateway.v1 import identity_service_pb2
from agentnet.inference.v1 import inference_service_pb2, message_pb2
from tests.e2e.conftest import Mesh

JSON = {"content-type": "application/json"}


class Rest:
    """REST calls with a token."""

    def __init__(self, mesh: Mesh, credential: str | None) -> None:
        self._base = f"http://{mesh.edge}"
        self._headers = {"authorization": f"Bearer {credential}"} if credential else {}

    async def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        given = {**self._headers, **headers}
        async with aiohttp.ClientSession() as session:
            data = io.BytesIO(json.dumps(body).encode()) if body is not None else None
            sent = JSON | given if data else given
            async with session.request(method, self._base + path, data=data, headers=sent) as answer:
                text = await answer.text()
                return answer.status, json.loads(text) if text else None


@pytest.fixture
def credential(mesh: Mesh) -> str:
    return str(json.loads((mesh.state / "client.json").read_text())["token"])


@pytest.fixture
def rest(mesh: Mesh, credential: str) -> Rest:
    return Rest(mesh, credential)


def reason_of(body: Any) -> str:
    return next(detail["reason"] for detail in body["details"] if detail["@type"].endswith("ErrorInfo"))


def field_of(body: Any) -> str:
    bad = next(detail for detail in body["details"] if detail["@type"].endswith("BadRequest"))
    return str(bad["field_violations"][0]["field"])


async def refused(work: Any) -> AgentNetError:
    with pytest.raises(AgentNetError) as raised:
        await work
    return raised.value


# --- the seed's endpoints -------------------------------------------------------------------------------------------


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


# --- bad input ------------------------------------------------------------------------------------------------------


async def test_an_unknown_agent_is_not_found(client: AgentNet, rest: Rest) -> None:
    error = await refused(client.sessions.start("x", agents=["Zeus"]))
    assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "AGENT_NOT_FOUND")
    assert error.suggestion
    status, body = await rest("POST", "/v1/sessions", {"topic": "x", "agents": ["Zeus"]})
    assert (status, reason_of(body)) == (404, "AGENT_NOT_FOUND")


async def test_an_empty_topic_names_the_field(client: AgentNet, rest: Rest) -> None:
    error = await refused(client.sessions.start("", agents=["Athena"]))
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_REQUIRED")
    assert error.field == "topic"
    status, body = await rest("POST", "/v1/sessions", {"topic": " ", "agents": ["Athena"]})
    assert (status, reason_of(body), field_of(body)) == (400, "FIELD_REQUIRED", "topic")


async def test_a_ten_megabyte_prompt_names_the_field_and_the_limit(client: AgentNet, rest: Rest) -> None:
    huge = "x" * 10_000_000
    error = await refused(client.sessions.start(huge, agents=["Athena"]))
    assert (error.code, error.reason, error.field) == (
        grpc.StatusCode.INVALID_ARGUMENT, "FIELD_TOO_LONG", "topic",
    )  # fmt: skip
    assert error.facts == {"length": "10000000", "limit": "32768"}
    status, body = await rest("POST", "/v1/sessions", {"topic": huge, "agents": ["Athena"]})
    assert (status, reason_of(body), field_of(body)) == (400, "FIELD_TOO_LONG", "topic")


async def test_a_malformed_message_is_the_callers_fault(mesh: Mesh, credential: str) -> None:
    async with grpc.aio.insecure_channel(mesh.edge) as channel:
        call = channel.unary_unary("/agentnet.orchestrator.v1.SessionService/StartSession")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call(b"\xff\xff\xff", metadata=(("authorization", f"Bearer {credential}"),))
    trailers: Any = dict(raised.value.trailing_metadata() or ())
    status, info = status_pb2.Status.FromString(trailers["grpc-status-details-bin"]), error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (raised.value.code(), info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MESSAGE_MALFORMED")


async def test_malformed_json_is_a_bad_request(mesh: Mesh, credential: str) -> None:
    headers = {"authorization": f"Bearer {credential}", **JSON}
    async with aiohttp.ClientSession(headers=headers) as session:
        async with session.post(f"http://{mesh.edge}/v1/sessions", data=b"{not json") as answer:
            assert answer.status == 400


def unsigned_token() -> str:
    def part(data: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(data).encode()).decode().rstrip("=")

    claims = {"iss": "agentnet-local", "aud": "agentnet", "sub": "eve", "tenant": "default", "roles": ["admin"]}
    return f"{part({'alg': 'none', 'typ': 'JWT'})}.{part({**claims, 'exp': 4_000_000_000})}."


def foreign_token() -> str:
    claims = {"iss": "agentnet-local", "aud": "agentnet", "sub": "eve", "tenant": "default", "roles": ["admin"]}
    return jwt.encode({**claims, "exp": 4_000_000_000}, "k" * 32, algorithm="HS256")


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (lambda mesh: mesh.token(ttl_seconds=-600), "TOKEN_EXPIRED"),
        (lambda _: unsigned_token(), "TOKEN_UNTRUSTED"),
        (lambda _: foreign_token(), "TOKEN_UNTRUSTED"),
        (lambda _: "not-a-token", "TOKEN_MALFORMED"),
        (lambda _: "ank.default.key_X.nothing", "API_KEY_INVALID"),
        (lambda _: None, "CREDENTIALS_MISSING"),
    ],
    ids=["expired", "alg none", "wrong key", "no jwt", "no such key", "nothing"],
)
async def test_a_bad_credential_is_refused_with_the_reason(mesh: Mesh, made: Any, reason: str) -> None:
    credential = made(mesh)
    status, body = await Rest(mesh, credential)("GET", "/v1/caller")
    assert (status, reason_of(body)) == (401, reason)
    async with AgentNet.connect(mesh.edge, credential=credential or "") as stranger:
        stranger._transport.target = type(stranger._transport.target)(mesh.edge, credential)
        error = await refused(stranger.caller())
    assert (error.code, error.reason) == (grpc.StatusCode.UNAUTHENTICATED, reason)


async def test_another_tenants_session_does_not_exist(mesh: Mesh, client: AgentNet) -> None:
    session = await client.sessions.start("ours", agents=["Athena"])
    stranger = mesh.token(tenant="other")
    status, body = await Rest(mesh, stranger)("GET", f"/v1/sessions/{session.id}")
    assert (status, reason_of(body)) == (404, "SESSION_NOT_FOUND")
    async with AgentNet.connect(mesh.edge, credential=stranger) as other:
        error = await refused(other.sessions.get(session.id))
        with pytest.raises(AgentNetError) as raised:
            async for _ in other.sessions.watch(session.id):
                pass
    assert error.reason == raised.value.reason == "SESSION_NOT_FOUND"


async def test_a_role_that_may_not_is_denied(mesh: Mesh) -> None:
    status, body = await Rest(mesh, mesh.token(role="auditor"))("POST", "/v1/sessions", {"topic": "x"})
    assert (status, reason_of(body)) == (403, "ROLE_INSUFFICIENT")


async def test_internal_methods_are_closed_at_the_edge(client: AgentNet, mesh: Mesh) -> None:
    from agentnet.cost.v1 import cost_service_pb2, cost_service_pb2_grpc

    stub = cost_service_pb2_grpc.CostServiceStub(client._transport.channel)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.Settle(cost_service_pb2.SettleRequest(), metadata=client._transport.target.metadata())
    assert raised.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_spoofed_identity_header_never_arrives(mesh: Mesh, credential: str) -> None:
    status, body = await Rest(mesh, None)("GET", "/v1/caller", **{"x-agentnet-identity": "forged"})
    assert (status, reason_of(body)) == (401, "CREDENTIALS_MISSING")
    status, body = await Rest(mesh, credential)("GET", "/v1/caller", **{"x-agentnet-identity": "forged"})
    assert (status, body["principal"]["subject"]) == (200, "local-admin")


async def test_a_path_that_is_not_there_is_not_found(rest: Rest) -> None:
    status, body = await rest("GET", "/v1/nothing")
    assert (status, reason_of(body)) == (404, "NOT_SERVED")


# --- governance on the way ------------------------------------------------------------------------------------------


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
    import asyncio

    for _ in range(15):
        text = "".join(
            [piece async for piece in client.inference.stream_text("tell", model="synthetic", max_output_tokens=200)]
        )
        if "REDACTED" in text:
            return text
        await asyncio.sleep(0.1)
    return text


async def test_an_api_key_works_until_it_is_revoked(client: AgentNet, mesh: Mesh) -> None:
    import asyncio

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


# --- what must not be in the logs -------------------------------------------------------------------------------------


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
