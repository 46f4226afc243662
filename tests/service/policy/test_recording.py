"""What rules find in calls of tools is a violation like any other: stored, queried, counted as a threat."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from agentnet.policy.v1 import bundle_pb2
from agentnet.policy.v1 import policy_service_pb2 as pb
from agentnet.policy.v1 import risk_service_pb2 as risk_pb
from services.tools.errors import PolicyBlocked
from services.tools.policy import ArgumentPolicy, Held
from shared.clock import FakeClock
from shared.ids import SequentialIds
from shared.monitors.arguments import Call
from shared.monitors.violations import recording
from tests.support.identity import Keys
from tests.support.published import enforcing

ATTACKS = {"name": "attacks", "type": "injection", "severity": "SEVERITY_SEVERE"}
BIG = {
    "name": "big", "type": "tool_arguments", "severity": "SEVERITY_MAJOR", "action": "RULE_ACTION_REQUIRE_APPROVAL",
    "params": {"when": "args.amount > 100"},
}  # fmt: skip


async def test_a_call_that_rules_stop_is_a_violation_with_its_agent_session_and_tool(
    channel: grpc.aio.Channel, stub: Any, risks: Any, keys: Keys
) -> None:
    enforced = await enforcing(Held.of, ATTACKS, BIG)
    async with recording(channel, keys.signer, "tools", clock=FakeClock(), ids=SequentialIds()) as violations:
        policy = ArgumentPolicy(enforced, strict=True, note=violations.note)
        await policy.check("acme", Call("pay", {"amount": 5}, "Athena"))
        with pytest.raises(PolicyBlocked):
            await policy.check("acme", Call("pay", {"amount": 101, "note": "rm -rf / now"}, "Athena", (), "ses_1"))

    listed = (await stub.ListViolations(pb.ListViolationsRequest(), metadata=keys.metadata())).violations
    assert {(one.monitor_name, one.violation_type, one.agent, one.session_id) for one in listed} == {
        ("attacks", "injection", "Athena", "ses_1"), ("big", "tool_arguments", "Athena", "ses_1"),
    }  # fmt: skip
    big = next(one for one in listed if one.monitor_name == "big")
    assert (big.severity, big.meta["tool"], big.meta["action"]) == (
        bundle_pb2.SEVERITY_MAJOR,
        "pay",
        "require_approval",
    )
    assert big.rationale == "the call of pay matches rule big of default@1.0.0"
    counted = (await risks.ListRisks(risk_pb.ListRisksRequest(), metadata=keys.metadata())).risks
    assert {one.name: one.events for one in counted}["tool_injection"] == 1
