"""Answers that need no model: kept, alike, or being given to someone else; and the orders to take a cheaper one."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from agentnet.inference.v1 import cache_pb2, downgrade_pb2, generation_pb2
from agentnet.inference.v1 import inference_service_pb2 as pb
from services.inference.embeddings.contract import Embedded
from services.inference.errors import StreamBroken
from services.inference.exporting import exported
from services.inference.prompts.content import Content, Template
from services.inference.prompts.content import Role as ContentRole
from services.inference.providers.contract import Usage
from services.inference.replay import Cassette, ReplayingProvider, ReplayMode, TextRecording
from shared.clock import SystemClock
from shared.errors import Internal, Reason
from shared.paging import Page
from tests.service.inference.calls import Code, generated, refusal, said, until
from tests.support.identity import Keys
from tests.support.inference import DEFAULT, LengthEmbedder, Replica, ScriptedModel, kinds, replica, request, text_of

EXACT = cache_pb2.CachePolicy(mode=cache_pb2.CACHE_MODE_EXACT)
SEMANTIC = cache_pb2.CachePolicy(mode=cache_pb2.CACHE_MODE_SEMANTIC, similarity=0.9)


def asked(text: str = "Hello?", generation_id: str = "gen_1", **changes: Any) -> pb.GenerateRequest:
    return request(text, generation_id, **{"cache": EXACT, **changes})


async def test_the_same_request_is_answered_without_the_model_or_money(served: Replica, keys: Keys) -> None:
    served.model.steps = ["A long ", "answer."]
    first = await generated(served, keys, asked())
    second = await generated(served, keys, asked(generation_id="gen_2"))
    assert text_of(second) == text_of(first) == "A long answer."
    finished = second[-1].finished
    assert (finished.source, finished.attempts) == (generation_pb2.ANSWER_SOURCE_EXACT_CACHE, 0)
    assert finished.cost.micros_usd == 0
    assert len(served.model.calls) == len(served.cost.reserved) == len(served.cost.settled) == 1


DIFFERENT: dict[str, dict[str, Any]] = {
    "another prompt": {"text": "Hello!"},
    "another model": {"model": "backup"},
    "another limit": {"max_output_tokens": 7},
    "another temperature": {"sampling": {"temperature": 0.5}},
}


@pytest.mark.parametrize("changes", DIFFERENT.values(), ids=DIFFERENT.keys())
async def test_a_request_that_differs_is_answered_anew(served: Replica, keys: Keys, changes: dict[str, Any]) -> None:
    served.model.steps = served.others["backup"].steps = ["Answer."]
    await generated(served, keys, asked())
    second = await generated(served, keys, asked(**{"generation_id": "gen_2", **changes}))
    assert second[-1].finished.source == generation_pb2.ANSWER_SOURCE_MODEL


async def test_an_answer_never_crosses_tenants(served: Replica, keys: Keys) -> None:
    served.model.steps = ["Answer."]
    await generated(served, keys, asked(cache=SEMANTIC), tenant="acme")
    for number, cache in enumerate((EXACT, SEMANTIC)):
        other = await generated(served, keys, asked(cache=cache, generation_id=f"gen_{number}"), tenant=f"t{number}")
        assert other[-1].finished.source == generation_pb2.ANSWER_SOURCE_MODEL


async def test_an_answer_ends_with_the_policy_it_was_made_under(served: Replica, keys: Keys) -> None:
    served.model.steps = ["Answer."]
    await generated(served, keys, asked())
    served.policy.snapshots.put_nowait(replace(DEFAULT, revision=2))
    await until(lambda: served.engine.enforcement.revision == 2)
    second = await generated(served, keys, asked(generation_id="gen_2"))
    assert second[-1].finished.source == generation_pb2.ANSWER_SOURCE_MODEL


async def test_an_answer_ends_with_its_time(served: Replica, keys: Keys, redis: Redis) -> None:
    served.model.steps = ["Answer."]
    await generated(
        served, keys, asked(cache=cache_pb2.CachePolicy(mode=cache_pb2.CACHE_MODE_EXACT, ttl=Duration(seconds=60)))
    )
    (name,) = await redis.keys("answer:*")
    assert 0 < await redis.ttl(name) <= 60


async def test_an_answer_that_is_older_than_asked_for_is_not_used(served: Replica, keys: Keys) -> None:
    served.model.steps = ["Answer."]
    await generated(served, keys, asked())
    await asyncio.sleep(0.02)
    fresh = cache_pb2.CachePolicy(mode=cache_pb2.CACHE_MODE_SEMANTIC, ttl=Duration(nanos=10_000_000))
    second = await generated(served, keys, asked(generation_id="gen_2", cache=fresh))
    assert second[-1].finished.source == generation_pb2.ANSWER_SOURCE_MODEL


async def test_what_a_stand_in_answered_is_not_kept_under_the_model_s_name(served: Replica, keys: Keys) -> None:
    served.model.steps, served.others["backup"].steps = ["Its own."], ["A stand-in's."]
    for _ in range(5):
        await served.engine.breakers.failed("scripted")
    first = await generated(served, keys, asked(model="safe"))
    await served.engine.breakers.succeeded("scripted")
    second = await generated(served, keys, asked(generation_id="gen_2", model="safe"))
    assert (text_of(first), text_of(second)) == ("A stand-in's.", "Its own.")


async def test_the_least_used_answer_is_forgotten_first(served: Replica, keys: Keys) -> None:
    served.model.steps = ["Answer."]
    for number in range(4):
        await generated(served, keys, asked(f"Question {number}?", f"gen_{number}"))
    await generated(served, keys, asked("Question 0?", "gen_4"))  # used again
    await generated(served, keys, asked("Question 5?", "gen_5"))  # one too many
    kept = await generated(served, keys, asked("Question 0?", "gen_6"))
    gone = await generated(served, keys, asked("Question 1?", "gen_7"))
    assert kept[-1].finished.source == generation_pb2.ANSWER_SOURCE_EXACT_CACHE
    assert gone[-1].finished.source == generation_pb2.ANSWER_SOURCE_MODEL


async def test_what_did_not_end_well_is_not_kept(served: Replica, keys: Keys) -> None:
    served.model.steps = ["Half", StreamBroken("cut")]
    await generated(served, keys, asked(no_fallback=True))
    served.model.steps = ["Whole."]
    second = await generated(served, keys, asked(generation_id="gen_2", no_fallback=True))
    assert second[-1].finished.source == generation_pb2.ANSWER_SOURCE_MODEL


async def test_only_what_was_shown_is_kept(served: Replica, keys: Keys, redis: Redis) -> None:
    served.model.steps = ["Write to ada@example.org."]
    await generated(served, keys, asked())
    (name,) = await redis.keys("answer:*")
    assert b"ada@example.org" not in (await redis.get(name) or b"")


async def test_a_request_that_means_the_same_is_answered_when_that_is_wanted(served: Replica, keys: Keys) -> None:
    served.model.steps = ["Answer."]
    await generated(served, keys, asked("How are you?", cache=SEMANTIC))
    alike = await generated(served, keys, asked("How are ya??", "gen_2", cache=SEMANTIC))
    exact = await generated(served, keys, asked("How are ya??", "gen_3"))
    assert alike[-1].finished.source == generation_pb2.ANSWER_SOURCE_SEMANTIC_CACHE
    assert exact[-1].finished.source == generation_pb2.ANSWER_SOURCE_MODEL


async def test_a_meaning_is_computed_while_the_model_answers(
    served: Replica, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first text of a process loads the embedding model: who asks right after this answer must find it."""
    gate, embedded = asyncio.Event(), list[str]()

    class Heard(LengthEmbedder):
        async def embed(self, texts: Sequence[str]) -> Embedded:
            embedded.extend(texts)
            return await LengthEmbedder.embed(self, texts)

    monkeypatch.setattr(served.engine.admission.cache, "_embedder", Heard())
    served.model.steps = ["One ", gate, "two."]
    call = asyncio.create_task(generated(served, keys, asked("How are you?", cache=SEMANTIC)))
    await until(lambda: embedded == ["How are you?"])
    gate.set()
    assert text_of(await call) == "One two."


