"""A model fails, another goes on: typed, in the open, and every attempt is paid once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest
from redis.asyncio import Redis

from services.inference.breakers import BreakerLimits, BreakerState, RedisBreakers
from services.inference.errors import (
    ContextTooLong,
    ProviderAuthFailed,
    ProviderRateLimited,
    ProviderRejected,
    ProviderUnavailable,
    StreamBroken,
)
from services.inference.peers import Cost, Ending, Settlement
from services.inference.providers.contract import Role, Timeouts
from shared.clock import SystemClock
from shared.errors import Reason
from tests.service.inference.calls import Code, generated, refusal, said
from tests.support.identity import Keys
from tests.support.inference import Event, Replica, ScriptedCost, kinds, replica, request, text_of


def after_restart(events: list[Event]) -> str:
    """The text that counts."""
    places = [place for place, event in enumerate(events) if event.failover.restarted]
    return text_of(events[places[-1] :] if places else events)


async def test_a_passing_failure_before_the_first_token_is_retried_unseen(served: Replica, keys: Keys) -> None:
    served.model.scripts = [[ProviderUnavailable("away")], ["Hello."]]
    events = await generated(served, keys, request())
    assert kinds(events) == ["started", "text", "finished"]
    assert events[-1].finished.attempts == 2
    assert [name for name, _ in served.cost.settled] == ["gen_1"]


async def test_a_retry_never_comes_before_its_retry_after(served: Replica, keys: Keys) -> None:
    wait = timedelta(milliseconds=120)
    served.model.scripts = [[ProviderRateLimited("slow down", retry_after=wait)], ["Hello."]]
    began = asyncio.get_running_loop().time()
    await generated(served, keys, request())
    assert asyncio.get_running_loop().time() - began >= wait.total_seconds()


async def test_a_model_s_whole_time_is_up_in_the_middle_too_and_what_came_is_paid(served: Replica, keys: Keys) -> None:
    models = served.engine.admission.router._models
    models["scripted"] = replace(models["scripted"], timeouts=Timeouts(total=timedelta(milliseconds=60)))
    served.model.steps = ["One ", asyncio.Event()]
    async with asyncio.timeout(3):
        events = await generated(served, keys, request(no_fallback=True))
    assert text_of(events) == "One "
    assert events[-1].failed.failure.reason == Reason.ERROR_REASON_PROVIDER_TIMEOUT
    assert served.model.closed.is_set()
    assert [name for name, _ in served.cost.settled] == ["gen_1"]


async def test_a_long_retry_after_goes_to_the_next_model_at_once(served: Replica, keys: Keys) -> None:
    served.model.scripts = [[ProviderRateLimited("slow down", retry_after=timedelta(minutes=1))]]
    served.others["backup"].steps = ["From the backup."]
    events = await generated(served, keys, request(model="safe"))
    assert kinds(events) == ["started", "failover", "text", "finished"]
    failover = events[1].failover
    assert (failover.from_model, failover.to_model, failover.to_provider) == ("safe", "backup", "backup")
    assert failover.failure.reason == Reason.ERROR_REASON_PROVIDER_RATE_LIMITED
    assert events[-1].finished.cost.model == "backup"


async def test_three_tries_then_the_chain_goes_on_to_its_end(served: Replica, keys: Keys) -> None:
    served.model.scripts = [[ProviderUnavailable("away")]] * 3
    served.others["backup"].scripts = [[ProviderUnavailable("away")]] * 3
    served.others["roomy"].steps = ["At last."]
    events = await generated(served, keys, request(model="safe"))
    assert kinds(events) == ["started", "failover", "failover", "text", "finished"]
    assert events[-1].finished.attempts == 7
    assert [len(model.calls) for model in (served.model, served.others["backup"])] == [3, 3]


async def test_what_nobody_answers_is_one_typed_failure(served: Replica, keys: Keys) -> None:
    served.model.steps = [ProviderUnavailable("away")]
    events = await generated(served, keys, request())
    assert kinds(events) == ["started", "failed"]
    assert events[-1].failed.failure.reason == Reason.ERROR_REASON_PROVIDER_UNAVAILABLE
    assert [usage.output_tokens + usage.input_tokens for _, usage in served.cost.settled] == [0]


async def test_refused_credentials_go_to_the_next_model_without_a_retry(served: Replica, keys: Keys) -> None:
    served.model.steps = [ProviderAuthFailed("no")]
    served.others["backup"].steps = ["Hello."]
    events = await generated(served, keys, request(model="safe"))
    assert kinds(events) == ["started", "failover", "text", "finished"]
    assert len(served.model.calls) == 1


async def test_a_request_that_is_wrong_is_not_asked_elsewhere(served: Replica, keys: Keys) -> None:
    served.model.steps = [ProviderRejected("no")]
    events = await generated(served, keys, request(model="safe"))
    assert kinds(events) == ["started", "failed"]
    assert served.others["backup"].calls == []


async def test_a_prompt_that_does_not_fit_goes_to_a_roomier_model_only(served: Replica, keys: Keys) -> None:
    served.model.steps = [ContextTooLong("too long", field="messages")]
    served.others["roomy"].steps = ["It fits."]
    chain = ["backup", "roomy"]
    events = await generated(served, keys, request(model="scripted", fallback_models=chain))
    assert [event.failover.to_model for event in events if event.HasField("failover")] == ["roomy"]
    assert served.others["backup"].calls == []


async def test_in_mid_stream_the_next_model_starts_anew_and_says_so(served: Replica, keys: Keys) -> None:
    served.model.steps = ["Half of ", "an answ", StreamBroken("cut")]
    served.others["backup"].steps = ["A whole ", "answer."]
    events = await generated(served, keys, request(model="safe"))
    assert kinds(events) == ["started", "text", "text", "failover", "text", "text", "finished"]
    failover = events[3].failover
    assert (failover.restarted, failover.at_character) == (True, len(text_of(events[:3])))
    assert after_restart(events) == "A whole answer."


async def test_each_attempt_is_paid_once_under_an_id_of_its_own(served: Replica, keys: Keys) -> None:
    served.model.steps = ["Half ", "an ", StreamBroken("cut")]
    served.others["backup"].steps = ["A ", "whole ", "one."]
    events = await generated(served, keys, request(model="safe"))
    assert [(name, usage.output_tokens) for name, usage in served.cost.settled] == [("gen_1", 2), ("gen_1-try2", 3)]
    assert events[-1].finished.usage.output_tokens == 5
    assert events[-1].finished.cost.micros_usd == 10


async def test_a_model_that_can_continues_where_the_other_broke(served: Replica, keys: Keys) -> None:
    served.model.steps = ["Half of ", "an answ", StreamBroken("cut")]
    served.others["continuing"].steps = ["er and its end."]
    events = await generated(served, keys, request(model="scripted", fallback_models=["continuing"]))
    failover = next(event.failover for event in events if event.HasField("failover"))
    assert not failover.restarted
    assert text_of(events) == "Half of an answer and its end."
    begun = served.others["continuing"].calls[0].messages[-1]
    assert (begun.role, begun.text) == (Role.ASSISTANT, "Half of an answ")


async def test_what_is_held_back_at_the_break_is_judged_with_what_continues(served: Replica, keys: Keys) -> None:
    served.model.steps = ["Write to ada@exam", StreamBroken("cut")]
    served.others["continuing"].steps = ["ple.org now."]
    events = await generated(served, keys, request(model="scripted", fallback_models=["continuing"]))
    assert text_of(events) == "Write to [REDACTED:mail] now."
    assert served.others["continuing"].calls[0].messages[-1].text == "Write to ada@exam"


async def test_the_last_model_is_asked_again_in_mid_stream(served: Replica, keys: Keys) -> None:
    served.model.scripts = [["Half", StreamBroken("cut")], ["Whole."]]
    events = await generated(served, keys, request())
    failover = next(event.failover for event in events if event.HasField("failover"))
    assert (failover.from_model, failover.to_model, failover.restarted) == ("scripted", "scripted", True)
    assert after_restart(events) == "Whole."


async def test_no_fallback_is_kept_before_the_first_token(served: Replica, keys: Keys) -> None:
    served.model.steps = [ProviderUnavailable("away")]
    events = await generated(served, keys, request(model="safe", no_fallback=True))
    assert kinds(events) == ["started", "failed"]
    assert len(served.model.calls) == 3
    assert served.others["backup"].calls == []


async def test_no_fallback_is_kept_in_mid_stream(served: Replica, keys: Keys) -> None:
    served.model.steps = ["Half", StreamBroken("cut")]
    events = await generated(served, keys, request(model="safe", no_fallback=True))
    assert kinds(events) == ["started", "text", "failed"]
    assert len(served.model.calls) == 1


async def test_a_chain_of_the_request_s_own_wins(served: Replica, keys: Keys) -> None:
    served.model.steps = [ProviderAuthFailed("no")]
    served.others["roomy"].steps = ["Hello."]
    events = await generated(served, keys, request(model="safe", fallback_models=["roomy"]))
    assert [event.failover.to_model for event in events if event.HasField("failover")] == ["roomy"]


async def test_a_chain_and_no_fallback_contradict_each_other(served: Replica, keys: Keys) -> None:
    call = served.stub.Generate(request(fallback_models=["backup"], no_fallback=True), metadata=keys.metadata())
    error = await refusal(call.read())
    assert (said(error), error.field) == ((Code.INVALID_ARGUMENT, "FIELD_INVALID"), "fallback_models")


async def test_money_for_the_next_attempt_is_asked_for_first(served: Replica, keys: Keys) -> None:
    served.model.steps = ["Half", StreamBroken("cut")]
    served.cost.refuse_after = 1
    events = await generated(served, keys, request(model="safe"))
    assert events[-1].failed.failure.reason == Reason.ERROR_REASON_BUDGET_EXHAUSTED
    assert served.others["backup"].calls == []
    assert [name for name, _ in served.cost.settled] == ["gen_1"]


async def test_a_provider_that_fails_in_a_row_is_left_alone_by_every_replica(keys: Keys, redis: Redis) -> None:
    limits = BreakerLimits(failures=3, cooldown=timedelta(seconds=30))
    one, other = (RedisBreakers(redis, clock=SystemClock(), limits=limits) for _ in range(2))
    async with replica(keys, redis, breakers=one) as first, replica(keys, redis, breakers=other) as second:
        first.model.steps = [ProviderUnavailable("away")]
        first.others["backup"].steps = second.others["backup"].steps = ["Hello."]
        await generated(first, keys, request(model="safe"))
        await other.look(["scripted", "backup"])
        events = await generated(second, keys, request(model="safe", generation_id="gen_2"))
        assert kinds(events) == ["started", "failover", "text", "finished"]
        assert second.model.calls == []
        assert await other.state("scripted") is BreakerState.OPEN


async def test_with_its_only_breaker_open_a_call_is_refused_at_once(keys: Keys, redis: Redis) -> None:
    limits = BreakerLimits(failures=1, cooldown=timedelta(seconds=30))
    async with replica(keys, redis, breakers=RedisBreakers(redis, clock=SystemClock(), limits=limits)) as served:
        served.model.steps = [ProviderUnavailable("away")]
        await generated(served, keys, request())
        error = await refusal(served.stub.Generate(request(generation_id="gen_2"), metadata=keys.metadata()).read())
        assert said(error) == (Code.UNAVAILABLE, "PROVIDER_UNAVAILABLE")
        assert error.retry_after
        assert len(served.model.calls) == 1


async def test_a_failure_names_who_was_asked_not_who_was_passed_over(served: Replica, keys: Keys) -> None:
    for _ in range(5):
        await served.engine.breakers.failed("backup")
    served.model.steps = ["Half", StreamBroken("cut")]
    events = await generated(served, keys, request(fallback_models=["backup"]))
    assert (kinds(events)[-1], served.others["backup"].calls) == ("failed", [])
    assert events[-1].failed.cost.model == "scripted"
    record = await served.store.find("acme", "gen_1")
    assert record is not None
    assert (record.model, record.provider) == ("scripted", "scripted")


@pytest.mark.parametrize("cut", range(1, 6))
async def test_cut_after_any_chunk_the_client_has_a_whole_answer_and_it_is_paid(
    served: Replica, keys: Keys, cut: int
) -> None:
    words = ["One ", "two ", "three ", "four ", "five."]
    served.model.steps = [*words[:cut], StreamBroken("cut")]
    served.others["backup"].steps = list(words)
    events = await generated(served, keys, request(model="safe"))
    assert kinds(events)[-1] == "finished"
    assert after_restart(events) == "One two three four five."
    assert [usage.output_tokens for _, usage in served.cost.settled] == [cut, 5]


@dataclass(slots=True)
class SlowCost(ScriptedCost):
    """Takes a settlement when it is let."""

    asked: asyncio.Event = field(default_factory=asyncio.Event)
    free: asyncio.Event = field(default_factory=asyncio.Event)

    async def settle(self, settlement: Settlement) -> Cost:
        self.asked.set()
        await self.free.wait()
        return await ScriptedCost.settle(self, settlement)


async def test_an_attempt_that_is_being_settled_when_it_is_called_off_is_settled(served: Replica, keys: Keys) -> None:
    served.engine.cost = cost = SlowCost()
    served.model.steps = ["Half", StreamBroken("cut")]
    call = asyncio.ensure_future(generated(served, keys, request(model="safe")))
    await cost.asked.wait()
    await served.engine.cancel("acme", "gen_1")
    await asyncio.sleep(0.01)
    cost.free.set()
    events = await call
    assert events[-1].failed.failure.reason == Reason.ERROR_REASON_GENERATION_CANCELLED
    assert [(one.payer.generation_id, one.outcome) for one in cost.settlements] == [("gen_1", Ending.FAILED_OVER)]
    assert events[-1].failed.cost.micros_usd == 2
    assert served.others["backup"].calls == []
