"""Rules about a finished answer, and what a turn tells of every monitor."""

from __future__ import annotations

from datetime import timedelta

import pytest
from redis.asyncio import Redis

from agentnet.common.v1 import error_reason_pb2
from services.inference.providers.contract import Chunk, ToolDelta
from shared.monitors.enforced import Snapshot
from shared.monitors.pipeline import Finding, Outcome, Report
from shared.monitors.rules import Action, Bundle, Mode, Rule, RuleType, Severity, Target, Verdict
from tests.service.inference.calls import generated
from tests.support.identity import Keys
from tests.support.inference import MAIL, Event, kinds, replica, request, text_of

SAID = ["All is ", "well. ", "Write to a@b.org"]
SHOWN = "All is well. Write to [REDACTED:mail]"


def form(action: Action, **params: object) -> Rule:
    return Rule("form", RuleType.OUTPUT_VALIDATION, Severity.MAJOR, action=action, params=params)


async def answered(
    keys: Keys, redis: Redis, rule: Rule, *, mode: Mode = Mode.STRICT, calls: tuple[ToolDelta, ...] = ()
) -> list[Event]:
    bundle = Bundle("forms", "1.0.0", (rule, MAIL), mode=mode)
    async with replica(keys, redis, snapshot=Snapshot(1, {"*": (bundle,)})) as served:
        served.model.steps = [*SAID, Chunk(tools=calls)] if calls else list(SAID)
        return await generated(served, keys, request(generation_id=f"gen_{'_'.join(rule.params)}"))


def verdicts(events: list[Event]) -> list[tuple[str, str]]:
    return [(one.verdict.rule, one.verdict.action) for one in events if one.HasField("verdict")]


async def test_an_answer_a_rule_stops_is_never_shown(keys: Keys, redis: Redis) -> None:
    events = await answered(keys, redis, form(Action.BLOCK, json=True))
    assert (text_of(events), verdicts(events)) == ("", [("mail", "redact"), ("form", "block")])
    assert events[-1].failed.failure.reason == error_reason_pb2.ERROR_REASON_POLICY_BLOCKED
    assert "rule form of forms@1.0.0" in events[-1].failed.failure.message


async def test_an_answer_that_is_as_it_must_be_is_shown_when_it_has_ended(keys: Keys, redis: Redis) -> None:
    events = await answered(keys, redis, form(Action.BLOCK, max_characters=len(SHOWN), must_match="well"))
    assert [one.text.text for one in events if one.HasField("text")] == [SHOWN]
    assert sum(one.text.token_count for one in events) == len(SAID)


async def test_an_answer_may_be_replaced(keys: Keys, redis: Redis) -> None:
    events = await answered(keys, redis, form(Action.REDACT, must_not_match="is well"))
    assert (text_of(events), kinds(events)[-1]) == ("[REDACTED:form]", "finished")


@pytest.mark.parametrize(("action", "mode"), [(Action.WARN, Mode.STRICT), (Action.BLOCK, Mode.PERMISSIVE)])
async def test_a_rule_that_only_warns_holds_nothing_back(keys: Keys, redis: Redis, action: Action, mode: Mode) -> None:
    events = await answered(keys, redis, form(action, max_characters=5), mode=mode)
    assert text_of(events) == SHOWN
    assert len([one for one in events if one.HasField("text")]) > 1
    assert verdicts(events) == [("mail", "redact"), ("form", "warn")]


async def test_a_text_beside_calls_of_tools_is_no_answer_yet(keys: Keys, redis: Redis) -> None:
    calls = (ToolDelta(0, "c1", "look", "{}"),)
    events = await answered(keys, redis, form(Action.BLOCK, json=True, min_characters=900), calls=calls)
    assert (text_of(events), kinds(events)[-1]) == (SHOWN, "finished")
    events = await answered(keys, redis, form(Action.BLOCK, must_not_match="well"), calls=calls)
    assert (text_of(events), kinds(events)[-1]) == ("", "failed")


async def test_every_monitor_of_a_turn_tells_how_it_did(keys: Keys, redis: Redis) -> None:
    tone = Rule("tone", RuleType.LLM_CLASSIFIER, Severity.MAJOR)
    hello = Rule("hello", RuleType.KEYWORD, Severity.MINOR, target=Target.PROMPT, keywords=("Hello",))
    many = Rule("many", RuleType.RESOURCE, Severity.MAJOR, params={"resource": "tokens", "limit": 9_000})
    rules = (tone, hello, many, MAIL, form(Action.WARN, json=True))
    async with replica(keys, redis, snapshot=Snapshot(1, {"*": (Bundle("all", "1.0.0", rules),)})) as served:
        served.model.steps = list(SAID)
        found = (Finding(Verdict(tone, "all@1.0.0", Action.REDACT, Target.OUTPUT, 0, 5), "says yes"),)
        took = (Report("tone", "redact", timedelta(seconds=2)),)
        served.policy.outcomes = {"All is well. ": Outcome("[tone] ", found, took)}
        events = await generated(served, keys, request("Hello."))
    told = {one.rule: (one.status, one.elapsed.ToTimedelta()) for one in events[-1].finished.monitors}
    assert {name: status for name, (status, _) in told.items()} == {
        "tone": "redact", "hello": "warn", "many": "pass", "mail": "redact", "form": "warn"
    }  # fmt: skip
    assert told["tone"][1] == timedelta(seconds=2)
