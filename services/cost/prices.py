"""Prices: what a call costs in integer micro-USD, and which price holds for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from services.cost.errors import PriceNotFound

MILLION: Final = 1_000_000
STANDARD: Final = "standard"
ANY: Final = "*"


@dataclass(frozen=True, slots=True)
class Usage:
    """What one generation used. Cached and cache-written tokens are among the input, reasoning among the output;
    images, audio and embedded tokens are counted apart.
    """

    input_tokens: int
    output_tokens: int
    cached_input_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False
    cache_write_tokens: int = 0
    images: int = 0
    audio_input_tokens: int = 0
    audio_output_tokens: int = 0
    embedding_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Rates:
    """Micro-USD for a million tokens of each kind, and for one image."""

    input: int
    output: int
    cached_input: int
    cache_write: int
    reasoning: int
    audio_input: int
    audio_output: int
    embedding: int
    image: int

    def millionths(self, usage: Usage) -> int:
        """The exact cost in millionths of a micro-USD."""
        fresh = usage.input_tokens - usage.cached_input_tokens - usage.cache_write_tokens
        said = usage.output_tokens - usage.reasoning_tokens
        return (
            fresh * self.input
            + usage.cached_input_tokens * self.cached_input
            + usage.cache_write_tokens * self.cache_write
            + said * self.output
            + usage.reasoning_tokens * self.reasoning
            + usage.audio_input_tokens * self.audio_input
            + usage.audio_output_tokens * self.audio_output
            + usage.embedding_tokens * self.embedding
            + usage.images * self.image * MILLION
        )


@dataclass(frozen=True, slots=True)
class Price:
    """A model's rates, and those for prompts longer than a number of tokens, longest first."""

    rates: Rates
    above: tuple[tuple[int, Rates], ...] = ()

    def rates_for(self, input_tokens: int) -> Rates:
        """The rates for a prompt of this length; they hold for the whole call."""
        return next((rates for longer, rates in self.above if input_tokens > longer), self.rates)

    def of(self, usage: Usage) -> int:
        """Micro-USD for this usage, rounded up once for the whole."""
        return rounded_up(self.rates_for(usage.input_tokens).millionths(usage))


def rounded_up(millionths: int) -> int:
    """Whole micro-USD that cover this many millionths of one."""
    return -(-millionths // MILLION)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a price is asked for."""

    provider: str
    model: str
    tier: str = ""
    region: str = ""


@dataclass(frozen=True, slots=True)
class Priced:
    """The price that holds, the hash of its book, and whether it is only an estimate."""

    price: Price
    version: str
    estimated: bool = False


class UnknownModel(StrEnum):
    """What a model without a price costs: nothing is called, nothing is paid, or the dearest prices known are."""

    REFUSE = "refuse"
    ZERO = "zero"
    ESTIMATE = "estimate"


@dataclass(frozen=True, slots=True)
class Dated:
    """A price and the instant from which it holds."""

    valid_from: datetime
    price: Price


@dataclass(frozen=True, slots=True)
class PriceBook:
    """Prices by provider, model, tier and region, each with its dates, latest first; immutable, named by its hash."""

    version: str
    document: str
    entries: Mapping[tuple[str, str, str, str], Sequence[Dated]]
    unknown_model: UnknownModel | None = None

    def find(self, wanted: Wanted, *, at: datetime) -> Price | None:
        """The closest price that holds: the model before `*`, the tier before standard, the region before any."""
        for key in _keys(wanted):
            for dated in self.entries.get(key, ()):
                if dated.valid_from <= at:
                    return dated.price
        return None

    def dearest(self, provider: str, *, at: datetime) -> Price | None:
        """For each kind of token, and for images, the most that any model of the provider costs; of anybody for ``."""
        held = [
            rates
            for key, dates in self.entries.items()
            if provider in ("", key[0])
            if (price := next((dated.price for dated in dates if dated.valid_from <= at), None))
            for rates in (price.rates, *(above for _, above in price.above))
        ]
        return Price(Rates(*map(max, zip(*map(astuple, held), strict=True)))) if held else None


@dataclass(frozen=True, slots=True)
class PriceList:
    """What a tenant pays: its own book before the mesh's, price by price."""

    books: tuple[PriceBook, ...]

    def price(self, wanted: Wanted, *, at: datetime) -> Priced:
        """Raises PriceNotFound when no book has the model and the policy is to refuse."""
        for book in self.books:
            if found := book.find(wanted, at=at):
                return Priced(found, book.version)
        match next((book.unknown_model for book in self.books if book.unknown_model), UnknownModel.REFUSE):
            case UnknownModel.ZERO:
                return Priced(FREE, self.books[0].version, estimated=True)
            case UnknownModel.ESTIMATE:
                return self._estimated(wanted, at)
            case UnknownModel.REFUSE:
                raise _unknown(wanted)

    def _estimated(self, wanted: Wanted, at: datetime) -> Priced:
        for provider in (wanted.provider, ""):
            for book in self.books:
                if found := book.dearest(provider, at=at):
                    return Priced(found, book.version, estimated=True)
        raise _unknown(wanted)


FREE: Final = Price(Rates(0, 0, 0, 0, 0, 0, 0, 0, 0))


def _keys(wanted: Wanted) -> Iterator[tuple[str, str, str, str]]:
    tiers = (STANDARD,) if wanted.tier in ("", STANDARD) else (wanted.tier, STANDARD)
    regions = (wanted.region, "") if wanted.region else ("",)
    for model in (wanted.model, ANY):
        for tier in tiers:
            for region in regions:
                yield wanted.provider, model, tier, region


def _unknown(wanted: Wanted) -> PriceNotFound:
    return PriceNotFound(
        f"no price for {wanted.provider}/{wanted.model}; add it to the price book",
        provider=wanted.provider,
        model=wanted.model,
    )
