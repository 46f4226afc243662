"""A call that a rule holds back until somebody gives leave: what it says, and what a token of policy's lets pass."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import grpc
import jwt
import pytest

from agentnet.policy.v1 import override_service_pb2 as overrides_pb
from agentnet.policy.v1.override_service_pb2_grpc import OverrideServiceStub
from agentnet.policy.v1.policy_service_pb2_grpc import PolicyServiceStub
from services.policy.audit import AuditFilter
from services.tools.errors import CallApprovalRequired, PolicyUnavailable
from services.tools.overrides import NAME, GrpcOverrides
from services.tools.policy import ArgumentPolicy, Held
from services.tools.store_memory import MemoryToolStore
from shared.errors import MeshError
from shared.monitors.arguments import Call
from shared.monitors.decisions import Decided
from shared.rpc.channel import mesh_channel
from tests.service.policy.calls import create
from tests.service.tools.calls import Code, events, invocation, refusal, register, said, tool
from tests.support.identity import Keys
from tests.support.policy import PolicyParts, served
from tests.support.published import enforcing

ECHO = "def adder(**given): return 'done'\n"
LEAVE = {"severity": "SEVERITY_SEVERE", "action": "RULE_ACTION_REQUIRE_APPROVAL"}
BIG = {**LEAVE, "name": "big_payments", "type": "tool_arguments", "params": {"when": "args.amount > 100"}}
ABROAD = {**LEAVE, "name": "abroad", "type": "keyword", "keywords": ["Zurich"]}
NO_BOMBS = {"name": "no_bombs", "type": "keyword", "severity": "SEVERITY_SEVERE", "keywords": ["bomb"]}
DOCUMENT = """
rules:
  - {name: big_payments, type: tool_arguments, severity: severe, action: require_approval, params: {when: "args.amount > 100"}}
  - {name: abroad, type: keyword, severity: severe, action: require_approval, keywords: [Zurich], target: tool_arguments}
  - {name: no_bombs, type: keyword, severity: severe, keywords: [bomb]}
