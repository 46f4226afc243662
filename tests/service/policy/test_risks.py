"""The risk register: seven risks, events, rules with thresholds and windows, actions, callbacks, history."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from agentnet.policy.v1 import bundle_pb2, policy_service_pb2, violation_pb2
from agentnet.policy.v1 import risk_service_pb2 as pb
from services.policy.audit import AuditFilter
from tests.service.policy.calls import refusal
from tests.support.identity import Keys
from tests.support.policy import PolicyParts

MINUTE = timedelta(minutes=1)
SEED_RISKS = [
    "provider_outage", "policy_false_positives", "token_cost_spike", "memory_bloat", "tool_injection", "convergence_stall",
    "prompt_leakage",
]  # fmt: skip


async def happened(risks: Any, keys: Keys, risk: str, value: float = 1, **more: Any) -> list[str]:
    request = pb.RecordRiskEventRequest(risk=risk, value=value, **more)
    answer = await risks.RecordRiskEvent(request, metadata=keys.metadata())
    return [f"{one.action} {one.target}" for one in answer.actions]


async def rule(risks: Any, keys: Keys, **more: Any) -> pb.EnforcementRule:
    given = {"name": "mine", "risk": "memory_bloat", "threshold": 10, "window": MINUTE, "action": "block", "target": "agent", "enabled": True}  # fmt: skip
    request = pb.SetEnforcementRuleRequest(rule=pb.EnforcementRule(**(given | more)))
    answer: pb.SetEnforcementRuleResponse = await risks.SetEnforcementRule(request, metadata=keys.metadata())
    return answer.rule


async def test_the_seven_risks_of_the_seed_are_registered_with_impact_and_mitigation(risks: Any, keys: Keys) -> None:
    listed = (await risks.ListRisks(pb.ListRisksRequest(), metadata=keys.metadata())).risks
    assert [one.name for one in listed] == SEED_RISKS
    assert all(one.impact and one.mitigation for one in listed)


async def test_events_are_counted_and_mitigations_recorded(risks: Any, keys: Keys, parts: PolicyParts) -> None:
    await happened(risks, keys, "convergence_stall", session_id="ses_1")
    request = pb.RecordMitigationRequest(risk="convergence_stall", text="lowered the cap")
    await risks.RecordMitigation(request, metadata=keys.metadata(subject="olga"))
    listed = (await risks.ListRisks(pb.ListRisksRequest(), metadata=keys.metadata())).risks
    stall = next(one for one in listed if one.name == "convergence_stall")
    assert (stall.events, [(one.text, one.owner) for one in stall.mitigations]) == (1, [("lowered the cap", "olga")])
    parts.clock.advance(timedelta(hours=25))
    listed = (await risks.ListRisks(pb.ListRisksRequest(), metadata=keys.metadata())).risks
    assert sum(one.events for one in listed) == 0


@pytest.mark.parametrize(
    ("risk", "value", "times", "more", "acts"),
    [
        ("token_cost_spike", 60_000, 2, {"session_id": "ses_1"}, ["downgrade ses_1"]),
        ("provider_outage", 1, 3, {}, ["alert acme", "downgrade acme"]),
        ("memory_bloat", 1, 1, {"agent": "Athena"}, ["throttle Athena"]),
        ("policy_false_positives", 1, 20, {}, ["alert acme"]),
    ],
)
async def test_a_default_rule_acts_when_its_threshold_is_reached_and_not_before(
    risks: Any, keys: Keys, risk: str, value: float, times: int, more: dict[str, str], acts: list[str]
) -> None:
    for _ in range(times - 1):
        assert await happened(risks, keys, risk, value, **more) == []
    assert sorted(await happened(risks, keys, risk, value, **more)) == sorted(acts)


async def test_events_outside_the_window_do_not_count(risks: Any, keys: Keys, parts: PolicyParts) -> None:
    await rule(risks, keys)
    assert await happened(risks, keys, "memory_bloat", 0.5, agent="Athena") == []
    parts.clock.advance(timedelta(seconds=61))
    assert "block Athena" not in await happened(risks, keys, "memory_bloat", 9.6, agent="Athena")
    assert "block Athena" in await happened(risks, keys, "memory_bloat", 0.5, agent="Athena")


async def test_agents_sessions_and_tenants_are_counted_apart(risks: Any, keys: Keys) -> None:
    for kind in ("agent", "session", "tenant"):
        await rule(
            risks, keys, name=f"by_{kind}", risk="convergence_stall", threshold=2, action="throttle", target=kind
        )
    assert "throttle Athena" not in await happened(risks, keys, "convergence_stall", agent="Athena", session_id="s1")
    second = await happened(risks, keys, "convergence_stall", agent="Apollo", session_id="s2")
    assert [one for one in second if one.startswith("throttle")] == ["throttle acme"]
    third = await happened(risks, keys, "convergence_stall", agent="Athena", session_id="s2")
    assert {one for one in third if one.startswith("throttle")} == {"throttle Athena", "throttle s2"}


async def test_a_rule_acts_once_while_its_action_holds_and_again_after(
    risks: Any, keys: Keys, parts: PolicyParts
) -> None:
    await rule(risks, keys, threshold=1, hold=timedelta(seconds=30), risk="tool_injection")
    assert await happened(risks, keys, "tool_injection", agent="Athena") == ["block Athena"]
    assert await happened(risks, keys, "tool_injection", agent="Athena") == []
    active = pb.ListEnforcementActionsRequest(active=True, target="Athena")
    assert len((await risks.ListEnforcementActions(active, metadata=keys.metadata())).actions) == 1
    parts.clock.advance(timedelta(seconds=31))
    assert not (await risks.ListEnforcementActions(active, metadata=keys.metadata())).actions
    assert await happened(risks, keys, "tool_injection", agent="Athena") == ["block Athena"]


async def test_what_was_done_is_history_and_in_the_audit_trail(risks: Any, keys: Keys, parts: PolicyParts) -> None:
    await happened(risks, keys, "memory_bloat", agent="Athena")
    listed = await risks.ListEnforcementActions(pb.ListEnforcementActionsRequest(), metadata=keys.metadata())
    assert [(one.rule, one.action, one.target_kind) for one in listed.actions] == [
        ("memory_bloat_throttles", "throttle", "agent")
    ]
    trail = await parts.governance.entries("acme", AuditFilter(act="enforcement.throttle"), after=0, limit=10)
    assert [(one.subject, one.detail["rule"]) for one in trail] == [("Athena", "memory_bloat_throttles")]


async def test_a_callback_is_called_with_the_action(risks: Any, keys: Keys, parts: PolicyParts) -> None:
    await rule(risks, keys, name="page_me", threshold=1, action="callback:page", risk="prompt_leakage")
    assert await happened(risks, keys, "prompt_leakage", agent="Athena") == ["callback:page Athena"]
    ((tenant, action),) = parts.called_back
    assert (tenant, action.rule, action.target) == ("acme", "page_me", "Athena")


@pytest.mark.parametrize("trouble", [RuntimeError("down"), "slow"])
async def test_a_callback_that_fails_or_hangs_stops_neither_the_event_nor_other_rules(
    risks: Any, keys: Keys, parts: PolicyParts, monkeypatch: pytest.MonkeyPatch, trouble: Exception | str
) -> None:
    monkeypatch.setattr("services.policy.risks._CALLBACK_TIME", timedelta(milliseconds=20))
    parts.trouble = trouble
    await rule(risks, keys, name="a_page", threshold=1, action="callback:page", risk="prompt_leakage")
    await rule(risks, keys, name="b_block", threshold=1, action="block", risk="prompt_leakage")
    done = await happened(risks, keys, "prompt_leakage", agent="Athena")
    assert done == ["callback:page Athena", "block Athena"]
    (failed,) = await parts.governance.entries("acme", AuditFilter(act="enforcement.callback_failed"), after=0, limit=9)
    error = "TimeoutError" if trouble == "slow" else "RuntimeError"
    assert (failed.subject, failed.detail) == ("Athena", {"rule": "a_page", "error": error})


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
async def test_the_value_of_an_event_is_a_finite_amount(risks: Any, keys: Keys, value: float) -> None:
    assert (await refusal(happened(risks, keys, "memory_bloat", value, agent="Athena"))).field == "value"


async def test_a_tenants_rule_takes_the_place_of_a_default_and_may_switch_it_off(risks: Any, keys: Keys) -> None:
    await rule(risks, keys, name="memory_bloat_throttles", enabled=False)
    assert await happened(risks, keys, "memory_bloat", agent="Athena") == []
    listed = (await risks.ListEnforcementRules(pb.ListEnforcementRulesRequest(), metadata=keys.metadata())).rules
    assert {one.name: one.built_in for one in listed}["memory_bloat_throttles"] is False
    seen, asked = [], pb.ListEnforcementRulesRequest(page_size=2)
    while not seen or asked.page_token:
        page = await risks.ListEnforcementRules(asked, metadata=keys.metadata())
        seen += [one.name for one in page.rules]
        asked.page_token = page.next_page_token
    assert seen == [one.name for one in listed]
    other = (await risks.ListEnforcementRules(pb.ListEnforcementRulesRequest(), metadata=keys.metadata("globex"))).rules
    assert {one.name: one.built_in for one in other}["memory_bloat_throttles"] is True


@pytest.mark.parametrize(
    ("more", "field"),
    [({"action": "dance"}, "rule.action"), ({"action": "callback:none"}, "rule.action"), ({"target": "planet"}, "rule.target"),
     ({"threshold": 0}, "rule.threshold"), ({"threshold": float("nan")}, "rule.threshold"), ({"window": timedelta(days=2)}, "rule.window")],
)  # fmt: skip
async def test_a_rule_that_makes_no_sense_names_the_field(
    risks: Any, keys: Keys, more: dict[str, Any], field: str
) -> None:
    assert (await refusal(rule(risks, keys, **more))).field == field


async def test_an_unknown_risk_is_not_found(risks: Any, keys: Keys) -> None:
    assert (await refusal(happened(risks, keys, "boredom"))).reason_name == "RISK_NOT_FOUND"
    assert (await refusal(rule(risks, keys, risk="boredom"))).reason_name == "RISK_NOT_FOUND"


async def test_violations_are_threats_that_are_counted(stub: Any, risks: Any, keys: Keys) -> None:
    violations = [
        violation_pb2.Violation(
            id=f"v{n}",
            monitor_name="attacks",
            violation_type="injection",
            agent="Athena",
            severity=bundle_pb2.SEVERITY_SEVERE,
        )
        for n in range(6)
    ]
    request = policy_service_pb2.RecordViolationsRequest(violations=violations)
    await stub.RecordViolations(request, metadata=keys.metadata())
    listed = (await risks.ListRisks(pb.ListRisksRequest(), metadata=keys.metadata())).risks
    assert {one.name: one.events for one in listed}["tool_injection"] == 1
    acted = await risks.ListEnforcementActions(pb.ListEnforcementActionsRequest(), metadata=keys.metadata())
    assert [one.rule for one in acted.actions] == ["injection_wave_alerts"]
