"""Leave as policy itself gives it: what people see, who decides, the token of a yes, at a served policy."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from agentnet.orchestrator.v1 import input_pb2
from agentnet.policy.v1 import override_service_pb2 as overrides_pb
from agentnet.policy.v1.override_service_pb2_grpc import OverrideServiceStub
from agentnet.policy.v1.policy_service_pb2_grpc import PolicyServiceStub
from services.orchestrator.peers_leave import SERVICE, GrpcLeave
from shared.errors import PermissionDenied, Unavailable
from shared.identity import Principal
from shared.rpc.channel import mesh_channel
from tests.service.policy.calls import create
from tests.support.identity import Keys, make_keys
from tests.support.policy import PolicyParts, served

ADA = Principal("acme", "ada", frozenset({"tenant_user"}))
OLGA = Principal("acme", "olga", frozenset({"operator"}))
DOCUMENT = """
rules:
  - {name: big, type: tool_arguments, severity: severe, action: require_approval, params: {when: "args.amount > 100"}}
  - {name: cards, type: pii, severity: severe, entities: [card], target: output}
  - {name: no_bombs, type: keyword, severity: severe, action: block, keywords: [bomb], target: output}
"""
CALL = input_pb2.HumanInput(
    id="inp_1", session_id="ses_1", agent="Athena@1.0.0", tool="payer", request_id="eff_1", rules=["big"]
)


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return make_keys(tmp_path)


@pytest.fixture
def parts(keys: Keys) -> PolicyParts:
    return PolicyParts(keys)


@pytest.fixture
async def leave(parts: PolicyParts, keys: Keys) -> AsyncIterator[GrpcLeave]:
    async with served(parts) as channel:
        await create(PolicyServiceStub(channel), keys, DOCUMENT, labels=("production",))
        yield GrpcLeave(channel, keys.signer)


async def used(leave: GrpcLeave, keys: Keys, token: str, **scope: str) -> list[str]:
    request = overrides_pb.UseOverrideRequest(token=token, agent="Athena", session_id="ses_1", **scope)
    stub: OverrideServiceStub = leave._overrides
    return list((await stub.UseOverride(request, metadata=keys.metadata())).rules)


async def test_arguments_are_shown_as_an_answer_would_be(leave: GrpcLeave) -> None:
    arguments = '{"amount": 500, "card": "4111 1111 1111 1111"}'
    shown = await leave.shown(ADA, arguments, agent="Athena", session_id="ses_1")
    assert shown == '{"amount": 500, "card": "[REDACTED:cards]"}'
    assert await leave.shown(ADA, '{"to": "a bomb"}', agent="Athena", session_id="ses_1") == ""


async def test_a_yes_has_a_token_for_that_call_until_its_time_is_over(
    leave: GrpcLeave, keys: Keys, parts: PolicyParts
) -> None:
    override = await leave.decide(OLGA, CALL, approved=True, reason="")
    token = await leave.token(ADA, override)
    assert await used(leave, keys, token, tool="payer", request_id="eff_1") == ["big"]
    (stands,) = await parts.governance.overrides("acme")
    assert (stands.issued_by, stands.reason) == ("olga", "asked in session ses_1")
    parts.clock.advance(timedelta(hours=1))
    assert await leave.token(ADA, override) == ""


async def test_a_yes_to_a_turn_is_for_no_call_of_a_tool_alone(leave: GrpcLeave, parts: PolicyParts) -> None:
    said = input_pb2.HumanInput(session_id="ses_1", agent="Athena@1.0.0", request_id="trn_1-1", rules=["big"])
    await leave.decide(OLGA, said, approved=True, reason="fine")
    (stands,) = await parts.governance.overrides("acme")
    assert (stands.tool, stands.request_id, stands.session_id, stands.agent) == ("", "", "ses_1", "Athena")


async def test_who_may_not_decide_is_refused_by_policy(leave: GrpcLeave, parts: PolicyParts) -> None:
    for approved in (True, False):
        with pytest.raises(PermissionDenied) as refused:
            await leave.decide(ADA, CALL, approved=approved, reason="")
        assert refused.value.reason_name == "ROLE_INSUFFICIENT"
    assert not await parts.governance.overrides("acme")


async def test_without_policy_nobody_decides_and_no_token_is_told(keys: Keys) -> None:
    async with mesh_channel("127.0.0.1:1", services=(SERVICE,)) as nowhere:
        leave = GrpcLeave(nowhere, keys.signer)
        assert await leave.token(ADA, "") == ""
        for asked in (leave.decide(OLGA, CALL, approved=True, reason=""), leave.token(ADA, "ovr_1")):
            with pytest.raises(Unavailable):
                await asked


async def test_a_call_of_a_graph_for_which_no_agent_stands_is_let_go_on_by_its_name(
    leave: GrpcLeave, keys: Keys
) -> None:
    asked = input_pb2.HumanInput(id="inp_1", session_id="ses_1", tool="payer@1.0.0", request_id="eff_1", rules=["big"])
    made = await leave.decide(OLGA, asked, approved=True, reason="rent")
    token = await leave.token(ADA, made)
    assert await used(leave, keys, token, tool="payer", request_id="eff_1") == ["big"]
