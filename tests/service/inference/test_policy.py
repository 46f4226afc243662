"""Rules for whole sentences, and bundles that a call names itself."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from redis.asyncio import Redis

from agentnet.common.v1 import error_reason_pb2
from agentnet.inference.v1 import message_pb2
from services.inference.breakers import LocalBreakers
from services.inference.errors import PolicyBlocked
from services.inference.measures import Measures
from services.inference.peers import Measure, Payer
from services.inference.redacting import texts_of
from shared.clock import FakeClock
from shared.identity import Principal
from shared.monitors.enforced import Snapshot
from shared.monitors.pipeline import Finding, Outcome
from shared.monitors.rules import Action, Bundle, Mode, Rule, RuleType, Severity, Target, Verdict
from tests.service.inference.calls import Code, generated, refusal, said
from tests.support.identity import Keys
from tests.support.inference import MAIL, Replica, ScriptedPolicy, kinds, replica, request, text_of

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


async def test_what_no_rule_found_but_none_could_judge_is_refused_as_that(keys: Keys, redis: Redis) -> None:
    async with replica(keys, redis, snapshot=Snapshot(1, {"*": (SLOW,)})) as served:
        served.policy.outcomes = {"Hello?": Outcome("", blocked=True)}
        assert said(await refusal(generated(served, keys, request()))) == (Code.UNAVAILABLE, "POLICY_UNAVAILABLE")
        served.policy.outcomes = {"You fool. ": Outcome("", blocked=True)}
        served.model.steps = ["All is well. ", "You fool. ", "Never said."]
        events = await generated(served, keys, request())
        assert text_of(events) == "All is well. "
        assert events[-1].failed.failure.reason == error_reason_pb2.ERROR_REASON_POLICY_UNAVAILABLE


async def test_what_a_rule_redacts_of_a_prompt_never_reaches_the_provider(keys: Keys, redis: Redis) -> None:
    mail = replace(MAIL, action=Action.REDACT, target=Target.PROMPT)
    bundle = Bundle("masks", "1.0.0", (mail, replace(TONE, target=Target.PROMPT)))
    asked = request("Write to ada@b.org!")
    call = message_pb2.ToolCall(id="c1", name="send", arguments='{"to": "eve@b.org"}')
    asked.messages.add(role="ROLE_ASSISTANT").content.add(tool_call=call)
    result = message_pb2.ToolResult(tool_call_id="c1", content="sent to eve@b.org, you fool")
    asked.messages.add(role="ROLE_TOOL").content.add(tool_result=result)
    async with replica(keys, redis, snapshot=Snapshot(1, {"*": (bundle,)})) as served:
        heard = "sent to [REDACTED:mail], you fool"
        served.policy.outcomes = {heard: Outcome("sent to [REDACTED:mail]", found(Action.REDACT, Target.PROMPT))}
        events = await generated(served, keys, asked)
        (sent,) = served.model.calls
        assert texts_of(sent.messages) == [
            "Write to [REDACTED:mail]!", '{"to": "[REDACTED:mail]"}', "sent to [REDACTED:mail]",
        ]  # fmt: skip
        assert {event.verdict.rule for event in events if event.HasField("verdict")} == {"mail", "tone"}


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


def order(action: str, kind: str, target: str, *, over: bool = False) -> Measure:
    until = datetime(2000 if over else 3000, 1, 1, tzinfo=UTC)
    return Measure("leaking_session_blocks", action, kind, target, until)


@pytest.mark.parametrize(("kind", "target"), [("agent", "Athena"), ("session", "ses_1"), ("tenant", "acme")])
async def test_who_is_blocked_by_a_rule_of_policy_starts_nothing(
    served: Replica, keys: Keys, kind: str, target: str
) -> None:
    served.policy.orders = [order("block", kind, target)]
    call = request(agent="Athena@1.0.0", session_id="ses_1")
    assert said(await refusal(generated(served, keys, call))) == (Code.FAILED_PRECONDITION, "POLICY_BLOCKED")
    assert (served.model.calls, served.cost.reserved) == ([], [])
    if kind != "tenant":
        await generated(served, keys, request(generation_id="gen_2", agent="Zeus@1.0.0", session_id="ses_2"))


async def test_a_block_that_is_over_or_of_another_tenant_stops_nobody(served: Replica, keys: Keys) -> None:
    served.policy.orders = [order("block", "tenant", "acme", over=True), order("block", "tenant", "other")]
    assert kinds(await generated(served, keys, request()))[-1] == "finished"


async def test_who_is_throttled_starts_one_call_in_a_while_and_is_told_when_the_next(
    served: Replica, keys: Keys
) -> None:
    served.policy.orders = [order("throttle", "agent", "Athena")]
    await generated(served, keys, request(agent="Athena@1.0.0"))
    error = await refusal(generated(served, keys, request(generation_id="gen_2", agent="Athena@1.0.1")))
    assert said(error) == (Code.RESOURCE_EXHAUSTED, "RATE_LIMITED")
    assert error.retry_after is not None
    assert 0 < error.retry_after.total_seconds() <= 5
    await generated(served, keys, request(generation_id="gen_3", agent="Zeus@1.0.0"))


async def test_who_is_downgraded_gets_the_cheaper_model_and_a_reason(served: Replica, keys: Keys) -> None:
    served.policy.orders = [order("downgrade", "session", "ses_1")]
    events = await generated(served, keys, request(session_id="ses_1"))
    assert kinds(events)[:2] == ["started", "downgraded"]
    assert events[1].downgraded.to_model == "backup"
    assert "leaking_session_blocks" in events[1].downgraded.reason


async def test_who_is_downgraded_keeps_the_model_when_the_cheaper_one_is_left_alone(
    served: Replica, keys: Keys
) -> None:
    served.policy.orders, served.model.steps = [order("downgrade", "session", "ses_1")], ["Hello."]
    for _ in range(5):
        await served.engine.breakers.failed("backup")
    events = await generated(served, keys, request(session_id="ses_1"))
    assert kinds(events) == ["started", "text", "finished"]
    assert events[-1].finished.cost.model == "scripted"


async def test_while_policy_is_away_its_last_orders_hold() -> None:
    clock, policy = FakeClock(), ScriptedPolicy()
    policy.orders = [order("block", "tenant", "acme")]
    measures = Measures(policy, LocalBreakers(clock), clock)
    payer = Payer(Principal("acme", "ada", frozenset()), "gen_1", "p", "m", "", "")
    for away in (False, True, True):
        policy.away = away
        with pytest.raises(PolicyBlocked):
            await measures.admit(payer, "p")
        clock.advance(timedelta(seconds=2))
        await asyncio.sleep(0)


async def test_orders_are_taken_back_within_about_a_second() -> None:
    clock, policy = FakeClock(), ScriptedPolicy()
    policy.orders = [order("block", "tenant", "acme")]
    measures = Measures(policy, LocalBreakers(clock), clock)
    payer = Payer(Principal("acme", "ada", frozenset()), "gen_1", "p", "m", "", "")
    with pytest.raises(PolicyBlocked):
        await measures.admit(payer, "p")
    policy.orders = []
    with pytest.raises(PolicyBlocked):
        await measures.admit(payer, "p")
    clock.advance(timedelta(seconds=1))
    with pytest.raises(PolicyBlocked):  # this one has policy asked
        await measures.admit(payer, "p")
    await asyncio.sleep(0)
    assert await measures.admit(payer, "p") == ""


async def test_an_override_lets_pass_what_its_rules_find_and_nothing_else(keys: Keys, redis: Redis) -> None:
    both = Bundle("manners", "1.0.0", (MAIL, MOON, TONE))
    async with replica(keys, redis, snapshot=Snapshot(1, {"*": (both,)})) as served:
        served.model.steps = ["Write to a@b.org. ", "To the moon. "]
        served.policy.overrides = {"ovr": frozenset({"mail"}), "none": frozenset()}
        told = await generated(served, keys, request(generation_id="gen_1", override_token="ovr"))
        assert text_of(told).startswith("Write to a@b.org. ")
        assert told[-1].failed.failure.reason == error_reason_pb2.ERROR_REASON_POLICY_BLOCKED
        statuses = {one.rule: one.status for one in told[-1].failed.monitors}
        assert (statuses["mail"], statuses["moon"]) == ("excused", "block")
        plain = await generated(served, keys, request(generation_id="gen_2"))
        assert text_of(plain).startswith("Write to [REDACTED:mail]. ")
        assert {one.rule: one.status for one in plain[-1].failed.monitors}["mail"] == "redact"
        assert (served.policy.sent[0], served.policy.sent[-1]) == ("ovr", "")


async def test_an_override_that_does_not_hold_or_cannot_be_checked_starts_nothing(served: Replica, keys: Keys) -> None:
    asked = request(override_token="taken back")
    assert said(await refusal(generated(served, keys, asked))) == (Code.PERMISSION_DENIED, "OVERRIDE_INVALID")
    served.policy.away = True
    assert said(await refusal(generated(served, keys, asked))) == (Code.UNAVAILABLE, "POLICY_UNAVAILABLE")
    long = request(override_token="x" * 4097)
    assert said(await refusal(generated(served, keys, long))) == (Code.INVALID_ARGUMENT, "FIELD_TOO_LONG")
    assert (served.model.calls, served.cost.reserved) == ([], [])


async def test_who_was_blocked_while_a_tenant_said_nothing_is_stopped_at_the_first_call() -> None:
    clock, policy = FakeClock(), ScriptedPolicy()
    measures = Measures(policy, LocalBreakers(clock), clock)
    payer = Payer(Principal("acme", "ada", frozenset()), "gen_1", "p", "m", "", "")
    await measures.admit(payer, "p")
    policy.orders = [order("block", "tenant", "acme")]
    clock.advance(timedelta(minutes=1))
    with pytest.raises(PolicyBlocked):
        await measures.admit(payer, "p")
