"""Who may call how often: one token bucket for each thing that is limited, taken from all at once or from none."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Final, Protocol

from services.gateway.errors import RateLimited
from shared.identity import CredentialKind, Principal

TENANT: Final = "tenant"
USER: Final = "user"
KEY: Final = "key"
MODEL: Final = "model"
TOKENS: Final = "tokens"
STRANGER: Final = "stranger"
METHOD: Final = "method"
_REMEMBERED: Final = 4096


@dataclass(frozen=True, slots=True)
class Rate:
    """So many a second in the long run, and at most `burst` at once."""

    per_second: float
    burst: int


@dataclass(frozen=True, slots=True)
class Bucket:
    """One bucket of one owner, and what this call takes from it. Taking nothing still needs something to be there."""

    rule: str
    key: str
    rate: Rate
    cost: int = 1


@dataclass(frozen=True, slots=True)
class Level:
    """How full a bucket is after a call; what is below zero is owed."""

    bucket: Bucket
    left: int

    @property
    def reset(self) -> timedelta:
        """Until it is full again."""
        return timedelta(seconds=max(0.0, (self.bucket.rate.burst - self.left) / self.bucket.rate.per_second))


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of a take. With a `wait`, nothing was taken and `tightest` is the bucket that had too little."""

    tightest: Level
    wait: timedelta = timedelta()


class Buckets(Protocol):
    """Where levels are kept."""

    async def take(self, buckets: Sequence[Bucket], *, owe: bool = False) -> Taken:
        """Takes from all buckets or from none. With `owe` it takes below zero too: for what was spent already."""


# Against loops that run away and guesses at credentials; a tenant's own record, or a setting, says otherwise.
DEFAULTS: Final[Mapping[str, Rate]] = {
    TENANT: Rate(1_000, 4_000),
    USER: Rate(500, 2_000),
    KEY: Rate(500, 2_000),
    MODEL: Rate(200, 1_000),
    TOKENS: Rate(50_000, 1_000_000),
    STRANGER: Rate(5, 100),
    METHOD: Rate(500, 2_000),
    f"{METHOD}:KeyService/CreateKey": Rate(1, 30),
    f"{METHOD}:KeyService/RotateKey": Rate(1, 30),
    f"{METHOD}:TokenService/ExchangeToken": Rate(20, 100),
    f"{METHOD}:TokenService/DelegateToken": Rate(20, 100),
}


class Limits:
    """Knows which buckets a call takes from."""

    def __init__(self, buckets: Buckets, rates: Mapping[str, Rate]) -> None:
        self._buckets = buckets
        self._rates = {**DEFAULTS, **rates}
        self._of_request = lru_cache(_REMEMBERED)(self._request)

    async def admit(self, principal: Principal, path: str, *, tenant_rate: Rate | None = None) -> Level:
        """Takes one request of this caller's; the tightest bucket is the one to tell about. Raises RateLimited."""
        who = KEY if principal.kind is CredentialKind.API_KEY else USER
        method = path.rpartition(".")[2]
        return await self._take(*self._of_request(principal.tenant_id, who, principal.subject, method, tenant_rate))

    async def use_model(self, tenant: str, model: str) -> Level:
        """Takes one call of a model, while the tenant's tokens are not overdrawn. Raises RateLimited."""
        return await self._take(
            Bucket(MODEL, _key(tenant, MODEL, model), self._rates.get(f"{MODEL}:{model}", self._rates[MODEL])),
            self._tokens(tenant, 0),
        )

    async def spent(self, tenant: str, tokens: int) -> None:
        """Takes the tokens a call turned out to use."""
        await self._buckets.take([self._tokens(tenant, tokens)], owe=True)

    async def stranger(self, address: str) -> None:
        """Takes one failed attempt from this address. Raises RateLimited."""
        await self._take(Bucket(STRANGER, _key(address, STRANGER), self._rates[STRANGER]))

    def _request(
        self, tenant: str, who: str, subject: str, method: str, tenant_rate: Rate | None
    ) -> tuple[Bucket, ...]:
        return (
            Bucket(TENANT, _key(tenant, TENANT), tenant_rate or self._rates[TENANT]),
            Bucket(who, _key(tenant, who, subject), self._rates[who]),
            Bucket(METHOD, _key(tenant, METHOD, method), self._rates.get(f"{METHOD}:{method}", self._rates[METHOD])),
        )

    def _tokens(self, tenant: str, cost: int) -> Bucket:
        return Bucket(TOKENS, _key(tenant, TOKENS), self._rates[TOKENS], cost)

    async def _take(self, *buckets: Bucket) -> Level:
        taken = await self._buckets.take(buckets)
        if taken.wait:
            raise _refusal(taken)
        return taken.tightest


def headers(level: Level) -> Mapping[str, str]:
    """The standard headers (draft-ietf-httpapi-ratelimit-headers), and those clients of today read."""
    rate, left = level.bucket.rate, max(0, level.left)
    reset = math.ceil(level.reset.total_seconds())
    window = max(1, round(rate.burst / rate.per_second))
    return {
        "ratelimit-policy": f'"{level.bucket.rule}";q={rate.burst};w={window}',
        "ratelimit": f'"{level.bucket.rule}";r={left};t={reset}',
        "x-ratelimit-limit-requests": str(rate.burst),
        "x-ratelimit-remaining-requests": str(left),
        "x-ratelimit-reset-requests": f"{reset}s",
    }


def tightest(levels: Sequence[Level]) -> Level:
    """The one with the smallest part left."""
    return min(levels, key=lambda level: level.left / level.bucket.rate.burst)


def _refusal(taken: Taken) -> RateLimited:
    rule, wait = taken.tightest.bucket.rule, taken.wait
    seconds = wait.total_seconds()
    message = f"too many requests for this {rule}; try again in {seconds:.3g} s"
    if rule == TOKENS:
        message = f"too many tokens for this tenant; try again in {seconds:.3g} s"
    error = RateLimited(message, retry_after=wait, rule=rule)
    error.level = taken.tightest
    return error


def _key(owner: str, *parts: str) -> str:
    """The owner is the hash tag: all its buckets are on one node of a cluster."""
    return ":".join((f"limit:{{{owner}}}", *parts))
