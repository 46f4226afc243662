"""Price documents: JSON text into a price book, with the path of what is wrong."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from services.cost.errors import PriceBookInvalid
from services.cost.prices import STANDARD, Dated, Price, PriceBook, Rates, UnknownModel

_DEAREST: Final = 10**9  # a thousand dollars for a million tokens; sums of the largest calls still fit 64 bits
_MOST_PRICES: Final = 10_000
_ALWAYS: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _told(value: object) -> object:
    """A number would be taken for seconds, or for milliseconds if it is large."""
    if isinstance(value, str) and "T" in value:
        return value
    raise ValueError("must be a time in RFC 3339, for example 2026-01-31T12:00:00Z")


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
    valid_from: Annotated[AwareDatetime, BeforeValidator(_told)] | None = Field(default=None, strict=False)
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


def parse(text: str) -> PriceBook:
    """The document's price book. Raises PriceBookInvalid with the path of the first fault."""
    document = _validated(text)
    for path, message in _faults(document, text):
        raise _invalid(path, message)
    return _book(document)


def parse_stored(text: str) -> PriceBook:
    """The book of a document that was checked when it was imported, by the rules of that day."""
    return _book(_validated(text))


def _validated(text: str) -> _Document:
    try:
        return _Document.model_validate_json(text)
    except ValidationError as error:
        first, *more = error.errors(include_url=False, include_input=False)
        message = first["msg"].removeprefix("Value error, ") + _whose(text, first["loc"])
        if more:
            message += f"; and {len(more)} more fault{'s' if len(more) > 1 else ''}"
        raise _invalid(".".join(map(str, first["loc"])), message) from None


def _invalid(path: str, message: str) -> PriceBookInvalid:
    return PriceBookInvalid(f"{path or 'the document'}: {message}", field="document", path=path)


def _whose(text: str, path: Sequence[int | str]) -> str:
    """Of a fault within a price: whose it is, as a place in a long list is hard to find."""
    match path:
        case ["prices", int(place), _, *_]:
            entry = json.loads(text)["prices"][place]
            return f" (the price of {entry.get('provider')}/{entry.get('model')})" if isinstance(entry, dict) else ""
    return ""


def _faults(document: _Document, text: str) -> Iterator[tuple[str, str]]:
    """What is well formed and yet not meant: the path and the fault of each."""
    try:
        json.loads(text, object_pairs_hook=_each_once)
    except _Twice as error:
        yield "", f"the key {error} stands twice in one object"
    seen: dict[tuple[object, ...], int] = {}
    for place, entry in enumerate(document.prices):
        for field in ("provider", "model", "region"):
            if (name := getattr(entry, field)) != name.strip() or not name.isprintable():
                yield (
                    f"prices.{place}.{field}",
                    f"{name!r} is no name: white space around it, or what cannot be printed",
                )
        for number, step in enumerate(entry.above):
            if not step.given():
                yield f"prices.{place}.above.{number}", f"a step needs at least one of {', '.join(_KINDS)}"
        key = (entry.provider, entry.model, entry.tier, entry.region, entry.valid_from or _ALWAYS)
        if (first := seen.setdefault(key, place)) != place:
            what = f"{entry.provider}/{entry.model} has two prices from the same instant on"
            yield f"prices.{place}", f"{what}, the other is prices.{first}"


class _Twice(Exception):
    """A key that stands twice in one object; JSON would take the last."""


def _each_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _Twice(next(key for place, (key, _) in enumerate(pairs) if key in dict(pairs[:place])))
    return found


def _book(document: _Document) -> PriceBook:
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
