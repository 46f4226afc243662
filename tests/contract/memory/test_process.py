"""The service as a process of its own, on a real Postgres."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from agentnet.memory.v1 import bulk_service_pb2, bulk_service_pb2_grpc
from agentnet.memory.v1 import memory_service_pb2 as pb
from agentnet.memory.v1 import memory_service_pb2_grpc as rpc
from deploy.local.postgres import Cluster
from services.memory import main as composition
from tests.support.identity import Keys, make_keys
from tests.support.valkey import free_port

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return make_keys(tmp_path)


@pytest.fixture
async def channel(postgres: Cluster, keys: Keys, tmp_path: Path) -> AsyncIterator[grpc.aio.Channel]:
    port = free_port()
    settings = {
        "AGENTNET_LISTEN": f"127.0.0.1:{port}", "AGENTNET_POSTGRES_DSN": postgres.dsn("memory"),
        "AGENTNET_IDENTITY_KEYS": str(keys.jwks), "AGENTNET_DRAIN_GRACE": "0",
        "AGENTNET_MESH_ADDRESS": f"127.0.0.1:{free_port()}", "AGENTNET_MEMORY_STRICT": "false",
        "AGENTNET_IDENTITY_PRIVATE_KEY": str(keys.private_key),
    }  # fmt: skip
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            (sys.executable, "-m", "services.memory"), cwd=ROOT, env=os.environ | settings, stdout=log, stderr=log
        )
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                yield channel
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=20) == 0, (tmp_path / "log").read_text()


async def test_the_process_stores_recalls_and_stops(channel: grpc.aio.Channel, keys: Keys, tenant: str) -> None:
    caller = keys.metadata(tenant)
    given = pb.RememberRequest(content="The harbour opens at dawn", embedding=[1.0] * 384)
    store = bulk_service_pb2_grpc.BulkServiceStub(channel).RememberMany
    request = bulk_service_pb2.RememberManyRequest(memories=[given])
    (kept,) = (await store(request, metadata=caller, timeout=60, wait_for_ready=True)).memories
    question = pb.RecallRequest(query="harbour dawn", strategy="SEARCH_STRATEGY_LEXICAL", neighbours=1, explain=True)
    answer = await rpc.MemoryServiceStub(channel).Recall(question, metadata=caller, timeout=10)
    assert [match.memory.id for match in answer.matches] == [kept.memory.id]
    by_vector = pb.RecallRequest(query="harbour", embedding=[1.0] * 384)
    answer = await rpc.MemoryServiceStub(channel).Recall(by_vector, metadata=caller, timeout=10)
    assert answer.matches[0].score == pytest.approx(1, abs=1e-3)


async def test_without_a_key_the_start_says_which_setting_is_missing(
    postgres: Cluster, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTNET_LISTEN", f"127.0.0.1:{free_port()}")
    monkeypatch.setenv("AGENTNET_IDENTITY_KEYS", str(keys.jwks))
    monkeypatch.setenv("AGENTNET_POSTGRES_DSN", postgres.dsn("memory"))
    monkeypatch.delenv("AGENTNET_IDENTITY_PRIVATE_KEY", raising=False)
    begun: list[Any] = []
    monkeypatch.setattr(composition, "run", lambda name, settings, register, service_names: begun.append(register))
    composition.main()
    async with AsyncExitStack() as stack:
        with pytest.raises(ValueError, match="AGENTNET_IDENTITY_PRIVATE_KEY"):
            await begun[0](grpc.aio.server(), stack)
