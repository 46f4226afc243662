"""Every adapter with its provider's wire format, cut after every chunk: a whole answer or one typed failure, paid once."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import aiohttp
import pytest
import yaml
from redis.asyncio import Redis

from agentnet.inference.v1.inference_service_pb2 import GenerateRequest
from services.inference import wiring
from services.inference.breakers import BreakerLimits, LocalBreakers
from services.inference.providers.http import Endpoint, HttpProvider
from services.inference.settings import InferenceSettings
from services.inference.tokenizers import Estimator, Tokenizers, known_tokenizers
from shared.clock import SystemClock
from shared.errors import Reason
from tests.service.inference.calls import generated, until
from tests.support.identity import Keys
from tests.support.inference import Replica, kinds, replica, request, text_of
from tests.support.openai_server import Act, Answer, openai_server
from tests.support.wire import WIRES, Wire

PACKED = ["Each of these pieces is a handful of tokens, ", "not one, as some providers send them ", "for speed."]
WORDS = ["One ", "two ", "thrée ", "four."]
POSTS = 6  # three tries, and each posts again when a pooled connection turns out to be closed


async def heard(served: Replica, keys: Keys, asked: GenerateRequest, *, leaving: str) -> None:
    """To the end; with `leaving` to the end of that text."""
    call, text = served.stub.Generate(asked, metadata=keys.metadata()), ""
    async for answer in call:
        text += answer.event.text.text
        if leaving and text == leaving:
            break
    call.cancel()


@pytest.mark.parametrize("wire", WIRES.values(), ids=WIRES.keys())
async def test_what_a_provider_counts_is_what_is_told_and_settled(wire: Wire, keys: Keys, redis: Redis) -> None:
    async with openai_server(wire.path.replace("/m/", "/scripted/")) as server, aiohttp.ClientSession() as session:
        adapter = HttpProvider(Endpoint("scripted", server.root), wire.dialect, session)
        async with replica(keys, redis, provider=adapter) as served:
            server.answers = [Answer(wire.text(WORDS))]
            told = (await generated(served, keys, request()))[-1].finished
            ((_, settled),) = served.cost.settled
    counts = (told.usage.input_tokens, told.usage.output_tokens, told.usage.cached_input_tokens)
    assert counts == (settled.input_tokens, settled.output_tokens, settled.cached_input_tokens)
    assert told.cost.micros_usd == 2 * settled.output_tokens
    assert settled == replace(wire.usage, input_tokens=wire.usage.input_tokens or settled.input_tokens)
    assert settled.input_tokens


@pytest.mark.parametrize("wire", WIRES.values(), ids=WIRES.keys())
async def test_cut_after_every_chunk_a_caller_has_all_or_one_failure_and_each_attempt_is_settled_once(
    wire: Wire, keys: Keys, redis: Redis
) -> None:
    events, ends = wire.text(WORDS), Counter[str]()
    patient = LocalBreakers(SystemClock(), BreakerLimits(failures=1000))
    async with openai_server(wire.path.replace("/m/", "/scripted/")) as server, aiohttp.ClientSession() as session:
        adapter = HttpProvider(Endpoint("scripted", server.root), wire.dialect, session)
        async with replica(keys, redis, provider=adapter, breakers=patient) as served:
            for cut in range(len(events) + 1):
                steps = [step for event in events[:cut] for step in (event, timedelta(milliseconds=1))]
                server.answers = [Answer([*steps, Act.CUT]) for _ in range(POSTS)]
                told = await generated(served, keys, request(generation_id=f"gen_{cut}", no_fallback=True))
                text = "".join(event.text.text for event in told)
                end = kinds(told)[-1]
                ends[end] += 1
                assert [kind for kind in kinds(told) if kind in {"finished", "failed"}] == [end]
                assert text == "".join(WORDS) if end == "finished" else "".join(WORDS).startswith(text)
                if end == "failed":
                    broken = Reason.ERROR_REASON_STREAM_BROKEN if cut else Reason.ERROR_REASON_PROVIDER_UNAVAILABLE
                    assert told[-1].failed.failure.reason == broken
            assert ends["finished"] >= 1
            assert ends["failed"] >= len(WORDS)
            settled = Counter(generation_id for generation_id, _ in served.cost.settled)
            assert settled == Counter(served.cost.reserved)
            assert set(settled.values()) == {1}


@pytest.mark.parametrize("own", [True, False], ids=["own tokenizer", "estimate"])
@pytest.mark.parametrize("wire", WIRES.values(), ids=WIRES.keys())
async def test_packed_pieces_that_are_cut_are_settled_as_the_tokens_they_were(
    wire: Wire, own: bool, keys: Keys, redis: Redis
) -> None:
    exact = known_tokenizers({}).of("gpt-4o")
    tokenizers, events = Tokenizers({"scripted": lambda: exact} if own else {}), wire.text(PACKED)
    said = 1 + next(place for place, event in enumerate(events) if PACKED[1].encode() in event)
    async with openai_server(wire.path.replace("/m/", "/scripted/")) as server, aiohttp.ClientSession() as session:
        adapter = HttpProvider(Endpoint("scripted", server.root), wire.dialect, session)
        async with replica(keys, redis, provider=adapter, tokenizers=tokenizers) as served:
            for place, end in enumerate((Act.CUT, Act.HANG)):
                steps = [step for event in events[:said] for step in (event, timedelta(milliseconds=1))]
                server.answers = [Answer([*steps, end])]
                asked = request(generation_id=f"gen_{place}", no_fallback=True)
                await heard(served, keys, asked, leaving="" if end is Act.CUT else "".join(PACKED[:2]))
                await until(lambda settled=place + 1: len(served.cost.settled) == settled)
    text = "".join(PACKED[:2])
    tokens = exact.tokenizer.count(text) if own else Estimator().count(text)
    assert [name for name, _ in served.cost.settled] == served.cost.reserved == ["gen_0", "gen_1"]
    assert [(usage.output_tokens, usage.estimated) for _, usage in served.cost.settled] == [(tokens, True)] * 2
    if wire.dialect == WIRES["anthropic"].dialect:
        assert {usage.input_tokens for _, usage in served.cost.settled} == {wire.usage.input_tokens}


async def test_the_chain_of_the_seeds_goes_from_provider_to_stub_and_pays_what_was_said(
    keys: Keys, redis: Redis, tmp_path: Path
) -> None:
    wire = WIRES["openai"]
    async with openai_server(wire.path) as cloud, openai_server(wire.path) as here:
        cloud.answers = [Answer(status=500)] * 3 + [Answer(status=429, headers={"retry-after": "60"})]
        here.answers = [Answer([*wire.text(WORDS)[:3], timedelta(milliseconds=1), Act.CUT])]
        chain = ["gpt-4o-mini", "local", "synthetic"]
        catalog = {
            "providers": {
                "openai": {"kind": "openai", "base_url": cloud.root},
                "vllm": {"kind": "openai_compatible", "base_url": here.root},
            },
            "models": {
                "gpt-4o": {"provider": "openai", "fallback": chain},
                "gpt-4o-mini": {"provider": "openai"},
                "local": {"provider": "vllm"},
            },
        }
        path = tmp_path / "catalog.yaml"
        path.write_text(yaml.safe_dump(catalog))
        given = {"listen": "127.0.0.1:0", "postgres_dsn": "postgres://nowhere", "identity_keys": "none"}
        settings = InferenceSettings.model_validate(
            {**given, "catalog": path, "openai_api_key": "", "embedded_url": ""}
        )
        async with aiohttp.ClientSession() as session, replica(keys, redis) as served:
            served.engine.admission.router = await wiring.router(settings, session)
            events = await generated(served, keys, request("say: Well.", model="gpt-4o"))
    moves = [event.failover for event in events if event.HasField("failover")]
    assert [(move.from_model, move.to_model) for move in moves] == list(pairwise(["gpt-4o", *chain]))
    assert [move.restarted for move in moves] == [True] * 3
    assert (kinds(events)[-1], text_of(events)) == ("finished", "One two Well.")
    assert events[-1].finished.cost.model == "synthetic"
    paid = {name: usage.output_tokens for name, usage in served.cost.settled}
    assert paid == {"gen_1": 0, "gen_1-try4": 0, "gen_1-try5": 2, "gen_1-try6": 1}
