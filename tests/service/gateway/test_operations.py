"""One question and its answer, and what only operators may look at."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio

from tests.support.edge import Edge, running_edge
from tests.support.scripted_inference import WORDS, ScriptedInference
from tests.support.scripted_orchestrator import serve_orchestrator

pytestmark = pytest.mark.asyncio(loop_scope="module")


def serve(server: grpc.aio.Server) -> None:
    ScriptedInference().serve(server)
    serve_orchestrator(server)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Edge]:
    async with running_edge(tmp_path_factory.mktemp("edge"), serve=serve, platform_tenant="platform") as running:
        yield running


async def test_one_call_asks_a_model_or_an_agent(edge: Edge) -> None:
    token = edge.token("tenant_user")
    said = await edge.ok("POST", "/v1/run", token, {"prompt": "Say hello.", "model": "words"})
    assert (said["text"], said["answered_by"]) == ("".join(WORDS), "words")
    assert (said["usage"]["input_tokens"], said["usage"]["output_tokens"]) == ("7", "4")
    anew = await edge.ok("POST", "/v1/run", token, {"prompt": "Say hello.", "model": "anew"})
    assert anew["text"] == "".join(WORDS)
    asked = await edge.ok("POST", "/v1/run", token, {"prompt": "Say hello.", "agent": "Athena"})
    assert (asked["text"], asked["answered_by"]) == ("Say hello.", "agent:Athena@1.0.0")
    assert asked["id"].startswith("ses_")
    missing = await edge.bearer("POST", "/v1/run", token, {"prompt": "x", "agent": "Zeus"})
    assert (missing.status, missing.reason) == (404, "AGENT_NOT_FOUND")
    empty = await edge.bearer("POST", "/v1/run", token, {})
    assert (empty.status, empty.reason) == (400, "FIELD_REQUIRED")


async def test_the_state_inside_is_for_admins_of_the_platform(edge: Edge) -> None:
    found = await edge.ok("GET", "/v1/debug/gateway", edge.token(tenant="platform"))
    assert found["methods"] > 50
    assert int(found["resident_bytes"]) > 10_000_000
    assert {"audit", "deliver"} <= {task["name"] for task in found["tasks"]}
    assert {"name": "user", "per_second": 500, "burst": 2000} in found["limits"]
    assert (await edge.bearer("GET", "/v1/debug/gateway", edge.token(tenant="acme"))).status == 404
    assert (await edge.bearer("GET", "/v1/debug/gateway", edge.token("operator", tenant="platform"))).status == 403
    assert (await edge.rest("GET", "/v1/debug/gateway")).status == 401
