"""Who tries to leave the sandbox, told to a served policy, and what its rules do about it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from shared.clock import FakeClock
from shared.risks import TOOL_INJECTION, RiskEvents, Tell, reporting
from tests.service.tools.calls import Code, invocation, refusal, register, said, tool
from tests.support.identity import Keys
from tests.support.policy import PolicyParts, served
from tests.support.risks import enforced, heard

WANTS_OUT = "import os\ndef adder(a, b):\n    return os.fork()\n"


@pytest.fixture
async def governed(keys: Keys, clock: FakeClock) -> AsyncIterator[tuple[grpc.aio.Channel, RiskEvents]]:
    async with (
        served(PolicyParts(keys, clock=clock)) as policy,
        reporting(policy, keys.signer, "tools", clock) as risks,
    ):
        yield policy, risks


@pytest.fixture
def tell(governed: tuple[grpc.aio.Channel, RiskEvents]) -> Tell:
    return governed[1].tell


async def test_a_caller_that_has_become_a_threat_is_told_with_its_attempts_and_alerts(
    stub: Any, keys: Keys, governed: tuple[grpc.aio.Channel, RiskEvents]
) -> None:
    policy, _ = governed
    await register(stub, keys, tool(function={"code": WANTS_OUT, "allowed_imports": ["os"]}))
    wanted = invocation(arguments={"a": 1, "b": 2}, agent="Athena", session_id="ses_1")
    for number in range(5):
        assert await heard(policy, keys, TOOL_INJECTION, at_least=0) == 0, number
        failed = await refusal(stub.InvokeTool(wanted, metadata=keys.metadata()))
        assert said(failed) == (Code.FAILED_PRECONDITION, "FUNCTION_FAILED")
    assert await heard(policy, keys, TOOL_INJECTION) == 1
    assert await enforced(policy, keys) == [("injection_wave_alerts", "acme")]
