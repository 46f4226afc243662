"""What a generation asks of cost and policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, Protocol

from services.inference.providers.contract import Usage
from shared.identity import Principal
from shared.monitors.pipeline import Outcome
from shared.monitors.rules import Bundle, Target, Verdict


@dataclass(frozen=True, slots=True)
class Payer:
    """Whose money, and what for."""

    principal: Principal
    generation_id: str
    provider: str
    model: str
    session_id: str
    agent: str
    turn_id: str = ""
    attempt: int = 0
    team: str = ""
    sub_agent: str = ""
    tier: str = ""
    """Which price of the model's holds, where it has several; empty: the standard one."""


@dataclass(frozen=True, slots=True)
class Metered:
    """What is billed beside text tokens; audio in the unit its model is billed by."""

    images: int = 0
    audio_input: int = 0
    audio_output: int = 0
    embedding_tokens: int = 0


class Ending(StrEnum):
    """How an attempt ended, as the ledger has it."""

    COMPLETED = "completed"
    CANCELLED = "cancelled"
    FAILED_OVER = "failed_over"
    CUT = "cut"
    STOPPED = "stopped"


NOTHING_ELSE: Final = Metered()
_MILLION: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Settlement:
    """What one attempt spent, and how it ended. Without `ended_at` it ends when cost hears of it."""

    payer: Payer
    usage: Usage
    outcome: Ending = Ending.COMPLETED
    ended_at: datetime | None = None
    metered: Metered = NOTHING_ELSE


@dataclass(frozen=True, slots=True)
class Measure:
    """What a rule of policy ordered: against an agent, a session or the tenant, until when."""

    rule: str
    action: str
    target_kind: str
    target: str
    until: datetime
    risk: str = ""

    def concerns(self, payer: Payer) -> bool:
        """Agents are named without their version."""
        named = {
            "agent": payer.agent.partition("@")[0],
            "session": payer.session_id,
            "tenant": payer.principal.tenant_id,
        }
        return bool(self.target) and named.get(self.target_kind) == self.target.partition("@")[0]


@dataclass(frozen=True, slots=True)
class Notice:
    """What cost asks beside giving a lease: a cheaper model for this call, or nothing but attention."""

    explanation: str
    cheaper: bool = False


@dataclass(frozen=True, slots=True)
class Cost:
    """What a generation cost, in integer micro-USD."""

    micros_usd: int
    price_version: str


@dataclass(frozen=True, slots=True)
class Leased:
    """What cost answers beside the money: what it asks, and the prices it reckoned with, in micro-USD a million; an
    image's is that of one.
    """

    notices: Sequence[Notice] = ()
    input_price: int = 0
    output_price: int = 0
    audio_input_price: int = 0
    audio_output_price: int = 0
    embedding_price: int = 0
    image_price: int = 0

    def micros_usd(self, usage: Usage, metered: Metered = NOTHING_ELSE) -> int:
        """What so much costs, rounded up."""
        heard = sounds(usage)
        millionths = (
            (usage.input_tokens - heard) * self.input_price
            + usage.output_tokens * self.output_price
            + (metered.audio_input + heard) * self.audio_input_price
            + metered.audio_output * self.audio_output_price
            + metered.embedding_tokens * self.embedding_price
        )
        return metered.images * self.image_price - (-millionths // _MILLION)


def sounds(usage: Usage) -> int:
    """Of its input the tokens that are billed as audio."""
    return min(usage.audio_input_tokens, usage.input_tokens - usage.cached_input_tokens)


class CostPeer(Protocol):
    """cost, on behalf of the payer."""

    async def reserve(
        self, payer: Payer, *, input_tokens: int, output_tokens: int, metered: Metered = NOTHING_ELSE
    ) -> Leased:
        """What it answers beside the money. Raises the service's MeshError, BUDGET_EXHAUSTED among them."""

    async def extend(self, payer: Payer, *, output_tokens: int, spent: Usage) -> None:
        """More output tokens, in all; `spent` is what was so far. Raises as `reserve` does."""

    async def settle(self, settlement: Settlement) -> Cost:
        """Raises the service's MeshError."""


class PolicyPeer(Protocol):
    """policy."""

    async def bundle(self, payer: Payer, name: str) -> Bundle:
        """The bundle of this name, as `default` or `default@1.0.0`. Raises BUNDLE_NOT_FOUND."""

    async def excused(self, payer: Payer, text: str, token: str) -> frozenset[str]:
        """The rules an override lets pass for this call, whose prompt is the text. Raises OVERRIDE_INVALID and
        OVERRIDE_EXPIRED. Counts and audits the use.
        """

    async def pseudonymized(self, payer: Payer, text: str, kinds: Sequence[str]) -> str:
        """The text with pseudonyms in the place of personal data of these kinds, which policy keeps."""

    async def check(
        self, payer: Payer, text: str, target: Target, bundles: Sequence[Bundle], *, override: str = ""
    ) -> Outcome:
        """What rules of these bundles say of a text that are too slow for each of its characters; `override` is the
        token that excuses some.
        """

    async def measures(self, payer: Payer) -> Sequence[Measure]:
        """What enforcement rules ordered in the payer's tenant and still holds."""

    async def record(self, payer: Payer, verdicts: Sequence[tuple[str, Verdict]], *, at: datetime) -> None:
        """Reports violations, each under an id of its own."""