"""
ASKED: dict[str, Any] = {"amount": 101, "to": "Bern"}


@pytest.fixture
def parts(keys: Keys) -> PolicyParts:
    return PolicyParts(keys)


@pytest.fixture
async def policy_channel(parts: PolicyParts, keys: Keys) -> AsyncIterator[grpc.aio.Channel]:
    async with served(parts) as channel:
        await create(PolicyServiceStub(channel), keys, DOCUMENT, labels=("production",))
        yield channel


@pytest.fixture
def overrides(policy_channel: grpc.aio.Channel) -> OverrideServiceStub:
    return OverrideServiceStub(policy_channel)


@pytest.fixture
def told() -> list[Decided]:
    return []


@pytest.fixture
async def policy(policy_channel: grpc.aio.Channel, told: list[Decided]) -> ArgumentPolicy:
    enforced = await enforcing(Held.of, BIG, ABROAD, NO_BOMBS)
    return ArgumentPolicy(
        enforced, strict=True, overrides=GrpcOverrides(policy_channel), note=lambda _, one: told.append(one)
    )


@pytest.fixture(autouse=True)
async def registered(stub: Any, keys: Keys) -> None:
    await register(stub, keys, tool(ECHO, allowed_agents=["*"]))


async def leave(overrides: Any, keys: Keys, *rules: str, **scope: Any) -> overrides_pb.CreateOverrideResponse:
    request = overrides_pb.CreateOverrideRequest(rules=rules or ["big_payments"], reason="the rent", **scope)
    made: overrides_pb.CreateOverrideResponse = await overrides.CreateOverride(
        request, metadata=keys.metadata(subject="olga")
    )
    return made


async def pay(stub: Any, keys: Keys, token: str = "", *, tenant: str = "acme", **more: Any) -> str:
    arguments = more.pop("arguments", ASKED)
    request = invocation("adder", arguments, override_token=token, **more)
    answer = await stub.InvokeTool(request, metadata=keys.metadata(tenant))
    return str(answer.finished.result.string_value)


async def refused(stub: Any, keys: Keys, token: str, **more: Any) -> str:
    error = await refusal(pay(stub, keys, token, **more))
    assert error.code is Code.PERMISSION_DENIED
    return error.reason_name


async def waits(stub: Any, keys: Keys, token: str = "", **more: Any) -> MeshError:
    error = await refusal(pay(stub, keys, token, **more))
    assert said(error) == (Code.FAILED_PRECONDITION, "CALL_APPROVAL_REQUIRED")
    return error


async def test_a_call_that_waits_for_leave_says_by_which_rule_and_how_to_get_it(stub: Any, keys: Keys) -> None:
    error = await waits(stub, keys, session_id="ses_1")

    assert error.facts == {
        "rule": "big_payments", "rules": "big_payments", "bundle": "default@1.0.0",
        "bundles": "default@1.0.0", "tool": "adder", "agent": "Athena", "session_id": "ses_1",
    }  # fmt: skip
    assert "CreateOverride" in error.message
    assert "override_token" in error.message


async def test_every_rule_that_wants_leave_is_named_unless_one_is_against_it_anyway(stub: Any, keys: Keys) -> None:
    error = await waits(stub, keys, arguments={"amount": 101, "to": "Zurich"})
    assert error.facts["rules"] == "abroad, big_payments"

    blocked = await refusal(pay(stub, keys, arguments={"amount": 101, "to": "a bomb"}))
    assert (blocked.reason_name, blocked.facts["rule"]) == ("POLICY_BLOCKED", "no_bombs")


async def test_the_same_call_with_the_token_is_made_and_its_use_is_audited(
    stub: Any, overrides: Any, keys: Keys, parts: PolicyParts, told: list[Decided]
) -> None:
    made = await leave(overrides, keys, agent="Athena", session_id="ses_1", tool="adder")

    assert await pay(stub, keys, made.token, session_id="ses_1") == "done"

    (listed,) = (await overrides.ListOverrides(overrides_pb.ListOverridesRequest(), metadata=keys.metadata())).overrides
    assert (listed.uses, listed.tool, listed.issued_by) == (1, "adder", "olga")
    acts = await parts.governance.entries("acme", AuditFilter(), after=0, limit=10)
    assert [(one.act, one.actor) for one in acts][-2:] == [("override.create", "olga"), ("override.use", "ada")]
    assert acts[-1].detail == {"agent": "Athena", "session_id": "ses_1", "tool": "adder"}
    assert (told[-1].allowed, told[-1].rules) == (True, ("big_payments",))
    assert [verdict.action.value for verdict in told[-1].verdicts] == ["allow"]


async def test_a_text_rule_is_excused_too_and_a_stream_takes_the_token(stub: Any, overrides: Any, keys: Keys) -> None:
    arguments = {"amount": 101, "to": "Zurich"}
    one = (await leave(overrides, keys, "abroad")).token
    both = (await leave(overrides, keys, "abroad", "big_payments")).token

    assert (await waits(stub, keys, one, arguments=arguments)).facts["rules"] == "big_payments"
    told = await events(stub, keys, invocation("adder", arguments, override_token=both))
    assert told[-1].finished.result.string_value == "done"


async def test_a_token_for_another_rule_leaves_the_call_waiting(stub: Any, overrides: Any, keys: Keys) -> None:
    token = (await leave(overrides, keys, "abroad")).token
    assert (await waits(stub, keys, token)).facts["rules"] == "big_payments"


async def test_a_token_does_not_help_against_another_rule_that_blocks(stub: Any, overrides: Any, keys: Keys) -> None:
    token = (await leave(overrides, keys)).token
    error = await refusal(pay(stub, keys, token, arguments={"amount": 101, "to": "a bomb"}))
    assert (error.reason_name, error.facts["rule"]) == ("POLICY_BLOCKED", "no_bombs")


async def test_a_token_whose_time_has_passed_is_refused(
    stub: Any, overrides: Any, keys: Keys, parts: PolicyParts
) -> None:
    token = (await leave(overrides, keys, ttl=timedelta(minutes=1))).token
    parts.clock.advance(timedelta(minutes=1))
    assert await refused(stub, keys, token) == "OVERRIDE_EXPIRED"


async def test_a_token_taken_back_is_refused_at_the_next_call(stub: Any, overrides: Any, keys: Keys) -> None:
    made = await leave(overrides, keys)
    assert await pay(stub, keys, made.token) == "done"
    request = overrides_pb.RevokeOverrideRequest(id=made.override.id)
    await overrides.RevokeOverride(request, metadata=keys.metadata())
    assert await refused(stub, keys, made.token) == "OVERRIDE_INVALID"


async def test_a_token_of_another_tenants_is_refused(stub: Any, overrides: Any, keys: Keys) -> None:
    await register(stub, keys, tool(ECHO, allowed_agents=["*"]), tenant="globex")
    token = (await leave(overrides, keys)).token
    assert await refused(stub, keys, token, tenant="globex") == "OVERRIDE_INVALID"


async def test_a_token_with_other_claims_than_were_signed_is_refused(stub: Any, overrides: Any, keys: Keys) -> None:
    claims = jwt.decode((await leave(overrides, keys, "abroad")).token, options={"verify_signature": False})
    forged = jwt.encode({**claims, "rules": ["big_payments"]}, "0123456789abcdef0123456789abcdef", algorithm="HS256")
    assert await refused(stub, keys, forged) == "OVERRIDE_INVALID"


@pytest.mark.parametrize("scope", [{"agent": "Apollo"}, {"session_id": "ses_2"}, {"tool": "payer"}])
async def test_a_token_for_another_agent_session_or_tool_is_refused(
    stub: Any, overrides: Any, keys: Keys, scope: dict[str, str]
) -> None:
    token = (await leave(overrides, keys, **scope)).token
    assert await refused(stub, keys, token, session_id="ses_1") == "OVERRIDE_INVALID"


async def test_without_policys_word_no_token_holds_and_a_call_without_one_is_judged() -> None:
    enforced, call = await enforcing(Held.of, BIG), Call("adder", ASKED, "Athena")
    async with mesh_channel("127.0.0.1:1", services=(NAME,)) as nowhere:
        for policy in (
            ArgumentPolicy(enforced, strict=True, overrides=GrpcOverrides(nowhere)), ArgumentPolicy(enforced, strict=True)
        ):  # fmt: skip
            with pytest.raises(PolicyUnavailable):
                await policy.check("acme", call, override="a token")
            with pytest.raises(CallApprovalRequired):
                await policy.check("acme", call)


async def test_a_token_is_neither_kept_nor_part_of_what_a_request_id_names(
    stub: Any,
    overrides: Any,
    keys: Keys,
    store: MemoryToolStore,
    capsys: pytest.CaptureFixture[str],
    told: list[Decided],
) -> None:
    first, second = (await leave(overrides, keys)).token, (await leave(overrides, keys)).token
    for token in (first, second):
        assert await pay(stub, keys, token, request_id="pay_once") == "done"
    await waits(stub, keys, request_id="pay_twice")

    kept = repr(vars(store)) + repr(told) + json.dumps(capsys.readouterr())
    assert "pay_once" in kept
    assert first not in kept
    assert second not in kept


async def test_a_token_that_is_too_long_is_refused(stub: Any, keys: Keys) -> None:
    error = await refusal(pay(stub, keys, "x" * 4097))
    assert (said(error), error.field) == ((Code.INVALID_ARGUMENT, "FIELD_TOO_LONG"), "override_token")
