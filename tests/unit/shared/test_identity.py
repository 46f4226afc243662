"""A header that vouches for a caller: the same one for a moment, so that many calls pay for one signature."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from shared.clock import FakeClock
from shared.identity import Principal, Signer, Verifier
from tests.support.identity import make_keys

ADA = Principal("acme", "ada", frozenset({"admin"}))
TTL = timedelta(minutes=5)


def test_calls_of_one_moment_carry_one_header_and_later_ones_a_fresh_one(tmp_path: Path) -> None:
    keys, clock = make_keys(tmp_path), FakeClock()
    signer, verifier = Signer.from_file("gateway", keys.private_key, clock), Verifier.from_file(keys.jwks, clock)

    first = signer.sign(ADA, TTL)
    clock.advance(timedelta(seconds=9))
    again = signer.sign(ADA, TTL)
    clock.advance(timedelta(seconds=1))
    later = signer.sign(ADA, TTL)

    assert again == first
    assert later != first
    assert {verifier.verify(one).subject for one in (first, later)} == {"ada"}


def test_another_caller_and_another_lifetime_have_headers_of_their_own(tmp_path: Path) -> None:
    keys, clock = make_keys(tmp_path), FakeClock()
    signer = Signer.from_file("gateway", keys.private_key, clock)
    callers = (ADA, replace(ADA, subject="bob"), replace(ADA, expires_at=clock.now() + timedelta(minutes=1)))

    assert len({signer.sign(one, ttl) for one in callers for ttl in (TTL, timedelta(minutes=4))}) == 5
