"""What a call costs: exactly, in whole micro-USD, by the price that holds."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cost import price_document
from services.cost.errors import PriceBookInvalid, PriceNotFound
from services.cost.prices import Price, PriceList, Rates, Usage, Wanted
from tests.support.cost import book, document

NOW = datetime(2026, 3, 1, tzinfo=UTC)
RATES = st.builds(Rates, *(st.integers(0, 10**9) for _ in fields(Rates)))
COUNT = st.integers(0, 10_000_000)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    cached, written, fresh = draw(COUNT), draw(COUNT), draw(COUNT)
    reasoning, said = draw(COUNT), draw(COUNT)
    return Usage(
        cached + written + fresh, reasoning + said, cached_input_tokens=cached, reasoning_tokens=reasoning,
        cache_write_tokens=written, images=draw(st.integers(0, 1000)), audio_input_tokens=draw(COUNT),
        audio_output_tokens=draw(COUNT), embedding_tokens=draw(COUNT),
    )  # fmt: skip


def exact(rates: Rates, usage: Usage) -> Fraction:
    """The same sum in fractions, kind by kind."""
    per_token = {
        "input": usage.input_tokens - usage.cached_input_tokens - usage.cache_write_tokens,
        "cached_input": usage.cached_input_tokens,
        "cache_write": usage.cache_write_tokens,
        "output": usage.output_tokens - usage.reasoning_tokens,
        "reasoning": usage.reasoning_tokens,
        "audio_input": usage.audio_input_tokens,
        "audio_output": usage.audio_output_tokens,
        "embedding": usage.embedding_tokens,
    }
    prices = asdict(rates)
    return sum((Fraction(count * prices[kind], 10**6) for kind, count in per_token.items()), Fraction()) + (
        usage.images * rates.image
    )


@given(RATES, usages())
def test_a_cost_is_the_exact_sum_rounded_up_once(rates: Rates, usage: Usage) -> None:
    cost = Price(rates).of(usage)
    assert 0 <= cost - exact(rates, usage) < 1


@given(RATES, usages(), usages())
def test_two_calls_never_cost_less_than_their_sum_and_at_most_a_micro_dollar_more(
    rates: Rates, one: Usage, two: Usage
) -> None:
    price = Price(rates)
    assert 0 <= price.of(one) + price.of(two) - (exact(rates, one) + exact(rates, two)) < 2


def price(listed: PriceList, *, at: datetime = NOW, **wanted: str) -> int:
    """What a million tokens read cost."""
    found = listed.price(Wanted(**({"provider": "p", "model": "m"} | wanted)), at=at)
    return found.price.rates.input


def test_the_closest_entry_holds() -> None:
    listed = PriceList(
        (
            book(
                {"input": 1},
                {"input": 2, "tier": "batch"},
                {"input": 3, "region": "eu"},
                {"input": 4, "tier": "batch", "region": "eu"},
                {"input": 5, "model": "*"},
                {"input": 6, "model": "*", "region": "eu"},
            ),
        )
    )
    assert price(listed) == 1
    assert price(listed, tier="batch", region="us") == 2
    assert price(listed, region="eu", tier="flex") == 3
    assert price(listed, tier="batch", region="eu") == 4
    assert price(listed, model="other") == 5
    assert price(listed, model="other", region="eu", tier="batch") == 6


def test_a_price_holds_from_its_date_until_the_next() -> None:
    listed = PriceList(
        (
            book(
                {"input": 2, "valid_from": "2026-02-01T00:00:00Z"},
                {"input": 3, "valid_from": "2026-03-01T00:00:00Z"},
                {"input": 1},
            ),
        )
    )
    assert price(listed, at=datetime(2025, 1, 1, tzinfo=UTC)) == 1
    assert price(listed, at=datetime(2026, 2, 28, 23, 59, 59, tzinfo=UTC)) == 2
    assert price(listed, at=NOW) == 3


def test_a_long_prompt_has_its_own_rates_for_the_whole_call() -> None:
    listed = PriceList(
        (
            book(
                {
                    "input": 1_000_000, "output": 2_000_000,
                    "above": [{"input_tokens": 100, "input": 3_000_000}, {"input_tokens": 1000, "output": 9_000_000}],
                }
            ),
        )
    )  # fmt: skip
    found = listed.price(Wanted("p", "m"), at=NOW).price
    assert [found.of(Usage(tokens, 1)) for tokens in (100, 101, 1001)] == [102, 305, 1010]


def test_what_is_not_given_costs_what_it_is_a_kind_of() -> None:
    found = book({"input": 5, "output": 7}).find(Wanted("p", "m"), at=NOW)
    assert found
    assert found.rates == Rates(5, 7, 5, 5, 7, 5, 7, 5, 0)


def test_a_tenants_own_price_goes_before_the_meshs_and_carries_its_own_version() -> None:
    own, mesh = book({"input": 1, "model": "*"}), book({"input": 2}, {"input": 3, "provider": "q"})
    listed = PriceList((own, mesh))
    assert listed.price(Wanted("p", "m"), at=NOW).version == own.version
    assert listed.price(Wanted("q", "m"), at=NOW).version == mesh.version


def test_an_unknown_model_is_refused_free_or_estimated_as_the_book_says() -> None:
    entries: tuple[dict[str, Any], ...] = (
        {"input": 5, "output": 1},
        {"model": "dear", "input": 9},
        {"provider": "q", "input": 99},
    )
    unknown = Wanted("p", "unheard-of")
    with pytest.raises(PriceNotFound) as raised:
        PriceList((book(*entries),)).price(unknown, at=NOW)
    assert raised.value.facts == {"provider": "p", "model": "unheard-of"}
    free = PriceList((book(*entries, unknown_model="zero"),)).price(unknown, at=NOW)
    assert (free.price.of(Usage(10**6, 10**6)), free.estimated) == (0, True)
    guessed = PriceList((book(*entries, unknown_model="estimate"),))
    assert (price(guessed, model="unheard-of"), guessed.price(unknown, at=NOW).estimated) == (9, True)
    assert price(guessed, provider="nobody") == 99
    own_book = PriceList((book({"input": 1, "provider": "other"}, unknown_model="estimate"), book(*entries)))
    assert price(own_book, model="unheard-of") == 9  # the provider's, in whichever book
    own_rule = PriceList((book(unknown_model="zero"), book(*entries)))
    assert own_rule.price(unknown, at=NOW).price.of(Usage(10**6, 0)) == 0


def test_an_estimate_is_never_cheaper_than_a_model_of_the_provider_is_for_what_was_used() -> None:
    listed = PriceList(
        (
            book(
                {"model": "text", "input": 5, "output": 70, "above": [{"input_tokens": 9, "input": 8}]},
                {"model": "pictures", "image": 40_000},
                {"model": "ears", "audio_input": 100},
                unknown_model="estimate",
            ),
        )
    )
    rates = listed.price(Wanted("p", "unheard-of"), at=NOW).price.rates
    assert (rates.input, rates.output, rates.image, rates.audio_input) == (8, 70, 40_000, 100)


def test_a_book_that_was_imported_by_older_rules_still_prices() -> None:
    """What is stored was said yes to: a tenant must not lose its prices to a stricter check."""
    older = document({"input": 1, "region": " "}, {"input": 2, "above": [{"input_tokens": 5}]})
    with pytest.raises(PriceBookInvalid):
        price_document.parse(older)
    assert price(PriceList((price_document.parse_stored(older),))) == 2


def test_a_book_is_named_by_what_it_says_and_not_by_how() -> None:
    one = price_document.parse(document({"input": 1, "output": 2}))
    other = price_document.parse(json.dumps(json.loads(document({"output": 2, "input": 1})), indent=3))
    assert one.version == other.version == price_document.parse(one.document).version
    assert one.version != book({"input": 1, "output": 3}).version


def test_the_meshs_own_book_loads() -> None:
    shipped = price_document.read(Path(price_document.__file__).with_name("prices.json"))
    found = shipped.find(Wanted("openai", "gpt-4o"), at=NOW)
    assert found
    assert found.of(Usage(1_000_000, 1_000_000, cached_input_tokens=1_000_000)) == 1_250_000 + 10_000_000


OPENAI = ("gpt-4o", "gpt-4o-mini", "gpt-4.1", "gpt-4.1-mini", "gpt-4.1-nano", "gpt-4-turbo", "gpt-4", "gpt-3.5-turbo")


@pytest.mark.parametrize("model", OPENAI)
def test_the_meshs_own_book_prices_openais_families(model: str) -> None:
    shipped = price_document.read(Path(price_document.__file__).with_name("prices.json"))
    found = shipped.find(Wanted("openai", model), at=NOW)
    assert found
    assert 0 < found.of(Usage(1_000_000, 0)) < found.of(Usage(0, 1_000_000))


FOLDER = Path(__file__).with_name("bad_price_books")


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.json")), ids=lambda file: file.stem)
def test_a_bad_book_is_refused_with_the_path_of_its_fault(file: Path) -> None:
    bad = json.loads(file.read_text())
    with pytest.raises(PriceBookInvalid) as raised:
        price_document.parse(bad["document"] if isinstance(bad["document"], str) else json.dumps(bad["document"]))
    assert raised.value.facts["path"] == bad["path"]
    assert bad["says"] in raised.value.message
