"""Rules tried on history: what would flip, whom it touches, how right it is, and promotion by label."""

from __future__ import annotations

from typing import Any

import pytest

from agentnet.policy.v1 import bundle_pb2, policy_service_pb2
from agentnet.policy.v1 import simulation_service_pb2 as pb
from tests.service.policy.calls import WORDS, check, create, refusal
from tests.support.identity import Keys
from tests.support.policy import PolicyParts

OUTPUT, PROMPT = bundle_pb2.RULE_TARGET_OUTPUT, bundle_pb2.RULE_TARGET_PROMPT
BLOCKS = "rules: [{name: stop, type: keyword, severity: severe, keywords: [mesh, net], action: block}]"


async def history(stub: Any, keys: Keys) -> None:
    for text, agent, session in (
        ("the mesh", "Athena", "ses_1"), ("a net", "Athena", "ses_1"), ("nothing", "Apollo", "ses_2"), ("the mesh", "Apollo", "ses_3"),
    ):  # fmt: skip
        await check(stub, keys, text, target=OUTPUT, agent=agent, session_id=session)


async def test_a_simulation_counts_flips_and_whom_they_touch(
    stub: Any, simulation: Any, keys: Keys, parts: PolicyParts
) -> None:
    await history(stub, keys)
    parts.clock.advance(parts.clock.monotonic().resolution)
    found = await simulation.SimulateBundle(pb.SimulateBundleRequest(document=BLOCKS), metadata=keys.metadata())
    assert (found.decisions, found.newly_blocked, found.newly_allowed, found.newly_changed) == (4, 3, 0, 0)
    assert (found.blast_radius.sessions, found.blast_radius.agents, found.blast_radius.share) == (2, 2, 0.75)
    assert [(one.rule, one.matches) for one in found.rules] == [("stop", 3)]
    assert len(found.examples) == 3
    changes = await simulation.SimulateBundle(pb.SimulateBundleRequest(document=WORDS), metadata=keys.metadata())
    assert (changes.newly_blocked, changes.newly_changed) == (0, 2)
    await create(stub, keys, BLOCKS, labels=("production",))
    await check(stub, keys, "mesh", target=OUTPUT)
    parts.clock.advance(parts.clock.monotonic().resolution)
    opened = await simulation.SimulateBundle(pb.SimulateBundleRequest(name="default"), metadata=keys.metadata())
    assert opened.newly_allowed == 1


async def test_a_simulation_names_the_rules_it_cannot_try(stub: Any, simulation: Any, keys: Keys) -> None:
    more = """
  - {name: long, type: output_validation, severity: severe, action: block, params: {max_characters: 1}}
  - {name: who, type: custom, severity: severe, params: {plugin: names}}
"""
    await history(stub, keys)
    request = pb.SimulateBundleRequest(document=WORDS + more)
    assert list((await simulation.SimulateBundle(request, metadata=keys.metadata())).left_out) == ["long", "who"]


async def test_precision_is_measured_on_labelled_decisions_and_a_label_promotes(
    stub: Any, simulation: Any, keys: Keys, parts: PolicyParts
) -> None:
    await history(stub, keys)
    parts.clock.advance(parts.clock.monotonic().resolution)
    listed = (await simulation.ListDecisions(pb.ListDecisionsRequest(), metadata=keys.metadata())).decisions
    assert [one.id for one in listed] == ["dec_4", "dec_3", "dec_2", "dec_1"]
    assert not listed[0].HasField("harmful")
    for name, harmful in (("dec_1", True), ("dec_2", False), ("dec_3", True)):
        await simulation.LabelDecision(pb.LabelDecisionRequest(id=name, harmful=harmful), metadata=keys.metadata())
    await create(stub, keys, BLOCKS, name="stop", labels=("shadow",))
    found = await simulation.SimulateBundle(pb.SimulateBundleRequest(name="stop"), metadata=keys.metadata())
    assert (found.labelled, found.precision, found.recall) == (3, 0.5, 0.5)
    assert found.rules[0].false_positives == 1
    request = policy_service_pb2.LabelBundleRequest(name="stop@1.0.0", label="production")
    await stub.LabelBundle(request, metadata=keys.metadata())
    assert not (await check(stub, keys, "the mesh", target=OUTPUT)).allowed


async def test_a_shadow_bundle_changes_nothing_and_its_matches_are_told_apart(stub: Any, keys: Keys) -> None:
    await create(stub, keys, BLOCKS, labels=("shadow",))
    judged = await check(stub, keys, "the mesh", target=OUTPUT, session_id="ses_1")
    assert (judged.allowed, judged.text, list(judged.findings)) == (True, "the mesh", [])

    async def listed(*, shadow: bool) -> list[str]:
        request = policy_service_pb2.ListViolationsRequest(shadow=shadow)
        return [one.monitor_name for one in (await stub.ListViolations(request, metadata=keys.metadata())).violations]

    assert (await listed(shadow=True), await listed(shadow=False)) == (["stop"], [])


async def test_a_shadow_bundle_is_tried_as_the_agent_s_profile_has_it(stub: Any, keys: Keys) -> None:
    more = "\nprofiles: {none: {rules: []}}\nagents: [{name: Athena, profile: none}]"
    await create(stub, keys, BLOCKS + more, labels=("shadow",))
    for agent in ("Athena", "Apollo"):
        await check(stub, keys, "the mesh", target=OUTPUT, agent=agent)
    request = policy_service_pb2.ListViolationsRequest(shadow=True)
    listed = (await stub.ListViolations(request, metadata=keys.metadata())).violations
    assert [one.agent for one in listed] == ["Apollo"]


async def test_what_is_kept_does_not_lie_open(stub: Any, keys: Keys, parts: PolicyParts) -> None:
    await check(stub, keys, "a very private sentence", target=PROMPT)
    (kept,) = await parts.governance.decisions("acme", start=None, end=None, limit=10)
    assert b"private" not in kept.sealed
    assert not await parts.governance.decisions("globex", start=None, end=None, limit=10)


async def test_enforcement_points_report_decisions_once(simulation: Any, keys: Keys) -> None:
    one = pb.DecisionInput(id="gen_1", text="the mesh", target=OUTPUT, allowed=True, unchanged=True)
    request = pb.RecordDecisionsRequest(decisions=[one])
    recorded = [
        (await simulation.RecordDecisions(request, metadata=keys.metadata(kind="service"))).recorded for _ in range(2)
    ]
    assert recorded == [1, 0]


@pytest.mark.parametrize(
    ("request_", "reason"),
    [(pb.SimulateBundleRequest(), "FIELD_REQUIRED"), (pb.SimulateBundleRequest(name="none"), "BUNDLE_NOT_FOUND"),
     (pb.SimulateBundleRequest(document="rules: []"), "BUNDLE_INVALID")],
)  # fmt: skip
async def test_a_simulation_of_nothing_says_what_is_wrong(
    simulation: Any, keys: Keys, request_: pb.SimulateBundleRequest, reason: str
) -> None:
    error = await refusal(simulation.SimulateBundle(request_, metadata=keys.metadata()))
    assert error.reason_name == reason
    error = await refusal(simulation.LabelDecision(pb.LabelDecisionRequest(id="none"), metadata=keys.metadata()))
    assert error.reason_name == "DECISION_NOT_FOUND"
