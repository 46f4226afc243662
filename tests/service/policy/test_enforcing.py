"""An enforcement point: it takes what policy publishes, and goes on with it when policy is gone."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc
import pytest

from agentnet.policy.v1 import attachment_pb2, policy_service_pb2, policy_service_pb2_grpc
from services.policy import convert
from services.policy.main import SERVICES
from shared.monitors import wire
from shared.monitors.enforced import published
from shared.monitors.rules import Bundle, Mode, RuleType, Target
from shared.monitors.stream import StreamMonitor, compile_rules
from shared.rpc.channel import mesh_channel
from shared.rpc.server import serving
from shared.settings import MeshSettings
from tests.service.policy.calls import create
from tests.support.identity import Keys
from tests.support.policy import PolicyParts, served

RULES = """
mode: permissive
rules:
  - {name: personal, type: pii, severity: severe, entities: [ssn, card]}
  - {name: dose, type: numerical_threshold, severity: severe, pattern: '\\d+ mg', params: {max: 50}}
  - {name: halt, type: keyword, severity: severe, keywords: [halt], action: block, case_insensitive: true}
profiles: {few: {rules: [halt], mode: strict}}
"""
TEXT = "Her number is 123-45-6789, she takes 400 mg, halt. Card 4111 1111 1111 1111 is hers. "
SHOWN = "Her number is [REDACTED:personal], she takes [REDACTED:dose], halt. Card [REDACTED:personal] is hers. "


async def snapshot(stub: Any, keys: Keys) -> Any:
    call = stub.WatchBundles(policy_service_pb2.WatchBundlesRequest(), metadata=keys.metadata(kind="service"))
    return await anext(aiter(call))


def monitor(bundles: list[Bundle]) -> StreamMonitor:
    return StreamMonitor(compile_rules(bundles, Target.OUTPUT), Target.OUTPUT)


async def test_what_is_published_is_what_was_uploaded(stub: Any, keys: Keys) -> None:
    await create(stub, keys, RULES, labels=("production",))
    request = attachment_pb2.AttachBundleRequest(name="words", agent="Midas", profile="few")
    await stub.AttachBundle(request, metadata=keys.metadata())
    tenants = (await snapshot(stub, keys)).tenants
    (mine,) = wire.in_force(tenants, "acme", "Athena")
    assert [(rule.type, rule.keywords, dict(rule.params)) for rule in mine.rules] == [
        (RuleType.PII, ("ssn", "card"), {}), (RuleType.NUMERICAL_THRESHOLD, (), {"max": 50.0}),
        (RuleType.KEYWORD, ("halt",), {}),
    ]  # fmt: skip
    assert mine.mode is Mode.PERMISSIVE
    mine, attached = wire.in_force(tenants, "acme", "Midas")
    assert ([rule.name for rule in attached.rules], attached.mode) == (["halt"], Mode.STRICT)
    (default,) = wire.in_force(tenants, "globex", "Athena")
    assert default.name == "default"
    assert wire.in_force([], "acme", "Athena") == []


async def test_a_snapshot_of_many_tenants_comes_in_parts_and_is_taken_whole(
    keys: Keys, parts: PolicyParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convert, "_MAX_SNAPSHOT", 500)
    tenants = [f"tenant-{n}" for n in range(12)]
    async with served(parts) as channel:
        stub = policy_service_pb2_grpc.PolicyServiceStub(channel)
        for tenant in tenants:
            request = policy_service_pb2.CreateBundleRequest(name=tenant, document=RULES, labels=["production"])
            await stub.CreateBundle(request, metadata=keys.metadata(tenant))
        call = stub.WatchBundles(policy_service_pb2.WatchBundlesRequest(), metadata=keys.metadata(kind="service"))
        messages = aiter(call)
        told = [await anext(messages)]
        while told[-1].continued:
            told.append(await anext(messages))
        call.cancel()
        taken = await anext(aiter(published(channel, keys.signer, "tools")(0)))
    assert len(told) > len(tenants) // 2
    assert len({one.revision for one in told}) == 1
    assert sorted(one.tenant_id for message in told for one in message.tenants) == ["*", *sorted(tenants)]
    assert {tenant: [one.name for one in taken.in_force(tenant, "Athena")] for tenant in (*tenants, "new")} == {
        **{tenant: [tenant] for tenant in tenants}, "new": ["default"],
    }  # fmt: skip


@pytest.mark.parametrize("killed_at", range(0, len(TEXT) * 3, 17))
async def test_a_stream_stays_under_its_rules_when_policy_dies_in_the_middle(
    keys: Keys, parts: PolicyParts, killed_at: int
) -> None:
    settings = MeshSettings.model_validate({
        "listen": "127.0.0.1:0", "postgres_dsn": "postgres://nowhere", "identity_keys": keys.jwks, "drain_grace": 0,
    })  # fmt: skip
    shown: list[str] = []
    async with serving(settings, parts.register, service_names=SERVICES) as address:
        async with mesh_channel(address, services=SERVICES) as channel:
            stub = policy_service_pb2_grpc.PolicyServiceStub(channel)
            await create(stub, keys, RULES, labels=("production",))
            held = wire.in_force((await snapshot(stub, keys)).tenants, "acme", "Athena")
        judging = monitor(held)
        shown += [judging.feed(character).text for character in (TEXT * 3)[:killed_at]]
    with pytest.raises(OSError, match=r".*"):
        await asyncio.open_connection(*address.split(":"))
    shown += [judging.feed(character).text for character in (TEXT * 3)[killed_at:]]
    assert "".join([*shown, judging.finish().text]) == SHOWN * 3


async def test_a_label_reaches_a_watcher_within_a_second(keys: Keys, parts: PolicyParts) -> None:
    async with served(parts) as channel:
        stub = policy_service_pb2_grpc.PolicyServiceStub(channel)
        call = stub.WatchBundles(policy_service_pb2.WatchBundlesRequest(), metadata=keys.metadata(kind="service"))
        updates = aiter(call)
        first = await anext(updates)
        began = time.perf_counter()
        await create(stub, keys, RULES, labels=("production",))
        second = await asyncio.wait_for(anext(updates), 5)
        assert time.perf_counter() - began < 1
        assert second.revision > first.revision
        assert [one.name for one in wire.in_force(second.tenants, "acme", "Athena")] == ["words"]
        call.cancel()
        with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
            await anext(updates)
