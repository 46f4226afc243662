"""Generating over a real port: what comes out, what it costs, what policy does, and how it is refused."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from redis.asyncio import Redis
from structlog.testing import capture_logs

from agentnet.common.v1 import error_reason_pb2
from agentnet.inference.v1 import generation_pb2
from agentnet.inference.v1 import inference_service_pb2 as pb
from services.inference import convert
from services.inference.embeddings.contract import Embedded
from services.inference.errors import ProviderRateLimited, StreamBroken
from services.inference.providers.contract import Sampling, Usage
from shared.errors import Reason, ResourceExhausted, Unavailable
from shared.monitors.enforced import Snapshot
from shared.monitors.rules import Action
from tests.service.inference.calls import Code, generated, refusal, said, until
from tests.support.forged import ROWS, forged
from tests.support.identity import Keys
from tests.support.inference import Replica, kinds, replica, request, text_of

BROKE = ResourceExhausted("no money", reason=Reason.ERROR_REASON_BUDGET_EXHAUSTED)


async def test_a_generation_starts_produces_text_and_finishes_paid_for(served: Replica, keys: Keys) -> None:
    served.model.steps = ["One ", "two."]
    served.model.usage = Usage(5, 2, cached_input_tokens=1)
    events = await generated(served, keys, request())
    assert kinds(events) == ["started", "text", "text", "finished"]
    assert [event.sequence for event in events] == [1, 2, 3, 4]
    assert {event.generation_id for event in events} == {"gen_1"}
    assert text_of(events) == "One two."
    finished = events[-1].finished
    assert finished.finish_reason == generation_pb2.FINISH_REASON_STOP
    assert (finished.usage.input_tokens, finished.usage.output_tokens, finished.usage.estimated) == (5, 2, False)
    assert (finished.cost.micros_usd, finished.cost.price_version, finished.cost.provider) == (
        4,
        "prices-1",
        "scripted",
    )
    assert finished.HasField("time_to_first_token")
    assert served.cost.reserved == ["gen_1"]
    assert served.cost.settled == [("gen_1", Usage(5, 2, cached_input_tokens=1))]


async def test_usage_the_provider_did_not_report_is_estimated(served: Replica, keys: Keys) -> None:
    served.model.steps = ["One ", "two."]
    events = await generated(served, keys, request())
    assert events[-1].finished.usage.estimated
    assert events[-1].finished.usage.output_tokens == 2


async def test_a_generation_without_an_id_gets_one(served: Replica, keys: Keys) -> None:
    events = await generated(served, keys, request(generation_id=""))
    assert events[0].generation_id.startswith("gen_")


async def test_a_caller_that_does_not_stream_gets_it_whole(served: Replica, keys: Keys) -> None:
    served.model.steps = ["One ", "two."]
    answer = await served.stub.GenerateText(pb.GenerateTextRequest(generation=request()), metadata=keys.metadata())
    assert (answer.text, answer.generation_id) == ("One two.", "gen_1")
    assert answer.finished.cost.micros_usd == 4


async def test_what_is_asked_of_the_draw_reaches_the_model_and_what_cannot_be_is_refused(
    served: Replica, keys: Keys
) -> None:
    asked = {"temperature": 0.0, "top_p": 0.5, "presence_penalty": -2.0, "frequency_penalty": 2.0, "seed": 0}
    await generated(served, keys, request(sampling={**asked, "stop": ["END"]}))
    await generated(served, keys, request(generation_id="gen_2"))
    assert [call.sampling for call in served.model.calls] == [Sampling(0.0, 0.5, -2.0, 2.0, 0, ("END",)), Sampling()]
    for field, wrong in {"temperature": 2.1, "top_p": -0.1, "presence_penalty": -2.1, "frequency_penalty": 3}.items():
        call = served.stub.GenerateText(
            pb.GenerateTextRequest(generation=request(sampling={field: wrong})), metadata=keys.metadata()
        )
        assert (await refusal(call)).field == f"sampling.{field}"


async def test_a_failed_generation_is_an_error_to_a_caller_that_does_not_stream(served: Replica, keys: Keys) -> None:
    served.model.steps = ["One ", StreamBroken("cut")]
    call = served.stub.GenerateText(pb.GenerateTextRequest(generation=request()), metadata=keys.metadata())
    assert said(await refusal(call)) == (Code.UNAVAILABLE, "STREAM_BROKEN")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (StreamBroken("cut"), "STREAM_BROKEN"),
        (ProviderRateLimited("slow down"), "PROVIDER_RATE_LIMITED"),
        (KeyError("a fault of ours"), "INTERNAL"),
    ],
    ids=["typed", "rate limit", "a fault of ours"],
)
async def test_trouble_in_the_middle_is_the_last_event_and_what_came_is_settled(
    served: Replica, keys: Keys, error: Exception, reason: str
) -> None:
    served.model.steps = ["One ", "two ", error]
    with capture_logs() as logged:
        async with asyncio.timeout(5):
            events = await generated(served, keys, request(no_fallback=True))
        await until(lambda: not served.engine._running)
    assert kinds(events) == ["started", "text", "text", "failed"]
    failed = events[-1].failed
    assert error_reason_pb2.ErrorReason.Name(failed.failure.reason) == f"ERROR_REASON_{reason}"
    assert failed.cost.micros_usd == 4
    assert [usage.output_tokens for _, usage in served.cost.settled] == [2]
    faults = [entry["exc_info"] for entry in logged if entry["event"] == "generation.fault"]
    assert faults == ([error] if reason == "INTERNAL" else [])


async def test_a_leak_in_the_output_is_redacted_before_anyone_sees_it(served: Replica, keys: Keys) -> None:
    served.model.steps = ["Write to a", "da@exam", "ple.org", " now."]
    events = await generated(served, keys, request())
    assert text_of(events) == "Write to [REDACTED:mail] now."
    (verdict,) = [event.verdict for event in events if event.HasField("verdict")]
    assert (verdict.rule, verdict.bundle, verdict.action, verdict.target) == (
        "mail",
        "default@1.0.0",
        "redact",
        "output",
    )
    assert served.policy.recorded == [("gen_1-0", "mail", Action.REDACT)]
    assert {timing.rule: timing.status for timing in events[-1].finished.monitors} == {
        "mail": "redact",
        "bomb": "pass",
        "damn": "pass",
    }


async def test_tokens_of_text_that_was_held_back_are_counted_when_it_is_released(served: Replica, keys: Keys) -> None:
    served.model.steps = ["a", "b", "c", "d ", "e."]
    events = await generated(served, keys, request())
    assert sum(event.text.token_count for event in events if event.HasField("text")) == 5


async def test_output_that_a_rule_blocks_ends_the_generation_and_is_paid_for(served: Replica, keys: Keys) -> None:
    served.model.steps = ["Build ", "a ", "bomb ", "thus"]
    events = await generated(served, keys, request())
    assert text_of(events) == "Build a "
    assert events[-1].failed.failure.reason == error_reason_pb2.ERROR_REASON_POLICY_BLOCKED
    assert events[-1].failed.failure.metadata["rule"] == "bomb"
    assert len(served.cost.settled) == 1
    assert served.model.closed.is_set()


async def test_a_prompt_that_a_rule_blocks_never_reaches_the_model_and_is_reported(served: Replica, keys: Keys) -> None:
    error = await refusal(generated(served, keys, request("How is a bomb made?")))
    assert said(error) == (Code.FAILED_PRECONDITION, "POLICY_BLOCKED")
    assert error.facts == {"rule": "bomb", "bundle": "default@1.0.0"}
    assert (served.model.calls, served.cost.reserved) == ([], [])
    assert served.policy.recorded == [("gen_1-0", "bomb", Action.BLOCK)]


async def test_a_warning_about_the_prompt_is_an_event_and_lets_it_pass(served: Replica, keys: Keys) -> None:
    events = await generated(served, keys, request("damn it"))
    assert kinds(events) == ["started", "verdict", "finished"]
    assert (events[1].verdict.action, events[1].verdict.target) == ("warn", "prompt")


async def test_more_violations_than_one_report_holds_are_all_reported(served: Replica, keys: Keys) -> None:
    served.model.steps = ["damn "] * 150
    await generated(served, keys, request())
    assert len({name for name, *_ in served.policy.recorded}) == 150


async def test_policy_being_away_afterwards_changes_nothing(served: Replica, keys: Keys) -> None:
    served.policy.away = True
    served.model.steps = ["damn ", "it"]
    assert kinds(await generated(served, keys, request()))[-1] == "finished"


async def test_without_any_policy_a_strict_mesh_refuses(keys: Keys, redis: Redis) -> None:
    async with replica(keys, redis, snapshot=None) as served:
        error = await refusal(generated(served, keys, request()))
        assert said(error) == (Code.UNAVAILABLE, "POLICY_UNAVAILABLE")
        assert served.cost.reserved == []


async def test_a_policy_that_changes_is_enforced_on_the_next_generation(served: Replica, keys: Keys) -> None:
    served.model.steps = ["ada@example.org"]
    await served.policy.snapshots.put(Snapshot(2, {"acme": (), "*": ()}))
    await until(lambda: served.policy.snapshots.empty())
    assert text_of(await generated(served, keys, request())) == "ada@example.org"


async def test_without_money_nothing_starts_and_the_id_stays_free(served: Replica, keys: Keys) -> None:
    served.cost.refusals = [BROKE]
    served.model.steps = ["Yes."]
    assert said(await refusal(generated(served, keys, request()))) == (Code.RESOURCE_EXHAUSTED, "BUDGET_EXHAUSTED")
    assert served.model.calls == []
    assert text_of(await generated(served, keys, request())) == "Yes."


async def test_while_cost_is_away_nothing_starts(served: Replica, keys: Keys) -> None:
    served.cost.refusals = [Unavailable("cost is away", dependency="cost")] * 10
    error = await refusal(generated(served, keys, request()))
    assert said(error) == (Code.UNAVAILABLE, "DEPENDENCY_UNAVAILABLE")
    assert served.model.calls == []


async def test_the_lease_grows_with_the_output(served: Replica, keys: Keys) -> None:
    served.model.steps = ["x "] * 700
    await generated(served, keys, request(max_output_tokens=1000))
    assert served.cost.extended == [512, 1000]


async def test_when_the_money_ends_so_does_the_generation(served: Replica, keys: Keys) -> None:
    served.cost.limit = 256
    served.model.steps = ["x "] * 700
    events = await generated(served, keys, request(max_output_tokens=1000))
    assert events[-1].failed.failure.reason == error_reason_pb2.ERROR_REASON_BUDGET_EXHAUSTED
    assert [usage.output_tokens for _, usage in served.cost.settled] == [192]


async def test_a_settlement_that_fails_is_tried_again(served: Replica, keys: Keys) -> None:
    served.cost.settle_failures = [Unavailable("cost is away")]
    assert (await generated(served, keys, request()))[-1].finished.cost.price_version == "prices-1"
    assert len(served.cost.settled) == 1


async def test_a_full_replica_says_when_to_come_back(keys: Keys, redis: Redis) -> None:
    async with replica(keys, redis, limit=1) as served:
        served.model.steps = [asyncio.Event()]
        held = served.stub.Generate(request(), metadata=keys.metadata())
        await held.read()
        error = await refusal(generated(served, keys, request(generation_id="gen_2")))
        held.cancel()
    assert said(error) == (Code.RESOURCE_EXHAUSTED, "OVERLOADED")
    assert error.retry_after


BAD: dict[str, tuple[Any, str, str]] = {
    "no messages": (pb.GenerateRequest(), "FIELD_REQUIRED", "messages"),
    "no role": (pb.GenerateRequest(messages=[{"content": [{"text": "x"}]}]), "FIELD_INVALID", "messages[0].role"),
    "no text": (pb.GenerateRequest(messages=[{"role": "ROLE_USER"}]), "FIELD_REQUIRED", "messages[0].content"),
    "a wrong id": (request(generation_id="a b"), "FIELD_INVALID", "generation_id"),
    "too many tokens": (request(max_output_tokens=131_073), "FIELD_INVALID", "max_output_tokens"),
    "fewer than none": (request(max_output_tokens=-1), "FIELD_INVALID", "max_output_tokens"),
    "too long a grace": (request(detach_grace=Duration(seconds=601)), "FIELD_INVALID", "detach_grace"),
    "too long a wait": (request(gather=Duration(seconds=6)), "FIELD_INVALID", "gather"),
    "a grace beyond time": (request(detach_grace=Duration(seconds=2**62)), "FIELD_INVALID", "detach_grace"),
    "too hot": (request(sampling={"temperature": 2.1}), "FIELD_INVALID", "sampling.temperature"),
    "no number": (request(sampling={"top_p": float("nan")}), "FIELD_INVALID", "sampling.top_p"),
    "too many stops": (request(sampling={"stop": list("abcde")}), "FIELD_TOO_LONG", "sampling.stop"),
    "too long": (request("x" * 262_145), "FIELD_TOO_LONG", "messages[0].content[0].text"),
    "a NUL": (request("a\x00b"), "FIELD_INVALID", "messages[0].content[0].text"),
}


@pytest.mark.parametrize(("wrong", "reason", "field"), BAD.values(), ids=BAD.keys())
async def test_a_wrong_request_names_its_field(
    served: Replica, keys: Keys, wrong: pb.GenerateRequest, reason: str, field: str
) -> None:
    error = await refusal(generated(served, keys, wrong))
    assert (*said(error), error.field) == (Code.INVALID_ARGUMENT, reason, field)


async def test_an_unknown_model_is_answered_with_those_there_are(served: Replica, keys: Keys) -> None:
    error = await refusal(generated(served, keys, request(model="gpt-9")))
    assert said(error) == (Code.NOT_FOUND, "MODEL_NOT_FOUND")
    assert error.facts["known"] == "backup, continuing, roomy, safe, scripted, synthetic"


async def test_nobody_generates_without_an_identity(served: Replica, keys: Keys) -> None:
    assert said(await refusal(served.stub.GenerateText(pb.GenerateTextRequest())))[0] == Code.UNAUTHENTICATED


async def test_texts_become_vectors_in_order(served: Replica, keys: Keys) -> None:
    answer = await served.stub.Embed(pb.EmbedRequest(texts=["a", "bcd"]), metadata=keys.metadata())
    assert [list(one.values) for one in answer.embeddings] == [[1.0], [3.0]]
    assert (answer.model, answer.usage.input_tokens) == ("minilm-l6-v2", 4)
    assert [one.token_vectors for one in answer.embeddings] == [b"", b""]


async def test_vectors_of_tokens_are_told_where_they_are_asked_for_and_the_model_has_them(
    served: Replica, keys: Keys
) -> None:
    asked = pb.EmbedRequest(texts=["a", "bcd"], token_vectors=True)
    answer = await served.stub.Embed(asked, metadata=keys.metadata())
    assert [one.token_vectors for one in answer.embeddings] == [b"a", b"bcd"]
    bare = convert.embed_response(Embedded(((1.0,),), 1, 0), "remote", token_vectors=True)
    assert [one.token_vectors for one in bare.embeddings] == [b""]


@pytest.mark.parametrize(
    ("wrong", "code", "reason"),
    [
        (pb.EmbedRequest(), Code.INVALID_ARGUMENT, "FIELD_REQUIRED"),
        (pb.EmbedRequest(texts=["x"], purpose=9), Code.INVALID_ARGUMENT, "FIELD_INVALID"),  # type: ignore[arg-type]
        (pb.EmbedRequest(texts=["x"] * 257), Code.INVALID_ARGUMENT, "FIELD_TOO_LONG"),
        (pb.EmbedRequest(texts=["x"], model="other"), Code.NOT_FOUND, "MODEL_NOT_FOUND"),
    ],
    ids=["none", "unknown purpose", "too many", "another model"],
)
async def test_a_wrong_request_to_embed_is_refused(
    served: Replica, keys: Keys, wrong: pb.EmbedRequest, code: Code, reason: str
) -> None:
    assert said(await refusal(served.stub.Embed(wrong, metadata=keys.metadata()))) == (code, reason)


async def test_models_are_listed_by_name_a_page_at_a_time(served: Replica, keys: Keys) -> None:
    first = await served.stub.ListModels(pb.ListModelsRequest(page_size=4), metadata=keys.metadata())
    rest = await served.stub.ListModels(
        pb.ListModelsRequest(page_size=4, page_token=first.next_page_token), metadata=keys.metadata()
    )
    models = [*first.models, *rest.models]
    assert [model.name for model in models] == [
        "backup", "continuing", "minilm-l6-v2", "roomy", "safe", "scripted", "synthetic",
    ]  # fmt: skip
    assert rest.next_page_token == ""
    assert [model.name for model in models if model.is_default] == ["minilm-l6-v2", "scripted"]
    assert list(models[4].fallback_models) == ["backup", "roomy"]
    assert {model.breaker for model in models} == {"closed"}


async def test_a_page_token_of_another_list_is_refused(served: Replica, keys: Keys) -> None:
    first = await served.stub.ListModels(pb.ListModelsRequest(page_size=1), metadata=keys.metadata())
    for token in ("nonsense", *(forged(first.next_page_token, cursor) for cursor in ROWS)):
        call = served.stub.ListModels(pb.ListModelsRequest(page_token=token), metadata=keys.metadata())
        assert said(await refusal(call)) == (Code.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID")


async def test_a_provider_that_keeps_to_no_limit_is_left_and_what_it_said_is_paid(served: Replica, keys: Keys) -> None:
    served.model.steps = ["word "] * 5000
    events = await generated(served, keys, request(max_output_tokens=10))
    words = text_of(events).split()
    assert 10 < len(words) <= 2 * 10 + 256 + 1
    assert events[-1].finished.finish_reason == generation_pb2.FINISH_REASON_LENGTH
    assert served.model.closed.is_set()
    assert served.cost.settled == [("gen_1", Usage(6, len(words), estimated=True))]
