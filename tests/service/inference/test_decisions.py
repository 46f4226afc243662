"""What rules decide inside streams is told to a served policy: found by simulations, tried by shadow bundles."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from redis.asyncio import Redis

from agentnet.policy.v1 import bundle_pb2, policy_service_pb2, policy_service_pb2_grpc
from agentnet.policy.v1 import simulation_service_pb2 as pb
from agentnet.policy.v1.simulation_service_pb2_grpc import SimulationServiceStub
from services.inference.enforcement import Guard, Held
from shared.monitors.decisions import NAME, Decided
from shared.monitors.enforced import Snapshot, published
from shared.monitors.rules import Target
from shared.rpc.channel import mesh_channel
from tests.service.inference.calls import generated, refusal
from tests.support.identity import Keys
from tests.support.inference import DEFAULT, Replica, kinds, replica, request, text_of
from tests.support.policy import PolicyParts, served

FORCED = """
rules:
  - {name: mail, type: regex, severity: major, pattern: '[a-z]+@[a-z]+\\.org', target: output}
  - {name: halt, type: keyword, severity: severe, keywords: [halt], action: block}
"""
TRIED = "rules: [{name: net, type: keyword, severity: severe, keywords: [mesh], action: block}]"
LATER = Timestamp(seconds=4_000_000_000)


@pytest.fixture
async def policy(keys: Keys) -> AsyncIterator[grpc.aio.Channel]:
    parts = PolicyParts(keys)
    async with served(parts) as channel:
        stub = policy_service_pb2_grpc.PolicyServiceStub(channel)
        for name, document, label in (("forced", FORCED, "production"), ("tried", TRIED, "shadow")):
            new = policy_service_pb2.CreateBundleRequest(name=name, document=document, labels=[label])
            await stub.CreateBundle(new, metadata=keys.metadata())
        yield channel


@asynccontextmanager
async def governed(keys: Keys, redis: Redis, policy: grpc.aio.Channel) -> AsyncIterator[Replica]:
    """A replica once it has heard of the served policy."""
    watch = published(policy, keys.signer, "inference")
    async with replica(keys, redis, snapshot=None, watch=watch, told=policy) as running:
        async with asyncio.timeout(5):
            while not running.engine.enforcement.revision:
                await asyncio.sleep(0.01)
        yield running


async def decided(channel: grpc.aio.Channel, keys: Keys, count: int) -> dict[str, pb.Decision]:
    """All decisions, once there are so many."""
    stub: Any = SimulationServiceStub(channel)
    async with asyncio.timeout(5):
        while True:
            answer = await stub.ListDecisions(pb.ListDecisionsRequest(), metadata=keys.metadata())
            if len(answer.decisions) >= count:
                return {one.id: one for one in answer.decisions}
            await asyncio.sleep(0.02)


async def simulated(channel: grpc.aio.Channel, keys: Keys, document: str) -> pb.SimulateBundleResponse:
    asked = pb.SimulateBundleRequest(document=document, start_time=Timestamp(), end_time=LATER)
    stub: Any = SimulationServiceStub(channel)
    answer: pb.SimulateBundleResponse = await stub.SimulateBundle(asked, metadata=keys.metadata())
    return answer


async def test_a_streamed_generation_is_found_by_a_simulation_and_tried_by_shadow_bundles(
    keys: Keys, redis: Redis, policy: grpc.aio.Channel
) -> None:
    async with governed(keys, redis, policy) as running:
        running.model.steps = ["Through the me", "sh. Write to a@", "b.org"]
        call = request(agent="Athena@1.0.0", session_id="ses_1")
        assert text_of(await generated(running, keys, call)) == "Through the mesh. Write to [REDACTED:mail]"
        running.model.steps = ["Do not ha", "lt"]
        assert kinds(await generated(running, keys, request(generation_id="gen_2")))[-1] == "failed"
        await refusal(generated(running, keys, request("halt!", generation_id="gen_3")))
        found = await decided(policy, keys, 5)
    assert {name: (one.allowed, one.unchanged, list(one.rules)) for name, one in found.items()} == {
        "gen_1-prompt": (True, True, []), "gen_1-output": (True, False, ["mail"]),
        "gen_2-prompt": (True, True, []), "gen_2-output": (False, False, ["halt"]),
        "gen_3-prompt": (False, False, ["halt"]),
    }  # fmt: skip
    one = found["gen_1-output"]
    assert (one.target, one.agent, one.session_id) == (bundle_pb2.RULE_TARGET_OUTPUT, "Athena", "ses_1")
    assert (list(one.bundles), one.truncated) == (["forced@1.0.0"], False)
    flips = await simulated(policy, keys, TRIED)
    assert (flips.decisions, flips.newly_blocked, flips.newly_allowed, flips.newly_changed) == (5, 1, 2, 0)
    assert (flips.blast_radius.sessions, flips.rules[0].rule, flips.rules[0].matches) == (1, "net", 1)
    same = await simulated(policy, keys, FORCED)
    assert (same.newly_blocked, same.newly_allowed, same.newly_changed) == (0, 0, 0)
    asked = policy_service_pb2.ListViolationsRequest(shadow=True)
    stub: Any = policy_service_pb2_grpc.PolicyServiceStub(policy)
    (shadow,) = (await stub.ListViolations(asked, metadata=keys.metadata())).violations
    assert (shadow.monitor_name, shadow.meta["decision"], shadow.session_id) == ("net", "gen_1-output", "ses_1")


async def test_only_the_part_that_is_kept_of_a_long_answer_counts(
    keys: Keys, redis: Redis, policy: grpc.aio.Channel
) -> None:
    async with governed(keys, redis, policy) as running:
        running.model.steps = [*["so " * 10_000] * 3, "halt"]
        await generated(running, keys, request())
        found = await decided(policy, keys, 2)
    assert (found["gen_1-output"].truncated, found["gen_1-output"].allowed) == (True, False)
    opened = await simulated(policy, keys, "rules: [{name: so, type: keyword, severity: minor, keywords: [never]}]")
    assert (opened.decisions, opened.newly_allowed, opened.newly_changed) == (2, 0, 0)


async def test_a_policy_that_is_gone_costs_the_stream_nothing(keys: Keys, redis: Redis) -> None:
    wanted = Snapshot(1, DEFAULT.tenants, None, {"*": 1.0})
    async with (
        mesh_channel("127.0.0.1:9", services=(NAME,)) as nowhere,
        replica(keys, redis, snapshot=wanted, told=nowhere) as running,
    ):
        async with asyncio.timeout(2):
            events = [await generated(running, keys, request(generation_id=f"gen_{turn}")) for turn in range(20)]
    assert {kinds(one)[-1] for one in events} == {"finished"}


async def test_what_its_numbers_stop_is_judged_again_by_them(
    keys: Keys, redis: Redis, policy: grpc.aio.Channel
) -> None:
    few = "rules: [{name: few, type: resource, severity: severe, params: {resource: tokens, limit: 12}}]"
    new = policy_service_pb2.CreateBundleRequest(name="few", document=few, labels=["production"])
    stub: Any = policy_service_pb2_grpc.PolicyServiceStub(policy)
    await stub.CreateBundle(new, metadata=keys.metadata())
    async with governed(keys, redis, policy) as one:
        one.model.steps = ["word "] * 40
        assert kinds(await generated(one, keys, request()))[-1] == "failed"
        found = await decided(policy, keys, 2)
    assert {name: made.allowed for name, made in found.items()} == {"gen_1-prompt": True, "gen_1-output": False}
    same = await simulated(policy, keys, few)
    assert (same.newly_blocked, same.newly_allowed) == (0, 0)
    assert (await simulated(policy, keys, few.replace("12", "1000"))).newly_allowed == 1


async def test_thoughts_and_arguments_are_told_beside_the_text_and_an_attempt_that_began_anew_is_not() -> None:
    told: list[tuple[str, Decided]] = []
    first = Guard(Held.of(DEFAULT.tenants["*"]), None, lambda part, one: told.append((part, one)))
    await first.text("lost")
    guard = first.anew()
    for piece in ("write to a@", "b.org"):
        await guard.reasoning(piece)
    await guard.text("done")
    guard.arguments('{"a": 1}')
    guard.arguments('{"a": "bomb"}')
    guard.ended(facts={"tokens": 3.0}, stopped=False)
    assert [(part, one.target, one.text, one.allowed) for part, one in told] == [
        ("output", Target.OUTPUT, "done", True),
        ("reasoning", Target.OUTPUT, "write to a@b.org", True),
        ("call-0", Target.TOOL_ARGUMENTS, '{"a": 1}', True),
        ("call-1", Target.TOOL_ARGUMENTS, '{"a": "bomb"}', False),
    ]
    assert told[0][1].facts == {"tokens": 3.0}
