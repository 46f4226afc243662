"""Price documents: JSON text into a price book, with the path of what is wrong."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from services.cost.errors import PriceBookInvalid
from services.cost.prices import STANDARD, Dated, Price, PriceBook, Rates, UnknownModel

_DEAREST: Final = 10**9  # a thousand dollars for a million tokens; sums of the largest calls still fit 64 bits
_MOST_PRICES: Final = 10_000
_ALWAYS: Final = datetime(1970, 1, 1, tzinfo=UTC)


class _Rates(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    input: int | None = Field(default=None, ge=0, le=_DEAREST)
    output: int | None = Field(default=None, ge=0, le=_DEAREST)
    cached_input: int | None = Field(default=None, ge=0, le=_DEAREST)
    cache_write: int | None = Field(default=None, ge=0, le=_DEAREST)
    reasoning: int | None = Field(default=None, ge=0, le=_DEAREST)
    audio_input: int | None = Field(default=None, ge=0, le=_DEAREST)
    audio_output: int | None = Field(default=None, ge=0, le=_DEAREST)
    embedding: int | None = Field(default=None, ge=0, le=_DEAREST)
    image: int | None = Field(default=None, ge=0, le=_DEAREST)

    def given(self) -> dict[str, int]:
        return {name: value for name in _KINDS if (value := getattr(self, name)) is not None}


_KINDS: Final = tuple(_Rates.model_fields)


class _Step(_Rates):
    input_tokens: int = Field(ge=1)


class _Entry(_Rates):
    provider: str = Field(min_length=1, max_length=64)
    model: str = Field(min_length=1, max_length=128)
    tier: str = Field(default=STANDARD, pattern=r"^[a-z0-9_-]{1,32}$")
    region: str = Field(default="", max_length=64)
    valid_from: AwareDatetime | None = Field(default=None, strict=False)
    above: list[_Step] = Field(default=[], max_length=10)

    @model_validator(mode="after")
    def _priced(self) -> _Entry:
        if not self.given():
            raise ValueError(f"an entry needs at least one of {', '.join(_KINDS)}")
        if len({step.input_tokens for step in self.above}) != len(self.above):
            raise ValueError("two steps begin at the same input_tokens")
        return self


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    currency: Literal["micro-USD per million tokens"]
    unknown_model: UnknownModel | None = Field(default=None, strict=False)
    prices: list[_Entry] = Field(max_length=_MOST_PRICES)

    @model_validator(mode="after")
    def _once(self) -> _Document:
        seen: set[tuple[object, ...]] = set()
        for entry in self.prices:
            key = (entry.provider, entry.model, entry.tier, entry.region, entry.valid_from or _ALWAYS)
            if key in seen:
                raise ValueError(f"{entry.provider}/{entry.model} has two prices from the same instant on")
            seen.add(key)
        return self


def parse(text: str) -> PriceBook:
    """The document's price book. Raises PriceBookInvalid with the path of the first fault."""
    try:
        document = _Document.model_validate_json(text)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        path = ".".join(str(part) for part in problem["loc"])
        message = f"{path or 'the document'}: {problem['msg'].removeprefix('Value error, ')}"
        raise PriceBookInvalid(message, field="document", path=path) from None
    canonical = json.dumps(
        document.model_dump(mode="json", exclude_defaults=True), sort_keys=True, separators=(",", ":")
    )
    return PriceBook(
        version=hashlib.sha256(canonical.encode()).hexdigest(),
        document=canonical,
        entries=_entries(document),
        unknown_model=document.unknown_model,
    )


def read(path: Path) -> PriceBook:
    """The price book of a file."""
    return parse(path.read_text())


def _entries(document: _Document) -> dict[tuple[str, str, str, str], tuple[Dated, ...]]:
    dated: defaultdict[tuple[str, str, str, str], list[Dated]] = defaultdict(list)
    for entry in document.prices:
        key = (entry.provider, entry.model, entry.tier, entry.region)
        dated[key].append(Dated(entry.valid_from or _ALWAYS, _price(entry)))
    return {key: tuple(sorted(found, key=lambda one: one.valid_from, reverse=True)) for key, found in dated.items()}


def _price(entry: _Entry) -> Price:
    base = entry.given()
    steps = sorted(entry.above, key=lambda step: step.input_tokens, reverse=True)
    return Price(_rates(base), tuple((step.input_tokens, _rates(base | step.given())) for step in steps))


def _rates(given: dict[str, Any]) -> Rates:
    """What is not given costs what it is a kind of."""
    reads, writes = given.get("input", 0), given.get("output", 0)
    return Rates(
        input=reads,
        output=writes,
        cached_input=given.get("cached_input", reads),
        cache_write=given.get("cache_write", reads),
        reasoning=given.get("reasoning", writes),
        audio_input=given.get("audio_input", reads),
        audio_output=given.get("audio_output", writes),
        embedding=given.get("embedding", reads),
        image=given.get("image", 0),
    )
