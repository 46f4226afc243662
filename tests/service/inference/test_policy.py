"""Rules for whole sentences, and bundles that a call names itself."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from agentnet.common.v1 import error_reason_pb2
from services.inference.peers import Snapshot
from shared.monitors.pipeline import Finding, Outcome
from shared.monitors.rules import Action, Bundle, Mode, Rule, RuleType, Severity, Target, Verdict
from tests.service.inference.calls import Code, generated, refusal, said
from tests.support.identity import Keys
from tests.support.inference import MAIL, Replica, kinds, replica, request, text_of

TONE = Rule("tone", RuleType.LLM_CLASSIFIER, Severity.MAJOR)
SLOW = Bundle("manners", "1.0.0", (TONE, MAIL))
EASY = Bundle("manners", "1.0.0", (TONE,), mode=Mode.PERMISSIVE)
MOON = Rule("moon", RuleType.KEYWORD, Severity.SEVERE, action=Action.BLOCK, keywords=("moon",))


def found(action: Action, target: Target = Target.OUTPUT) -> tuple[Finding, ...]:
    return (Finding(Verdict(TONE, "manners@1.0.0", action, target, 0, 5), "the classifier says yes"),)


async def test_sentences_wait_for_policy_and_are_shown_as_it_says(keys: Keys, redis: Redis) -> None:
    async with replica(keys, redis, snapshot=Snapshot(1, {"*": (SLOW,)})) as served:
        served.model.steps = ["All ", "is well. ", "You fool. ", "Write to a@b.org", "."]
        served.policy.outcomes = {"You fool. ": Outcome("[tone] ", found(Action.REDACT))}
        events = await generated(served, keys, request())
        assert text_of(events) == "All is well. [tone] Write to [REDACTED:mail]."
        judged = [text for text, target, bundles in served.policy.checked if target is Target.OUTPUT]
        assert judged == ["All is well. ", "You fool. ", "Write to [REDACTED:mail]."]
        assert {event.verdict.rule for event in events if event.HasField("verdict")} == {"tone", "mail"}


async def test_a_sentence_that_is_blocked_is_not_shown_and_ends_the_stream(keys: Keys, redis: Redis) -> None:
    async with replica(keys, redis, snapshot=Snapshot(1, {"*": (SLOW,)})) as served:
        served.model.steps = ["All is well. ", "You fool. ", "Never said."]
        served.policy.outcomes = {"You fool. ": Outcome("", found(Action.BLOCK), blocked=True)}
        events = await generated(served, keys, request())
        assert text_of(events) == "All is well. "
        assert events[-1].failed.failure.reason == error_reason_pb2.ERROR_REASON_POLICY_BLOCKED
        assert len(served.cost.settled) == 1


async def test_a_prompt_is_judged_by_rules_for_sentences_too(keys: Keys, redis: Redis) -> None:
    async with replica(keys, redis, snapshot=Snapshot(1, {"*": (SLOW,)})) as served:
        blocked = Outcome("", found(Action.BLOCK, Target.PROMPT), blocked=True)
        served.policy.outcomes = {"Hello?": blocked}
        assert said(await refusal(generated(served, keys, request()))) == (Code.FAILED_PRECONDITION, "POLICY_BLOCKED")
        assert (served.model.calls, served.cost.reserved) == ([], [])


@pytest.mark.parametrize(("bundle", "shown"), [(SLOW, ""), (EASY, "All is well. ")])
async def test_when_policy_is_away_strict_bundles_let_nothing_pass(
    keys: Keys, redis: Redis, bundle: Bundle, shown: str
) -> None:
    output = Rule("tone", RuleType.LLM_CLASSIFIER, Severity.MAJOR, target=Target.OUTPUT)
    held = Bundle(bundle.name, bundle.version, (output,), mode=bundle.mode)
    async with replica(keys, redis, snapshot=Snapshot(1, {"*": (held,)})) as served:
        served.model.steps = ["All is well. "]
        served.policy.away = True
        events = await generated(served, keys, request())
        assert text_of(events) == shown
        assert kinds(events)[-1] == ("finished" if shown else "failed")


async def test_a_call_s_own_bundles_hold_beside_the_tenant_s(served: Replica, keys: Keys) -> None:
    served.policy.bundles["space@1.0.0"] = Bundle("space", "1.0.0", (MOON,))
    served.model.steps = ["To the moon. ", "a@b.org"]
    plain = await generated(served, keys, request(generation_id="gen_1"))
    assert text_of(plain) == "To the moon. [REDACTED:mail]"
    events = await generated(served, keys, request(generation_id="gen_2", bundles=["space@1.0.0"]))
    assert (text_of(events), kinds(events)[-1]) == ("To the ", "failed")
    refused = request("To the moon!", generation_id="gen_3", bundles=["space@1.0.0"])
    assert said(await refusal(generated(served, keys, refused))) == (Code.FAILED_PRECONDITION, "POLICY_BLOCKED")


async def test_a_bundle_that_is_not_there_is_refused_before_anything_is_spent(served: Replica, keys: Keys) -> None:
    error = await refusal(generated(served, keys, request(bundles=["no-such"])))
    assert said(error) == (Code.NOT_FOUND, "BUNDLE_NOT_FOUND")
    assert served.cost.reserved == []
    assert (await refusal(generated(served, keys, request(bundles=["a"] * 17)))).code == Code.INVALID_ARGUMENT
