"""The price book: what a million tokens of each model cost, in integer micro-USD, versioned by its own hash."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from services.cost.errors import PriceNotFound

_MILLION: Final = 1_000_000
_ANY: Final = "*"


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one generation. Cached ones are among the input."""

    input_tokens: int
    output_tokens: int
    cached_input_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class Price:
    """Micro-USD for a million tokens."""

    input: int
    cached_input: int
    output: int

    def of(self, usage: Usage) -> int:
        """Micro-USD for this usage, rounded up once for the whole."""
        fresh = usage.input_tokens - usage.cached_input_tokens
        millionths = (
            fresh * self.input + usage.cached_input_tokens * self.cached_input + usage.output_tokens * self.output
        )
        return -(-millionths // _MILLION)


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    provider: str
    model: str
    input: int = Field(ge=0)
    cached_input: int = Field(ge=0)
    output: int = Field(ge=0)


class _Book(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    currency: str
    prices: list[_Entry]


class PriceBook:
    """Prices by provider and model; the model `*` stands for all of a provider's."""

    def __init__(self, document: str) -> None:
        book = _Book.model_validate_json(document)
        self._prices = {
            (entry.provider, entry.model): Price(entry.input, entry.cached_input, entry.output) for entry in book.prices
        }
        canonical = json.dumps(book.model_dump(), sort_keys=True, separators=(",", ":"))
        self.version = hashlib.sha256(canonical.encode()).hexdigest()

    @classmethod
    def from_file(cls, path: Path) -> PriceBook:
        return cls(path.read_text())

    def price(self, provider: str, model: str) -> Price:
        """Raises PriceNotFound: what has no price is not called."""
        found = self._prices.get((provider, model)) or self._prices.get((provider, _ANY))
        if found is None:
            raise PriceNotFound(
                f"no price for {provider}/{model}; add it to the price book", provider=provider, model=model
            )
        return found
