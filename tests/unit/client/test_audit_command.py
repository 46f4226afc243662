"""`agentnet audit verify` says whether the trail is whole, and its exit code says it to scripts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from typer.testing import CliRunner

from agentnet.cli.main import app
from agentnet.policy.v1 import access_service_pb2 as pb
from agentnet.policy.v1 import access_service_pb2_grpc as rpc


class Trail(rpc.AccessServiceServicer):
    """A mesh whose trail is in the state it is told."""

    def __init__(self) -> None:
        self.state = pb.VerifyAuditResponse(entries=7)
        self.credentials: list[str] = []

    async def VerifyAudit(self, request: pb.VerifyAuditRequest, context: Any) -> pb.VerifyAuditResponse:
        self.credentials.append(dict(context.invocation_metadata())["authorization"])
        return self.state


@pytest.fixture
async def trail(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Trail]:
    server, served = grpc.aio.server(), Trail()
    rpc.add_AccessServiceServicer_to_server(served, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    monkeypatch.setenv("AGENTNET_ADDRESS", f"127.0.0.1:{port}")
    monkeypatch.setenv("AGENTNET_TOKEN", "a.b.c")
    yield served
    await server.stop(None)


async def verified(*options: str) -> tuple[int, str]:
    result = await asyncio.to_thread(CliRunner().invoke, app, ["audit", "verify", *options])
    return result.exit_code, result.output


async def test_a_whole_trail_ends_with_0(trail: Trail) -> None:
    code, said = await verified()

    assert code == 0
    assert "7 entries are as they were sealed" in said


async def test_a_broken_trail_names_the_entry_and_ends_with_1(trail: Trail) -> None:
    trail.state = pb.VerifyAuditResponse(entries=2, broken_at=3)

    code, said = await verified()

    assert code == 1
    assert "broken at entry 3" in said


async def test_the_trail_of_another_tenant_of_the_local_mesh_is_read_as_that_tenant(
    trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentnet.cli.audit.local_token", lambda tenant, *_: f"for.{tenant}.x")

    await verified("--tenant", "acme")
    await verified()

    assert trail.credentials == ["Bearer for.acme.x", "Bearer a.b.c"]
