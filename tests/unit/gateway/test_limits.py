"""Limits as they come: what an ordinary caller never meets, and what stops one that runs away."""

from __future__ import annotations

from datetime import timedelta

import pytest

from services.gateway.buckets_local import LocalBuckets
from services.gateway.errors import RateLimited
from services.gateway.limits import Limits, headers
from shared.clock import FakeClock
from shared.identity import CredentialKind, Principal

CALLER = Principal("acme", "ada", frozenset({"admin"}))
START = "/agentnet.orchestrator.v1.SessionService/StartSession"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def limits(clock: FakeClock) -> Limits:
    return Limits(LocalBuckets(clock), {})


async def admitted(limits: Limits, count: int, path: str = START, caller: Principal = CALLER) -> int:
    done = 0
    for _ in range(count):
        try:
            await limits.admit(caller, path)
        except RateLimited:
            break
        done += 1
    return done


async def test_the_defaults_let_steady_work_through_and_stop_a_loop(limits: Limits, clock: FakeClock) -> None:
    for _ in range(60):
        assert await admitted(limits, 400) == 400
        clock.advance(timedelta(seconds=1))
    assert await admitted(limits, 100_000) == 2_000


async def test_a_tenants_callers_share_its_limit(limits: Limits) -> None:
    for subject in ("a", "b"):
        methods = [f"/s.S/M{number}" for number in range(4)]
        for method in methods:
            assert await admitted(limits, 500, method, Principal("acme", subject, frozenset())) == 500
    with pytest.raises(RateLimited) as refused:
        await limits.admit(Principal("acme", "c", frozenset()), "/s.S/M9")
    assert refused.value.facts == {"rule": "tenant"}
    assert await admitted(limits, 10, caller=Principal("other", "c", frozenset())) == 10


async def test_making_keys_is_rarer_than_calling(limits: Limits) -> None:
    key = Principal("acme", "key_1", frozenset(), CredentialKind.API_KEY)
    assert await admitted(limits, 100, "/agentnet.gateway.v1.KeyService/CreateKey", key) == 30


async def test_tokens_that_were_spent_are_waited_for(limits: Limits, clock: FakeClock) -> None:
    await limits.use_model("acme", "m")
    await limits.spent("acme", 1_200_000)
    with pytest.raises(RateLimited) as refused:
        await limits.use_model("acme", "m")
    assert refused.value.facts == {"rule": "tokens"}
    clock.advance(refused.value.retry_after or timedelta())
    await limits.use_model("acme", "m")


async def test_the_headers_tell_the_tightest_limit(limits: Limits) -> None:
    told = headers(await limits.admit(CALLER, START))
    assert told["ratelimit-policy"] == '"user";q=2000;w=4'
    assert told["ratelimit"] == '"user";r=1999;t=1'
