"""Overrides: what a token excuses, for whom, how long, and that every use is written down."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import jwt

from agentnet.policy.v1 import bundle_pb2
from agentnet.policy.v1 import override_service_pb2 as pb
from services.policy.audit import AuditFilter
from tests.service.policy.calls import check, create, refusal
from tests.support.identity import Keys
from tests.support.policy import PolicyParts

OUTPUT = bundle_pb2.RULE_TARGET_OUTPUT
TEXT = "the mesh"


async def given(overrides: Any, keys: Keys, **more: Any) -> pb.CreateOverrideResponse:
    request = pb.CreateOverrideRequest(rules=["words"], reason="a product name", **more)
    answer: pb.CreateOverrideResponse = await overrides.CreateOverride(request, metadata=keys.metadata(subject="olga"))
    return answer


async def test_an_excused_rule_lets_pass_and_says_so(stub: Any, overrides: Any, keys: Keys, parts: PolicyParts) -> None:
    await create(stub, keys, labels=("production",))
    token = (await given(overrides, keys)).token
    assert (await check(stub, keys, TEXT, target=OUTPUT)).text == "the [REDACTED:words]"
    judged = await check(stub, keys, TEXT, target=OUTPUT, override_token=token)
    assert (judged.text, judged.findings[0].action) == (TEXT, bundle_pb2.RULE_ACTION_ALLOW)
    assert {one.name: one.status for one in judged.monitors}["words"] == "excused"
    (listed,) = (await overrides.ListOverrides(pb.ListOverridesRequest(), metadata=keys.metadata())).overrides
    assert (listed.uses, listed.issued_by) == (1, "olga")
    acts = await parts.governance.entries("acme", AuditFilter(), after=0, limit=10)
    assert [(one.act, one.actor) for one in acts][1:] == [("override.create", "olga"), ("override.use", "ada")]


async def test_an_override_holds_for_its_agent_and_session_only(stub: Any, overrides: Any, keys: Keys) -> None:
    await create(stub, keys, labels=("production",))
    token = (await given(overrides, keys, agent="Athena", session_id="ses_1")).token
    fits = await check(stub, keys, TEXT, target=OUTPUT, override_token=token, agent="Athena", session_id="ses_1")
    assert fits.text == TEXT
    for more in ({"agent": "Apollo", "session_id": "ses_1"}, {"agent": "Athena", "session_id": "ses_2"}):
        error = await refusal(check(stub, keys, TEXT, override_token=token, **more))
        assert error.reason_name == "OVERRIDE_INVALID"


async def test_an_override_for_a_tool_holds_for_its_calls_only(stub: Any, overrides: Any, keys: Keys) -> None:
    await create(stub, keys, labels=("production",))
    token = (await given(overrides, keys, tool="payer")).token
    assert (await check(stub, keys, "", tool="payer", override_token=token)).allowed
    for text, more in ((TEXT, {}), ("", {"tool": "adder"})):
        error = await refusal(check(stub, keys, text, override_token=token, **more))
        assert error.reason_name == "OVERRIDE_INVALID"

    use = pb.UseOverrideRequest(token=token, tool="payer")
    assert list((await overrides.UseOverride(use, metadata=keys.metadata())).rules) == ["words"]
    for request in (pb.UseOverrideRequest(token=token), pb.UseOverrideRequest(token=token, tool="adder")):
        error = await refusal(overrides.UseOverride(request, metadata=keys.metadata()))
        assert error.reason_name == "OVERRIDE_INVALID"
    assert (await refusal(overrides.UseOverride(pb.UseOverrideRequest(), metadata=keys.metadata()))).field == "token"


async def test_an_expired_override_is_refused_as_expired(
    stub: Any, overrides: Any, keys: Keys, parts: PolicyParts
) -> None:
    await create(stub, keys)
    token = (await given(overrides, keys)).token
    parts.clock.advance(timedelta(hours=1, seconds=1))
    error = await refusal(check(stub, keys, TEXT, override_token=token))
    assert (error.reason_name, error.facts["override_id"]) == ("OVERRIDE_EXPIRED", "ovr_1")


async def test_an_override_taken_back_is_refused(stub: Any, overrides: Any, keys: Keys) -> None:
    await create(stub, keys)
    made = await given(overrides, keys)
    request = pb.RevokeOverrideRequest(id=made.override.id)
    taken = (await overrides.RevokeOverride(request, metadata=keys.metadata())).override
    assert taken.HasField("revoke_time")
    error = await refusal(check(stub, keys, TEXT, override_token=made.token))
    assert error.reason_name == "OVERRIDE_INVALID"
    error = await refusal(overrides.RevokeOverride(pb.RevokeOverrideRequest(id="none"), metadata=keys.metadata()))
    assert error.reason_name == "OVERRIDE_NOT_FOUND"


async def test_a_forged_token_or_another_tenants_is_refused(stub: Any, overrides: Any, keys: Keys) -> None:
    await create(stub, keys)
    token = (await given(overrides, keys)).token
    claims = jwt.decode(token, options={"verify_signature": False})
    forged = jwt.encode(claims, "0123456789abcdef0123456789abcdef", algorithm="HS256")
    assert (await refusal(check(stub, keys, TEXT, override_token=forged))).reason_name == "OVERRIDE_INVALID"
    from agentnet.policy.v1 import policy_service_pb2

    call = stub.Check(
        policy_service_pb2.CheckRequest(text=TEXT, override_token=token), metadata=keys.metadata("globex")
    )
    assert (await refusal(call)).reason_name == "OVERRIDE_INVALID"


async def test_an_override_needs_rules_a_reason_and_a_day_at_most(overrides: Any, keys: Keys) -> None:
    for request, field in (
        (pb.CreateOverrideRequest(reason="x"), "rules"), (pb.CreateOverrideRequest(rules=["a"]), "reason"),
        (pb.CreateOverrideRequest(rules=["a"], reason="x", ttl=timedelta(hours=25)), "ttl"),
    ):  # fmt: skip
        error = await refusal(overrides.CreateOverride(request, metadata=keys.metadata()))
        assert error.field == field


async def test_an_override_of_a_rule_that_is_not_there_is_refused_with_the_names_that_are(
    stub: Any, overrides: Any, keys: Keys
) -> None:
    await create(stub, keys)
    request = pb.CreateOverrideRequest(rules=["words", "wrods"], reason="x")

    error = await refusal(overrides.CreateOverride(request, metadata=keys.metadata()))

    assert (error.reason_name, error.field) == ("NAME_UNKNOWN", "rules")
    assert error.facts["known"].startswith("words, ")
    elsewhere = overrides.CreateOverride(
        pb.CreateOverrideRequest(rules=["words"], reason="x"), metadata=keys.metadata("globex")
    )
    assert (await refusal(elsewhere)).reason_name == "NAME_UNKNOWN"
