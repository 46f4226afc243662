"""Rules over numbers in the stream: what a turn may use, cost and take."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from agentnet.common.v1 import error_reason_pb2
from agentnet.inference.v1 import message_pb2
from services.inference.numbers import NumberRules, rounds
from services.inference.peers import Ending
from services.inference.providers.contract import Message, Role, Text, ToolCall
from shared.monitors.enforced import Snapshot
from shared.monitors.factories import cost_limit, iteration_limit, standard_guardrails, token_budget, tool_call_limit
from shared.monitors.rules import Action, Bundle, Mode, Rule, RuleType, Severity, Target
from tests.service.inference.calls import generated
from tests.support.identity import Keys
from tests.support.inference import Event, kinds, replica, request, text_of

BLOCKED = error_reason_pb2.ERROR_REASON_POLICY_BLOCKED


def snapshot(*rules: Rule, mode: Mode = Mode.STRICT) -> Snapshot:
    return Snapshot(1, {"*": (Bundle("limits", "1.0.0", rules, mode=mode),)})


def verdicts(events: list[Event]) -> list[tuple[str, str]]:
    return [(one.verdict.rule, one.verdict.action) for one in events if one.HasField("verdict")]


async def test_a_cost_limit_warns_near_it_and_stops_the_stream_beyond_it(keys: Keys, redis: Redis) -> None:
    async with replica(keys, redis, snapshot=snapshot(cost_limit(50))) as served:
        words = [f"{first}{second} " for first in "abcdefgh" for second in "vwxyz"]
        served.model.steps = list(words)
        events = await generated(served, keys, request())
        (usage,) = (usage for _, usage in served.cost.settled)
        spent = usage.input_tokens + 2 * usage.output_tokens  # micro-USD, as the lease was priced
        assert 50 < spent <= 52
        assert events[-1].failed.failure.reason == BLOCKED
        assert text_of(events) == "".join(words[: usage.output_tokens])
        assert verdicts(events) == [
            ("cost_limit", "warn"),
            ("cost_limit", "block"),
        ]
        assert served.cost.settlements[0].outcome is Ending.STOPPED
        assert [(rule, action) for _, rule, action in served.policy.recorded] == [
            ("cost_limit", Action.WARN),
            ("cost_limit", Action.BLOCK),
        ]


async def test_a_permissive_limit_only_tells_once(keys: Keys, redis: Redis) -> None:
    async with replica(keys, redis, snapshot=snapshot(token_budget(9), mode=Mode.PERMISSIVE)) as served:
        served.model.steps = [f"word{number} " for number in range(40)]
        events = await generated(served, keys, request())
        assert kinds(events)[-1] == "finished"
        assert [rule for rule, _ in verdicts(events)] == ["token_budget"]


async def test_a_prompt_beyond_the_limit_is_not_sent_and_costs_nothing(keys: Keys, redis: Redis) -> None:
    async with replica(keys, redis, snapshot=snapshot(token_budget(1))) as served:
        events = await generated(served, keys, request())
        assert events[-1].failed.failure.reason == BLOCKED
        assert served.model.calls == []
        assert [usage.input_tokens + usage.output_tokens for _, usage in served.cost.settled] == [0]


async def test_a_turn_that_went_round_too_often_is_not_sent_again(keys: Keys, redis: Redis) -> None:
    async with replica(keys, redis, snapshot=snapshot(iteration_limit(2), tool_call_limit(9))) as served:
        asked = request()
        for number in range(2):
            answered = asked.messages.add(role=message_pb2.ROLE_ASSISTANT)
            answered.content.add().tool_call.CopyFrom(message_pb2.ToolCall(id=f"c{number}", name="t", arguments="{}"))
            result = asked.messages.add(role=message_pb2.ROLE_TOOL)
            result.content.add().tool_result.CopyFrom(message_pb2.ToolResult(tool_call_id=f"c{number}", content="x"))
        events = await generated(served, keys, asked)
        assert events[-1].failed.failure.reason == BLOCKED
        assert verdicts(events) == [("iteration_limit", "block")]


async def test_the_length_of_an_answer_is_judged_at_its_end(keys: Keys, redis: Redis) -> None:
    params = {"metric": "output_characters", "min": 10}
    short = Rule("short", RuleType.NUMERICAL_THRESHOLD, Severity.MINOR, params=params, target=Target.OUTPUT)
    async with replica(keys, redis, snapshot=snapshot(short)) as served:
        served.model.steps = ["no", "pe"]
        events = await generated(served, keys, request())
        assert verdicts(events) == [("short", "warn")]
        assert kinds(events)[-1] == "finished"


async def test_the_ready_made_guardrails_let_a_plain_answer_pass(keys: Keys, redis: Redis) -> None:
    async with replica(keys, redis, snapshot=Snapshot(1, {"*": (standard_guardrails(),)})) as served:
        events = await generated(served, keys, request())
        assert (kinds(events)[-1], verdicts(events)) == ("finished", [])


def test_rounds_count_from_what_a_person_said_last() -> None:
    person, model = Message(Role.USER, (Text("go"),)), Message(Role.ASSISTANT, (ToolCall("1", "t", "{}"),) * 2)
    assert rounds([person, model, person]) == {"iterations": 1, "tool_calls": 0}
    assert rounds([person, model, model]) == {"iterations": 3, "tool_calls": 4}


@pytest.mark.parametrize("bundles", [(), (Bundle("b", "1", (cost_limit(1),)),)])
def test_without_such_rules_nothing_is_judged(bundles: tuple[Bundle, ...]) -> None:
    assert bool(NumberRules(bundles, ())) is bool(bundles)