class Away:
    """An embedding model that fails."""

    def __init__(self) -> None:
        self.asked = 0

    async def embed(self, texts: Sequence[str]) -> Embedded:
        self.asked += 1
        raise Internal("the embedding model failed")


async def test_a_meaning_that_cannot_be_computed_is_no_fault_of_the_process_or_the_answer(
    served: Replica, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults, away = list[Any](), Away()
    asyncio.get_running_loop().set_exception_handler(lambda _loop, fault: faults.append(fault))
    served.model.steps = ["One ", "two."]
    await generated(served, keys, asked("How are you?", cache=SEMANTIC))
    await served.engine.admission.drain()
    monkeypatch.setattr(served.engine.admission.cache, "_embedder", away)
    known = await generated(served, keys, asked("How are ya??", "gen_2", cache=SEMANTIC))  # others to compare it with
    ahead = await generated(served, keys, asked("Alone?", "gen_3", cache=SEMANTIC, max_output_tokens=9))
    exact = await generated(served, keys, asked("Alone?", "gen_4", cache=SEMANTIC, max_output_tokens=9))
    await served.engine.admission.drain()
    gc.collect()  # a task tells of the fault that nobody heard when it is let go
    assert [text_of(events) for events in (known, ahead, exact)] == ["One two."] * 3
    assert exact[-1].finished.source == generation_pb2.ANSWER_SOURCE_EXACT_CACHE
    assert (away.asked, faults) == (4, [])


async def test_the_end_is_told_to_whom_a_slow_meaning_would_hold_up(
    served: Replica, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = asyncio.Event()

    class Slow(LengthEmbedder):
        async def embed(self, texts: Sequence[str]) -> Embedded:
            await gate.wait()
            return await LengthEmbedder.embed(self, texts)

    monkeypatch.setattr(served.engine.admission, "kept_within", timedelta(milliseconds=50))
    monkeypatch.setattr(served.engine.admission.cache, "_embedder", Slow())
    served.model.steps = ["Answer."]
    first = await generated(served, keys, asked("How are you?", cache=SEMANTIC))
    gate.set()
    await served.engine.admission.drain()
    second = await generated(served, keys, asked("How are ya??", "gen_2", cache=SEMANTIC))
    sources = [events[-1].finished.source for events in (first, second)]
    assert sources == [generation_pb2.ANSWER_SOURCE_MODEL, generation_pb2.ANSWER_SOURCE_SEMANTIC_CACHE]


async def test_who_has_read_the_end_finds_the_answer_at_any_replica(keys: Keys, redis: Redis) -> None:
    async with replica(keys, redis) as one, replica(keys, redis) as other:
        one.model.steps = ["Answer."]
        await generated(one, keys, asked("How are you?", cache=SEMANTIC))
        alike = await generated(other, keys, asked("How are ya??", "gen_2", cache=SEMANTIC))
        same = await generated(other, keys, asked("How are you?", "gen_3"))
        assert alike[-1].finished.source == generation_pb2.ANSWER_SOURCE_SEMANTIC_CACHE
        assert same[-1].finished.source == generation_pb2.ANSWER_SOURCE_EXACT_CACHE


async def test_an_answer_for_a_moment_does_not_end_the_meanings_beside_it(
    served: Replica, keys: Keys, redis: Redis
) -> None:
    served.model.steps = ["Answer."]
    await generated(served, keys, asked("How are you?", cache=SEMANTIC))
    brief = cache_pb2.CachePolicy(mode=cache_pb2.CACHE_MODE_SEMANTIC, similarity=0.999, ttl=Duration(nanos=1000))
    await generated(served, keys, asked("Where were you when the lights went out?", "gen_2", cache=brief))
    (meanings,) = await redis.keys("answers-meaning:*")
    assert await redis.pttl(meanings) > 3_590_000
    assert await redis.hlen(meanings) == 2


async def test_identical_requests_at_once_share_one_call(served: Replica, keys: Keys) -> None:
    gate = asyncio.Event()
    served.model.steps = ["One ", gate, "two."]
    leader = asyncio.create_task(generated(served, keys, asked()))
    await until(lambda: served.model.calls)
    followers = [asyncio.create_task(generated(served, keys, asked(generation_id=f"gen_{n}"))) for n in range(2, 6)]
    await until(lambda: len(served.engine._live) == 5)
    gate.set()
    for events in await asyncio.gather(*followers):
        assert text_of(events) == "One two."
        assert events[-1].finished.source == generation_pb2.ANSWER_SOURCE_SHARED
    assert text_of(await leader) == "One two."
    assert len(served.model.calls) == len(served.cost.settled) == 1


async def test_who_shared_a_call_that_fails_makes_one_of_its_own(served: Replica, keys: Keys) -> None:
    gate = asyncio.Event()
    served.model.scripts = [["Half ", gate, StreamBroken("cut")], ["Whole."]]
    leader = asyncio.create_task(generated(served, keys, asked(no_fallback=True)))
    await until(lambda: served.model.calls)
    follower = asyncio.create_task(generated(served, keys, asked(generation_id="gen_2")))
    await until(lambda: len(served.engine._live) == 2)
    gate.set()
    events = await follower
    assert kinds(events)[-1] == "finished"
    assert text_of(events).endswith("Whole.")
    assert (await leader)[-1].HasField("failed")


async def test_without_redis_there_are_no_kept_answers_and_no_failures(keys: Keys, redis: Redis) -> None:
    async with replica(keys, Redis(host="127.0.0.1", port=1, retry=Retry(NoBackoff(), 0))) as served:
        served.model.steps = ["Answer."]
        events = await generated(served, keys, asked(cache=SEMANTIC))
        assert kinds(events) == ["started", "text", "finished"]


async def test_a_downgrade_moves_calls_and_says_so(served: Replica, keys: Keys) -> None:
    order = downgrade_pb2.DowngradeModelRequest(
        from_model="scripted", to_model="backup", duration=Duration(seconds=60), reason="80 % of the budget is spent"
    )
    served.others["backup"].steps = ["Cheaper."]
    await served.stub.DowngradeModel(order, metadata=keys.metadata())
    events = await generated(served, keys, request())
    downgraded = events[1].downgraded
    assert (downgraded.from_model, downgraded.to_model) == ("scripted", "backup")
    assert downgraded.reason == "80 % of the budget is spent"
    assert events[-1].finished.cost.model == "backup"
    served.model.steps = ["Dear."]
    kept_to = await generated(served, keys, request(generation_id="gen_2", no_fallback=True))
    assert text_of(kept_to) == "Dear."
    listed = await served.stub.ListModels(pb.ListModelsRequest(), metadata=keys.metadata())
    assert {model.name: model.downgraded_to for model in listed.models}["scripted"] == "backup"


async def test_a_downgrade_ends_when_it_is_taken_back_and_is_of_one_tenant(served: Replica, keys: Keys) -> None:
    order = downgrade_pb2.DowngradeModelRequest(
        from_model="scripted", to_model="backup", duration=Duration(seconds=60), reason="money"
    )
    served.model.steps, served.others["backup"].steps = ["Dear."], ["Cheap."]
    await served.stub.DowngradeModel(order, metadata=keys.metadata("acme"))
    elsewhere = await generated(served, keys, request(), tenant="other")
    await served.stub.RestoreModel(
        downgrade_pb2.RestoreModelRequest(from_model="scripted"), metadata=keys.metadata("acme")
    )
    restored = await generated(served, keys, request(generation_id="gen_2"))
    assert (text_of(elsewhere), text_of(restored)) == ("Dear.", "Dear.")


WRONG = {
    "no duration": ({"duration": None}, Code.INVALID_ARGUMENT, "duration"),
    "itself": ({"to_model": "scripted"}, Code.INVALID_ARGUMENT, "to_model"),
    "no reason": ({"reason": ""}, Code.INVALID_ARGUMENT, "reason"),
    "unknown": ({"to_model": "gpt-9"}, Code.NOT_FOUND, None),
}


@pytest.mark.parametrize(("changes", "code", "field"), WRONG.values(), ids=WRONG.keys())
async def test_a_wrong_downgrade_is_refused(
    served: Replica, keys: Keys, changes: dict[str, Any], code: Code, field: str | None
) -> None:
    right = {"from_model": "scripted", "to_model": "backup", "duration": Duration(seconds=60), "reason": "money"}
    order = downgrade_pb2.DowngradeModelRequest(**{**right, **changes})
    error = await refusal(served.stub.DowngradeModel(order, metadata=keys.metadata()))
    assert (error.code, error.field) == (code, field)
    assert said(error)[1] in ("FIELD_INVALID", "FIELD_REQUIRED", "MODEL_NOT_FOUND")


async def test_an_answer_ends_with_the_prompt_version_it_was_made_from(served: Replica, keys: Keys) -> None:
    served.model.steps = ["Answer."]
    for text in ("Be kind.", "Be brief."):
        content = Content((Template(ContentRole.USER, text),))
        await served.prompts.add("acme", "greet", content, comment="", author="ada", labels=())
    sources = []
    for number, version in enumerate(("greet@1", "greet@2", "greet@1")):
        events = await generated(served, keys, asked(generation_id=f"gen_{number}", prompt_version=version))
        sources.append(events[-1].finished.source)
    model, kept = generation_pb2.ANSWER_SOURCE_MODEL, generation_pb2.ANSWER_SOURCE_EXACT_CACHE
    assert sources == [model, model, kept]


async def test_a_generation_is_tied_to_its_prompt_version_and_exported_with_it(served: Replica, keys: Keys) -> None:
    served.model.steps = ["Write to ada@example.org."]
    content = Content((Template(ContentRole.USER, "Be kind."),))
    version, _ = await served.prompts.add("acme", "greet", content, comment="", author="ada", labels=("production",))
    await generated(served, keys, request(prompt_version="greet@production"))
    (tied,) = await served.prompts.generations("acme", "greet", "", Page())
    assert (tied.generation_id, tied.digest, tied.label) == ("gen_1", version.digest, "production")
    ((tenant, order, how),) = served.ended
    found = exported(tenant, order, how, at=SystemClock().now())
    assert (found.tenant_id, found.id, found.prompt) == ("acme", "gen_1", version)
    assert (found.output, found.outcome, found.failed) == ("Write to [REDACTED:mail].", "STOP", False)
    assert found.spent.micros_usd == 2 * found.spent.output_tokens == 14  # one piece of seven tokens, about
    assert [said.text for said in found.messages] == ["Hello?"]


async def test_a_generation_that_is_asked_for_again_keeps_its_prompt_version(served: Replica, keys: Keys) -> None:
    served.model.steps = ["Well."]
    for text in ("Be kind.", "Be brief."):
        content = Content((Template(ContentRole.USER, text),))
        await served.prompts.add("acme", "greet", content, comment="", author="ada", labels=("production",))
        again = await generated(served, keys, request(prompt_version="greet@production"))
        assert text_of(again) == "Well."
    (tied,) = await served.prompts.generations("acme", "greet", "1", Page())
    assert tied.generation_id == "gen_1"
    error = await refusal(served.stub.Generate(request(prompt_version="greet@2"), metadata=keys.metadata()).read())
    assert (said(error), error.field) == ((Code.INVALID_ARGUMENT, "FIELD_INVALID"), "generation_id")


async def test_an_unknown_prompt_version_is_refused(served: Replica, keys: Keys) -> None:
    error = await refusal(served.stub.Generate(request(prompt_version="greet@9"), metadata=keys.metadata()).read())
    assert said(error) == (Code.NOT_FOUND, "PROMPT_NOT_FOUND")
    assert served.model.calls == []


async def test_a_recording_costs_nothing_and_says_what_it_is(keys: Keys, redis: Redis, tmp_path: Path) -> None:
    model, cassette = ScriptedModel(["A long ", "answer."], usage=Usage(3, 2)), Cassette(tmp_path, TextRecording)
    async with replica(keys, redis, provider=ReplayingProvider(model, cassette, ReplayMode.RECORD)) as served:
        first = await generated(served, keys, request())
        assert first[-1].finished.source == generation_pb2.ANSWER_SOURCE_MODEL
        assert served.cost.settled == [("gen_1", Usage(3, 2))]
    async with replica(keys, redis, provider=ReplayingProvider(model, cassette, ReplayMode.STRICT)) as served:
        again = await generated(served, keys, request(generation_id="gen_2"))
        missed = await generated(served, keys, request("Who?", generation_id="gen_3"))
        assert served.cost.settled == [("gen_2", Usage(0, 0)), ("gen_3", Usage(0, 0))]
    assert text_of(again) == text_of(first) == "A long answer."
    assert again[-1].finished.source == generation_pb2.ANSWER_SOURCE_RECORDING
    assert again[-1].finished.usage == first[-1].finished.usage
    assert again[-1].finished.cost.micros_usd == 0
    assert missed[-1].failed.failure.reason == Reason.ERROR_REASON_REPLAY_MISSED
    assert len(model.calls) == 1


async def test_the_same_requests_of_one_moment_are_one_call(served: Replica, keys: Keys) -> None:
    served.model.steps = [all_came := asyncio.Event(), "Hello", " there"]
    same = [asked(generation_id=f"gen_{number}") for number in range(6)]
    answering = asyncio.gather(*(generated(served, keys, one) for one in same))
    await until(lambda: len(served.engine._running) == 6)
    all_came.set()
    answers = await answering
    assert {text_of(events) for events in answers} == {"Hello there"}
    assert len(served.model.calls) == len(served.cost.settled) == 1
