"""Overrides: what a token excuses, for whom, how long, and that every use is written down."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import jwt
import pytest

from agentnet.policy.v1 import bundle_pb2
from agentnet.policy.v1 import override_service_pb2 as pb
from services.policy.audit import AuditFilter
from shared.identity import Grant
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


HOLD: dict[str, Any] = {
    "rules": ["words"],
    "agent": "Athena",
    "session_id": "ses_1",
    "tool": "payer",
    "request_id": "eff_1",
}


async def decide(overrides: Any, metadata: Any, **more: Any) -> pb.DecideHoldResponse:
    answer: pb.DecideHoldResponse = await overrides.DecideHold(
        pb.DecideHoldRequest(**{**HOLD, "approved": True, **more}), metadata=metadata
    )
    return answer


def olga(keys: Keys, **more: Any) -> Any:
    return keys.metadata(subject="olga", roles=("operator",), **more)


async def test_a_yes_to_what_is_held_is_an_override_for_just_that_call(
    stub: Any, overrides: Any, keys: Keys, parts: PolicyParts
) -> None:
    await create(stub, keys, labels=("production",))
    made = (await decide(overrides, olga(keys), reason="the rent")).override
    assert (list(made.rules), made.agent, made.session_id) == (["words"], "Athena", "ses_1")
    assert (made.tool, made.request_id, made.reason, made.issued_by) == ("payer", "eff_1", "the rent", "olga")
    signed = await overrides.SignOverride(pb.SignOverrideRequest(id=made.id), metadata=keys.metadata())

    use = pb.UseOverrideRequest(
        token=signed.token, agent="Athena", session_id="ses_1", tool="payer", request_id="eff_1"
    )
    assert list((await overrides.UseOverride(use, metadata=keys.metadata())).rules) == ["words"]
    for other in ("", "eff_2"):
        use.request_id = other
        assert (await refusal(overrides.UseOverride(use, metadata=keys.metadata()))).reason_name == "OVERRIDE_INVALID"
    acts = await parts.governance.entries("acme", AuditFilter(), after=0, limit=10)
    assert [(one.act, one.actor) for one in acts][1:] == [("override.create", "olga"), ("override.use", "ada")]


async def test_a_no_makes_nothing_and_is_written_down(
    stub: Any, overrides: Any, keys: Keys, parts: PolicyParts
) -> None:
    await create(stub, keys, labels=("production",))
    assert not (await decide(overrides, olga(keys), approved=False, reason="no")).HasField("override")
    assert not (await overrides.ListOverrides(pb.ListOverridesRequest(), metadata=keys.metadata())).overrides
    last = (await parts.governance.entries("acme", AuditFilter(), after=0, limit=10))[-1]
    assert (last.act, last.actor, last.subject, last.detail["rules"]) == ("hold.refuse", "olga", "eff_1", ["words"])


@pytest.mark.parametrize("approved", [True, False])
@pytest.mark.parametrize(
    ("roles", "grant", "reason"),
    [
        (("tenant_user",), None, "ROLE_INSUFFICIENT"),
        (("auditor",), None, "ROLE_INSUFFICIENT"),
        (("admin",), Grant(delegators=("agent:Athena",)), "SCOPE_INSUFFICIENT"),
        (("operator",), Grant(scopes=frozenset({"input:write"})), "SCOPE_INSUFFICIENT"),
    ],
)
async def test_nobody_else_decides_and_the_try_is_written_down(
    stub: Any, overrides: Any, keys: Keys, parts: PolicyParts, approved: bool, roles: Any, grant: Any, reason: str
) -> None:
    await create(stub, keys, labels=("production",))
    who = keys.metadata(subject="eve", roles=roles, grant=grant)
    error = await refusal(decide(overrides, who, approved=approved))
    assert error.reason_name == reason
    last = (await parts.governance.entries("acme", AuditFilter(), after=0, limit=10))[-1]
    assert (last.act, last.actor, last.subject) == ("access.refuse", "eve", "eff_1")
    assert not (await overrides.ListOverrides(pb.ListOverridesRequest(), metadata=keys.metadata())).overrides


async def test_a_token_is_signed_again_only_while_its_override_stands_and_only_for_a_session(
    stub: Any, overrides: Any, keys: Keys, parts: PolicyParts
) -> None:
    await create(stub, keys, labels=("production",))
    anywhere = (await given(overrides, keys)).override.id
    stands = (await decide(overrides, olga(keys), ttl=timedelta(minutes=1))).override.id
    taken = (await decide(overrides, olga(keys))).override.id
    await overrides.RevokeOverride(pb.RevokeOverrideRequest(id=taken), metadata=keys.metadata())

    async def told(override_id: str) -> str:
        request = pb.SignOverrideRequest(id=override_id)
        return (await refusal(overrides.SignOverride(request, metadata=keys.metadata()))).reason_name

    assert [await told(one) for one in (anywhere, "ovr_none", taken)] == [
        "OVERRIDE_NOT_FOUND", "OVERRIDE_NOT_FOUND", "OVERRIDE_INVALID",
    ]  # fmt: skip
    assert (await overrides.SignOverride(pb.SignOverrideRequest(id=stands), metadata=keys.metadata())).token
    parts.clock.advance(timedelta(minutes=1))
    assert await told(stands) == "OVERRIDE_EXPIRED"


async def test_an_override_for_an_agent_holds_whatever_its_version(stub: Any, overrides: Any, keys: Keys) -> None:
    await create(stub, keys, labels=("production",))
    token = (await given(overrides, keys, agent="Athena")).token
    judged = await check(stub, keys, TEXT, target=OUTPUT, override_token=token, agent="Athena@1.0.0")
    assert judged.text == TEXT
